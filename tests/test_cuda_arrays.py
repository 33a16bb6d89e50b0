"""Arrays, devices and memory of the CUDA backend, on made-up addresses and a made-up driver."""

import gc
import importlib.util
import os
import re
import subprocess
import sys
import types
import weakref

import numpy as np
import pytest
from ml_dtypes import bfloat16

pytest.importorskip("cuda.bindings", reason="the extra cuda is not installed")

from cuda.bindings import driver as bindings
from cuda.core.utils import StridedMemoryView

from normkernels._devices import DeviceUnavailable, FatalDeviceError, is_device_array
from normkernels.cuda import arrays, devices, dlpack, foreign, memory

F4 = np.dtype(np.float32)
ADDRESS = 0x7F00_0000_0000
OK = bindings.CUresult.CUDA_SUCCESS


class Driver:
    """A driver that notes what it is asked for: one allocation after the other, captures as told."""

    def __init__(self):
        self.calls, self.captures, self.fails = [], {}, {}
        self.next, self.current = ADDRESS, 0

    def __getattr__(self, name):
        if not name.startswith("cu") or name == "cuuint64_t":
            return getattr(bindings, name)  # types and enumerations

        def call(*arguments):
            self.calls.append((name, *arguments))
            return self.fails.get(name, OK), *getattr(self, f"on_{name}", lambda *_: ())(*arguments)

        return call

    def named(self, *names):
        return [call for call in self.calls if call[0] in names]

    def on_cuMemAllocFromPoolAsync(self, nbytes, pool, stream):
        self.next += 1 << 20
        return (bindings.CUdeviceptr(self.next),)

    def on_cuStreamIsCapturing(self, stream):
        return (bindings.CUstreamCaptureStatus(1 if stream in self.captures else 0),)

    def on_cuStreamGetCaptureInfo(self, stream):
        return bindings.CUstreamCaptureStatus(1), self.captures[stream], None

    def on_cuCtxGetCurrent(self):
        return (bindings.CUcontext(self.current),)

    def on_cuCtxSetCurrent(self, context):
        self.current = int(context)
        return ()

    def on_cuDeviceGet(self, device):
        return (device,)

    def on_cuDevicePrimaryCtxRetain(self, device):
        return (bindings.CUcontext(100 + device),)

    def on_cuDeviceTotalMem(self, device):
        return (800,)

    def on_cuMemPoolCreate(self, properties):
        return ("pool",)

    def on_cuEventCreate(self, flags):
        return ("event",)

    def on_cuGetErrorString(self, error):
        return (b"in words",)

    def on_cuMemGetInfo(self):
        return 30, 800

    def on_cuPointerGetAttribute(self, attribute, address):
        return (3,)


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(devices, "driver", made)
    monkeypatch.setattr(devices, "_ready", False)
    monkeypatch.setattr(devices, "_lost", None)
    for cached in (devices.context, memory.pool):
        cached.cache_clear()
    yield made
    gc.collect()
    memory._later.clear()
    for cached in (devices.context, memory.pool):
        cached.cache_clear()


class Host(arrays.DeviceArray):
    """Host memory, so that libraries without a device can read what is exported."""

    def __dlpack_device__(self):
        return 1, 0


def host(x, readonly=False):
    return Host(x.shape, x.strides, x.dtype, x.ctypes.data, 0, 0, x, readonly)


def device(x, **also):
    """A DeviceArray with the shape and strides of an ndarray."""
    return arrays.DeviceArray(x.shape, x.strides, x.dtype, x.ctypes.data, 1, 7, x, **also)


class Interface:
    def __init__(self, shape=(4, 64), typestr="<f4", strides=None, version=3, **also):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "strides": strides, "version": version,
            "data": (ADDRESS, False), **also,
        }  # fmt: skip


