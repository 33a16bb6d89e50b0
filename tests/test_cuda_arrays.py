"""Arrays of the CUDA backend: their geometry, what they export, and how those of others are read."""

import copy
import ctypes
import gc
import operator
import pickle
import re
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest
from ml_dtypes import bfloat16

pytest.importorskip("cuda.bindings", reason="the extra cuda is not installed")

from cuda.core.utils import StridedMemoryView

import normkernels as nk
from cuda_fakes import ADDRESS, F4, VIEWS, Exporter, Interface, device, fake_driver, host  # noqa: F401
from normkernels._devices import is_device_array
from normkernels.cuda import arrays, foreign, memory


@pytest.mark.parametrize("x", VIEWS.values(), ids=VIEWS)
def test_geometry_is_that_of_numpy(x):
    y = device(x)
    assert (y.ndim, y.size, y.itemsize, y.nbytes) == (x.ndim, x.size, x.itemsize, x.nbytes)
    assert y.is_c_contiguous == x.flags.c_contiguous
    assert y.is_aligned
    first, past = np.lib.array_utils.byte_bounds(x)
    assert y.extent() == ((first, past) if x.size else (x.ctypes.data,) * 2)
    order = np.roll(np.arange(x.ndim), 1)
    t, u = y.transpose(order), x.transpose(order)
    assert (t.shape, t.strides, t.address, t.device, t.stream) == (u.shape, u.strides, y.address, 1, 7)
    assert y.transpose().strides == x.T.strides
    bits = y.view(f"u{x.itemsize}")
    assert (bits.dtype, bits.strides, bits.owner) == (np.dtype(f"u{x.itemsize}"), x.strides, x)
    if x.ndim:
        assert len(y) == len(x)


@pytest.mark.parametrize("shape", [(24,), 24, (-1,), (4, 6), (2, -1, 2), (1, 24, 1)])
def test_reshape(shape):
    x = VIEWS["dense"]
    y, z = device(x).reshape(shape), x.reshape(shape)
    assert (y.shape, y.strides) == (z.shape, z.strides)


def test_axes_and_lengths_one_by_one():
    x = VIEWS["dense"]
    y = device(x)
    assert y.reshape(4, -1).shape == y.reshape([np.int64(4), -1]).shape == (4, 6)
    assert y.transpose(2, 0, 1).strides == y.transpose([2, 0, 1]).strides == x.transpose(2, 0, 1).strides
    assert y.transpose(None).shape == y.T.shape == (4, 3, 2)
    assert y.transpose(-1, 0, -2).strides == x.transpose(-1, 0, -2).strides
    with pytest.raises(TypeError, match="integer"):
        y.reshape(4.0, 6)
    with pytest.raises(ValueError, match=r"order must name each of the 3 axes once, got \(\)"):
        y.transpose(())