class Exporter:
    """What JAX looks like: DLPack, and an interface that says nothing of streams."""

    def __init__(self, x, kind=2):
        self.x, self.kind, self.streams = x, kind, []
        self.__cuda_array_interface__ = {"version": 2, "typestr": x.dtype.str}

    def __dlpack_device__(self):
        return self.kind, 2

    def __dlpack__(self, *, stream=None, **also):
        self.streams.append(stream)
        return self.x.__dlpack__(stream=-1, **also)


VIEWS = {
    "dense": np.zeros((2, 3, 4), np.float32),
    "transposed": np.zeros((2, 3, 4), np.float32).transpose(1, 2, 0),
    "every second": np.zeros((6, 8), np.float32)[::2, 1::2],
    "backwards": np.zeros((6, 8), np.float16)[::-1, ::-2],
    "broadcast": np.broadcast_to(np.zeros(4), (3, 4)),
    "no elements": np.zeros((3, 0, 2), np.float32),
    "a number": np.zeros((), np.float32),
    "axes of length 1": np.zeros((4, 8), np.float32)[::4, None],
}


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


def test_reshape_of_no_elements():
    y = device(VIEWS["no elements"]).reshape((0,))
    assert (y.shape, y.size) == ((0,), 0)


@pytest.mark.parametrize(
    ("act", "message"),
    [
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


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_that_nobody_takes_is_freed(version):
    y = device(VIEWS["dense"])
    alive, before = weakref.ref(y), len(dlpack._exported)
    capsule = y.__dlpack__(stream=-1, max_version=version)
    del y
    assert alive() is not None
    del capsule
    assert alive() is None
    assert len(dlpack._exported) == before


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


def test_memory_is_freed_on_its_stream_when_nothing_looks_at_it(driver):
    y = memory.empty((4, 8), F4, 1, 7)
    assert (y.shape, y.strides, y.device, y.stream) == ((4, 8), (32, 4), 1, 7)
    assert driver.named("cuMemAllocFromPoolAsync") == [("cuMemAllocFromPoolAsync", 128, "pool", 7)]
    address, view = y.address, y.reshape(32).view(np.int32)
    del y
    assert not driver.named("cuMemFreeAsync")
    del view
    assert driver.named("cuMemFreeAsync") == [("cuMemFreeAsync", address, 7)]


def test_the_pool_keeps_an_eighth_of_the_device(driver, monkeypatch):
    monkeypatch.delenv("NORMKERNELS_BUFFER_BYTES", raising=False)
    memory.workspace(10, 0, 0)
    monkeypatch.setenv("NORMKERNELS_BUFFER_BYTES", "55")
    memory.workspace(10, 1, 0)
    memory.limit(1, 66)
    assert [int(value) for *_, value in driver.named("cuMemPoolSetAttribute")] == [100, 55, 66]
    memory.release(1)
    assert driver.named("cuMemPoolTrimTo") == [("cuMemPoolTrimTo", "pool", 0)]


def test_memory_waits_for_those_it_was_shown_to(driver):
    y = memory.empty((4,), F4, 0, 7)
    y.__dlpack__(stream=9)
    driver.calls.clear()
    del y
    assert [call[:2] for call in driver.named("cuEventRecord", "cuStreamWaitEvent", "cuMemFreeAsync")] == [
        ("cuEventRecord", "event"), ("cuStreamWaitEvent", 7), ("cuMemFreeAsync", ADDRESS + (1 << 20)),
    ]  # fmt: skip
    assert driver.named("cuEventRecord") == [("cuEventRecord", "event", 9)]


def test_memory_of_a_graph_is_freed_in_the_graph(driver):
    driver.captures[7] = 5
    memory.workspace(10, 0, 7)
    assert len(driver.named("cuMemFreeAsync")) == 1
    assert devices.capturing(7)
    assert not devices.capturing(8)


def test_memory_from_before_a_capture_is_freed_after_it(driver):
    y = memory.workspace(10, 0, 7)
    address = y.address
    driver.captures[7] = 5
    del y
    inside = memory.workspace(10, 0, 7)
    assert not driver.named("cuMemFreeAsync")
    driver.captures.clear()
    memory.workspace(10, 0, 8)
    assert driver.named("cuMemFreeAsync")[0] == ("cuMemFreeAsync", address, 7)
    del inside


def test_a_capture_elsewhere_keeps_the_legacy_stream_from_being_asked(driver):
    driver.fails["cuStreamIsCapturing"] = bindings.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    assert devices.capture(0) == -1
    with pytest.raises(
        RuntimeError, match="must not be on the legacy default stream while another stream is"
    ):
        memory.workspace(10, 0, 0)
    assert not driver.named("cuMemAllocFromPoolAsync")


def test_no_bytes_are_not_asked_for(driver):
    assert memory.empty((0, 4), F4, 0, 0).address == 0
    assert not driver.named("cuMemAllocFromPoolAsync")


def test_out_of_memory(driver):
    driver.fails["cuMemAllocFromPoolAsync"] = bindings.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    with pytest.raises(MemoryError, match="^the device must have 4096 bytes free, got 30 of 800$"):
        memory.empty((1024,), F4, 0, 0)
    assert devices._ready


def test_a_fatal_error_is_remembered(driver):
    y = memory.empty((4,), F4, 0, 0)
    driver.fails["cuStreamSynchronize"] = bindings.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    message = "context is lost, a kernel failed with CUDA_ERROR_ILLEGAL_ADDRESS: every later call"
    with pytest.raises(FatalDeviceError, match=message):
        y.copy_to_host()
    driver.calls.clear()
    for act in (devices.require, y.copy_to_host, lambda: memory.empty((4,), F4, 0, 0)):
        with pytest.raises(FatalDeviceError, match=message):
            act()
    with pytest.raises(FatalDeviceError, match=message):
        foreign.from_foreign(Interface())
    del y
    assert driver.calls == []


def test_a_fatal_error_is_no_fault_of_the_argument(driver):
    driver.fails["cuPointerGetAttribute"] = bindings.CUresult.CUDA_ERROR_LAUNCH_FAILED
    with pytest.raises(FatalDeviceError, match="CUDA_ERROR_LAUNCH_FAILED"):
        foreign.from_foreign(Interface())
    driver.fails["cuPointerGetAttribute"] = bindings.CUresult.CUDA_ERROR_INVALID_VALUE
    devices._lost = None
    with pytest.raises(TypeError, match="device memory.*got Interface: CUDA_ERROR_INVALID_VALUE: in words"):
        foreign.from_foreign(Interface())


def test_errors_of_other_libraries_are_explained(driver):
    other = ValueError("CUDA_ERROR_INVALID_VALUE: This indicates that a parameter is out of range")
    assert devices.explain(other) is other
    assert devices._lost is None
    lost = devices.explain(RuntimeError("[716] Call to cuCtxSynchronize: CUDA_ERROR_MISALIGNED_ADDRESS"))
    assert isinstance(lost, FatalDeviceError)


def test_a_device_is_current_for_as_long_as_it_is_needed(driver):
    with devices.making_current(0):
        assert driver.current == 100
    assert driver.current == 100  # no device was, so this one stays
    with devices.making_current(1):
        assert driver.current == 101
        with devices.making_current(1):
            pass
        assert driver.current == 101
    assert driver.current == 100
    assert len(driver.named("cuCtxSetCurrent")) == 3


def test_copying_to_the_host_takes_what_lies_between(driver, monkeypatch):
    """Strides may lead backwards and past elements of others."""
    x = np.arange(48, dtype=np.float32).reshape(6, 8)[::-2, 1::3]
    memmove = __import__("ctypes").memmove
    monkeypatch.setattr(
        driver, "on_cuMemcpyDtoHAsync", lambda to, at, n, _: (memmove(to, at, n), ())[1], False
    )
    np.testing.assert_array_equal(device(x).copy_to_host(), x)
    assert [call[0] for call in driver.calls][-1] == "cuStreamSynchronize"
    assert device(VIEWS["no elements"]).copy_to_host().shape == (3, 0, 2)


def test_missing_packages(driver, monkeypatch):
    monkeypatch.setattr(devices, "driver", None)
    with pytest.raises(
        DeviceUnavailable, match=r"^CUDA arrays need the extra: pip install 'normkernels\[cuda\]'$"
    ):
        devices.require()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("NO_DEVICE", "need an NVIDIA driver and GPU.*got CUDA_ERROR_NO_DEVICE$"),
        ("NOT_INITIALIZED", "forked"),
    ],
)
def test_a_driver_that_cannot(driver, error, message):
    driver.fails["cuInit"] = getattr(bindings.CUresult, f"CUDA_ERROR_{error}")
    with pytest.raises(DeviceUnavailable, match=message):
        devices.require()