def test_reshape_of_no_elements():
    y = device(VIEWS["no elements"]).reshape((0,))
    assert (y.shape, y.size) == ((0,), 0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: device(VIEWS["dense"]).part(0, 3), "must lie in a flat array, got 0 to 3 of (2, 3, 4)"),
        (lambda: device(VIEWS["dense"]).reshape(-1).part(20, 5), "got 20 to 25 of (24,)"),
        (lambda: device(VIEWS["dense"]).reshape(-1).part(-1, 2), "got -1 to 1 of (24,)"),
        (lambda: device(VIEWS["dense"]).reshape((5, 5)), "shape must have the 24 elements of (2, 3, 4)"),
        (lambda: device(VIEWS["dense"]).reshape((-1, 7)), "shape must have the 24 elements"),
        (lambda: device(VIEWS["transposed"]).reshape(24), "must be C-contiguous to be reshaped, got strides"),
        (lambda: device(VIEWS["dense"]).view(np.float64), "dtype must have 4 bytes, as float32, got float64"),
        (lambda: device(VIEWS["dense"]).transpose((0, 0, 1)), "order must name each of the 3 axes once"),
    ],
)
def test_views_that_cannot_be(act, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        act()


def test_a_misaligned_array_is_seen():
    assert not arrays.DeviceArray((4,), (4,), F4, ADDRESS + 2, 0, 0, None).is_aligned
    assert not arrays.DeviceArray((4,), (6,), F4, ADDRESS, 0, 0, None).is_aligned


def test_interface():
    y = arrays.DeviceArray((4, 64), (256, 4), F4, ADDRESS, 0, 0, None, True)
    assert y.__cuda_array_interface__ == {
        "shape": (4, 64), "strides": None, "typestr": "<f4", "data": (ADDRESS, True),
        "stream": 1, "version": 3,
    }  # fmt: skip
    assert y.transpose().__cuda_array_interface__["strides"] == (4, 256)
    assert device(VIEWS["dense"]).__cuda_array_interface__["stream"] == 7
    assert device(VIEWS["no elements"]).__cuda_array_interface__["data"] == (0, False)
    assert not hasattr(y.view(np.float32).reshape(256).view("V4"), "__cuda_array_interface__")
    assert "float32 (4, 64) on device 0" in repr(y)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, bfloat16])
def test_export_to_torch(dtype):
    """What another library reads; it keeps the memory alive, and lets go of it."""
    torch = pytest.importorskip("torch")
    x = np.arange(24).reshape(2, 3, 4).astype(dtype).transpose(0, 2, 1)
    y = host(x)
    alive = weakref.ref(y)
    tensor = torch.from_dlpack(y)
    del y
    gc.collect()
    assert alive() is not None
    assert tensor.stride() == (12, 1, 4)
    np.testing.assert_array_equal(tensor.double().numpy(), x.astype(float))
    del tensor
    gc.collect()
    assert alive() is None


def test_export_of_read_only_memory():
    y = host(np.ones(3, np.float32), readonly=True)
    assert not np.from_dlpack(y).flags.writeable
    with pytest.raises(BufferError, match="read-only array must be exported by DLPack 1.0 or newer"):
        y.__dlpack__(stream=-1)


class Capsule:
    """One that is there already, as if somebody exported it."""

    def __init__(self, made):
        self.made = made

    def __dlpack_device__(self):
        return 2, 1

    def __dlpack__(self, **_):
        return self.made


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_that_nobody_takes_is_freed(version):
    y = device(VIEWS["dense"])
    alive = weakref.ref(y)
    capsule = y.__dlpack__(stream=-1, max_version=version)
    del y
    assert alive() is not None
    del capsule
    assert alive() is None


def test_a_consumer_that_refuses_frees_the_memory(driver):
    y = memory.empty((2, 3), F4, 0, 7)
    with pytest.raises((BufferError, RuntimeError), match="(?i)unsupported device"):
        np.from_dlpack(y)
    assert not driver.named("cuMemFreeAsync")
    del y
    assert len(driver.named("cuMemFreeAsync")) == 1


@pytest.mark.parametrize("version", [None, (1, 0)])
@pytest.mark.parametrize("x", VIEWS.values(), ids=VIEWS)
def test_what_a_capsule_says(x, version):
    y = device(x)
    view = StridedMemoryView.from_dlpack(Capsule(y.__dlpack__(stream=-1, max_version=version)), stream_ptr=-1)
    assert (view.ptr, view.shape, view.dtype) == (y.address if x.size else 0, x.shape, x.dtype)
    assert view.strides is None or view.strides == tuple(s // x.itemsize for s in x.strides)
    assert (view.device_id, view.readonly) == (1, False)


def test_export_to_cuda():
    """The reader of cuda.core, which numba uses too."""
    y = device(VIEWS["transposed"].astype(bfloat16))
    view = StridedMemoryView.from_dlpack(y, stream_ptr=-1)
    assert (view.ptr, view.shape, view.dtype, view.device_id) == (y.address, y.shape, bfloat16, 1)
    assert view.strides == tuple(s // 2 for s in y.strides)
    from numba.cuda.typing.typeof import Purpose, typeof

    assert str(typeof(device(VIEWS["dense"]), Purpose.argument)) == "array(float32, 3d, C)"


def test_exports_that_cannot_be():
    y = device(VIEWS["dense"])
    with pytest.raises(BufferError, match=r"dl_device must be \(2, 1\), got \(1, 0\)"):
        y.__dlpack__(dl_device=(1, 0))
    with pytest.raises(BufferError, match="copy must be False or None, got True"):
        y.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="strides must be multiples of the 4 bytes"):
        arrays.DeviceArray((4,), (6,), F4, ADDRESS, 0, 0, None).__dlpack__(stream=-1)


@pytest.mark.parametrize(("asked", "consumer"), [(None, 0), (1, 0), (9, 9)])
def test_the_consumer_of_an_export_waits(driver, asked, consumer):
    device(VIEWS["dense"]).__dlpack__(stream=asked)
    assert driver.named("cuEventRecord", "cuStreamWaitEvent", "cuEventDestroy") == [
        ("cuEventRecord", "event", 7), ("cuStreamWaitEvent", consumer, "event", 0),
        ("cuEventDestroy", "event"),
    ]  # fmt: skip


@pytest.mark.parametrize("asked", [-1, 7])
def test_the_same_stream_need_not_wait(driver, asked):
    device(VIEWS["dense"]).__dlpack__(stream=asked)
    assert driver.calls == []


def test_what_is_a_device_array():
    class Numbas:
        __cuda_ndarray__ = True

    class Refuses:
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("requires grad")

    class Sharded(Interface):
        def __dlpack_device__(self):
            raise BufferError("on two devices")

    x = VIEWS["dense"]
    on_device = [device(x), Interface(), Exporter(x), Exporter(x, 13), Numbas(), Refuses(), Sharded()]
    assert all(map(is_device_array, on_device))
    assert not any(map(is_device_array, [x, [1.0], 3, None, "x", host(x), bfloat16(1), Exporter(x, 3)]))


def test_a_tensor_on_the_host_is_no_device_array():
    torch = pytest.importorskip("torch")
    assert not is_device_array(torch.zeros(3))


@pytest.mark.parametrize(
    ("strides", "stream", "expected", "handle"),
    [
        (None, None, (256, 4), 0),
        ((-256, 4), 1, (-256, 4), 0),
        ((0, 8), 2, (0, 8), 2),
        ((4, 16), 99, (4, 16), 99),
    ],
)
def test_an_interface_is_read(driver, strides, stream, expected, handle):
    owner = Interface(strides=strides, stream=stream)
    y = foreign.from_foreign(owner)
    assert (y.shape, y.strides, y.dtype, y.address) == ((4, 64), expected, F4, ADDRESS)
    assert (y.device, y.stream, y.owner, y.readonly) == (3, handle, owner, False)
    assert foreign.from_foreign(y) is y


def test_an_interface_without_elements(driver):
    y = foreign.from_foreign(Interface(shape=(0, 4), data=(None, True)))
    assert (y.address, y.device, y.readonly, y.size) == (0, 0, True, 0)
    assert not driver.named("cuPointerGetAttribute")


def test_without_a_stream_dlpack_orders(driver):
    exporter = Exporter(device(VIEWS["transposed"]))
    y = foreign.from_foreign(exporter)
    assert exporter.streams == [1]
    assert (y.shape, y.strides, y.device, y.stream) == ((3, 4, 2), VIEWS["transposed"].strides, 2, 0)
    assert y.address == exporter.x.address


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_tensor_is_read(driver, monkeypatch, dtype):
    """One on the host stands in: its attributes have the same names."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(foreign, "_torch_stream", lambda _, device: 40 + device)
    x = torch.zeros(2, 3, 4, dtype=getattr(torch, dtype)).transpose(0, 2)
    y = foreign.from_foreign(x)
    strides = tuple(s * x.itemsize for s in x.stride())
    assert (y.shape, y.strides, y.dtype.name, y.address) == ((4, 3, 2), strides, dtype, x.data_ptr())
    assert (y.device, y.stream, y.owner) == (0, 40, x)


@pytest.mark.parametrize("raw", [True, False])
def test_the_stream_of_a_tensor(raw):
    private = types.SimpleNamespace(
        **({"_cuda_getCurrentRawStream": lambda device: 50 + device} if raw else {})
    )
    public = types.SimpleNamespace(
        current_stream=lambda device: types.SimpleNamespace(cuda_stream=50 + device)
    )
    assert foreign._torch_stream(types.SimpleNamespace(_C=private, cuda=public), 3) == 53


def tensor_with(**options):
    torch = pytest.importorskip("torch")
    return torch.zeros(3, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Interface(mask=Interface()), "got Interface: it has a mask"),
        (lambda: tensor_with(requires_grad=True), "got Tensor: it requires grad, use .detach()"),
        (lambda: tensor_with(dtype=tensor_with().cfloat().dtype).conj().imag, "it is negated lazily"),
        (lambda: Exporter(VIEWS["dense"], 1), "got Exporter: it is on a device of DLPack's type 1"),
        (lambda: [1.0], "got list: "),
    ],
    ids=["mask", "grad", "negated", "host", "list"],
)
def test_what_cannot_be_read(driver, make, message):
    with pytest.raises(TypeError, match="x must be an array in device memory") as caught:
        foreign.from_foreign(make())
    assert message in str(caught.value)


def test_copying_to_the_host_takes_what_lies_between(driver, monkeypatch):
    """Strides may lead backwards and past elements of others."""
    x = np.arange(48, dtype=np.float32).reshape(6, 8)[::-2, 1::3]
    memmove = ctypes.memmove
    monkeypatch.setattr(
        driver, "on_cuMemcpyDtoHAsync", lambda to, at, n, _: (memmove(to, at, n), ())[1], False
    )
    np.testing.assert_array_equal(device(x).copy_to_host(), x)
    assert [call[0] for call in driver.calls][-1] == "cuStreamSynchronize"
    assert device(VIEWS["no elements"]).copy_to_host().shape == (3, 0, 2)


@pytest.mark.parametrize(
    "use",
    [
        *(np.asarray, np.sum, np.exp, pickle.dumps, copy.deepcopy),
        *(bool, complex, float, int, list, operator.neg),
        *(lambda y: y[0], lambda y: operator.setitem(y, 0, 1.0), lambda y: 3 in y),
        *(lambda y: y + 1, lambda y: 1 + y, lambda y: y * y, lambda y: y == y, lambda y: y < 1),
        *(lambda y: y + np.zeros(3), lambda y: np.zeros(3) + y),
    ],
)
def test_what_wants_the_elements_on_the_host_is_told_how(use):
    with pytest.raises(TypeError, match=r"^[^\n]*device memory[^\n]*: use copy_to_host\(\)[^\n]*$"):
        use(device(np.zeros(3, np.float32)))


def test_an_array_is_itself():
    y = device(np.zeros(3, np.float32))
    assert y in {y: 1}
    assert not hasattr(y, "__dict__")


def test_the_class_is_public():
    assert nk.DeviceArray is arrays.DeviceArray
    with pytest.raises(AttributeError, match="'normkernels' has no attribute 'OnDevice'"):
        _ = nk.OnDevice


def test_the_class_is_there_without_cuda():
    code = """
import sys
sys.modules["cuda"] = sys.modules["numba_cuda"] = None
import normkernels as nk
assert not isinstance(3, nk.DeviceArray)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