def has_driver():
    try:
        bindings.cuInit(0)
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
def test_a_machine_without_a_driver(driver, monkeypatch):
    monkeypatch.setattr(devices, "driver", bindings)
    for act in (devices.require, lambda: memory.empty((4,), F4, 0, 0), lambda: devices.properties(0)):
        with pytest.raises(
            DeviceUnavailable, match="need an NVIDIA driver and GPU: install.*got no driver library"
        ):
            act()


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_says_so():
    code = """
import os
from types import SimpleNamespace
from normkernels.cuda import devices
devices.driver = SimpleNamespace(cuInit=lambda _: (0,), CUresult=devices.driver.CUresult)
devices.require()
if os.fork() == 0:
    try:
        devices.require()
    except devices.DeviceUnavailable as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
devices.require()
"""
    child = run(code, NUMBA_ENABLE_CUDASIM="0")
    assert child.returncode == 0, child.stderr
    assert "must not be used in a process forked after CUDA was initialised" in child.stdout
    assert "spawn" in child.stdout


def test_the_simulator():
    """Arrays of the simulator behave as those of a device, in host memory and without a driver."""
    code = """
import numpy as np
from numba import cuda
from normkernels._devices import is_device_array
from normkernels.cuda import arrays, devices, foreign, memory

assert devices.simulated()
devices.driver = None  # never called
found = devices.properties(0)
assert (found.multiprocessors, found.compute_capability) == (132, (9, 0))

x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
theirs = cuda.to_device(x)
assert is_device_array(theirs)
y = foreign.from_foreign(theirs)
assert isinstance(y, arrays.DeviceArray) and is_device_array(y)
assert (y.shape, y.strides, type(y.shape)) == (x.shape, x.strides, tuple)
y.transpose((2, 0, 1)).transpose((1, 2, 0)).reshape(24).flat_memory()[5] = 99
x[0, 1, 1] = 99
assert (theirs.copy_to_host() == x).all() and (y.copy_to_host() == x).all()
assert (y.transpose().copy_to_host() == x.T).all()
assert (y.view(np.uint32).flat_memory() == x.view(np.uint32).reshape(-1)).all()
first, past = y.extent()
assert past - first == x.nbytes

@cuda.jit
def double(flat):
    flat[cuda.grid(1)] *= 2

z = memory.empty((2, 3), np.dtype(np.float32), 0, 0)
z.flat_memory()[:] = 3
double[2, 3](z.flat_memory())
assert (z.copy_to_host() == 6).all()
copy = z.copy_to_host()
z.flat_memory()[0] = 0
assert copy[0, 0] == 6
with devices.making_current(0):
    devices.wait(0, 1)
assert not devices.capturing(0)
assert memory.workspace(9, 0, 0).shape == (9,)
for wrong in (lambda: foreign.from_foreign(x), lambda: foreign.from_foreign(3)):
    try:
        wrong()
    except TypeError as error:
        assert "the simulator knows only its own arrays" in str(error)
    else:
        raise AssertionError
assert not hasattr(z, "__cuda_array_interface__")
"""
    child = run(code, NUMBA_ENABLE_CUDASIM="1")
    assert child.returncode == 0, child.stderr


def test_numba_cuda_is_needed(driver, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "numba_cuda" else real(name)
    )
    with pytest.raises(DeviceUnavailable, match="need the extra"):
        devices.require()
