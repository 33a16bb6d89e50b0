"""Arrays of other libraries on the host: taken without a copy, written in place, or refused in a line."""

import sys

import ml_dtypes
import numpy as np
import pytest

import normkernels as nk
from helpers import assert_same_bits
from normkernels import _arrays


class ByDLPack:
    """An object that speaks DLPack and nothing else."""

    def __init__(self, memory):
        self.memory = memory

    def __dlpack__(self, **options):
        return self.memory.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.memory.__dlpack_device__()


class ByArray:
    """An object with `__array__` alone, which gives its memory or refuses to copy."""

    def __init__(self, memory, copies=False):
        self.memory = memory
        self.copies = copies

    def __array__(self, dtype=None, copy=None):
        if self.copies and copy is False:
            raise ValueError("a copy is needed")
        return self.memory.copy() if self.copies else self.memory


class Subclass(np.ndarray):
    pass


def memmap(a, tmp_path):
    file = tmp_path / f"{len(list(tmp_path.iterdir()))}.bin"
    mapped = np.memmap(file, a.dtype, "w+", shape=a.shape)
    mapped[...] = a
    return mapped


def tensor(a, tmp_path):
    torch = pytest.importorskip("torch")
    if a.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(a)


KINDS = {
    "memmap": memmap,
    "tensor": tensor,
    "subclass": lambda a, tmp_path: a.view(Subclass),
    "dlpack": lambda a, tmp_path: ByDLPack(a),
    "array": lambda a, tmp_path: ByArray(a),
}


@pytest.fixture(params=KINDS)
def other(request, tmp_path):
    """The function that makes an array of another kind, over the same memory or over a file."""
    return lambda a: KINDS[request.param](a, tmp_path)


def values(array):
    return _arrays.in_host_memory(array, "x")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_tensors_are_taken_without_a_copy(dtype):
    a = np.arange(24).astype(dtype).reshape(4, 6)
    for view in (a, a.T, a[::2, 1:]):
        for written in (False, True):
            taken = _arrays.array(tensor(view, None), written=written)
            assert_same_bits(taken, view)
            assert taken.strides == view.strides
            assert taken.ctypes.data == view.ctypes.data


def test_bfloat16_tensors_through_a_norm(rng):
    torch = pytest.importorskip("torch")
    x, dy, weight, y, dx = (rng.normal(size=(5, *s)).astype(ml_dtypes.bfloat16) for s in [(4, 6)] * 5)
    weight = weight[0, 0]
    expected, saved = nk.layer_norm_forward(x, 6, weight, weight)
    grads = nk.layer_norm_backward(dy, saved)
    tensors = {k: tensor(v, None) for k, v in {"x": x, "dy": dy, "w": weight, "y": y, "dx": dx}.items()}
    out, saved = nk.layer_norm_forward(tensors["x"], 6, tensors["w"], tensors["w"], out=tensors["y"])
    assert out is tensors["y"]
    assert out.dtype == torch.bfloat16
    assert_same_bits(y, expected)
    got = nk.layer_norm_backward(tensors["dy"], saved, out=tensors["dx"])
    assert got.dx is tensors["dx"]
    assert_same_bits((dx, *got[1:]), tuple(grads))


def test_bfloat16_without_its_package_is_said(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(TypeError, match="x must be .*got Tensor: bfloat16 needs the package ml_dtypes"):
        nk.layer_norm(torch.ones(4, 6, dtype=torch.bfloat16), 6)


def test_a_row_norm_writes_in_place(other, rng):
    x, residual, dy = rng.normal(size=(3, 4, 6)).astype(np.float32)
    expected, saved = nk.layer_norm_forward(x, 6, residual=residual)
    gradient = nk.layer_norm_backward(dy, saved)
    y, total, dx = (other(np.zeros_like(x)) for _ in range(3))
    out, kept = nk.layer_norm_forward(other(x), 6, residual=other(residual), out=y, sum_out=total)
    assert out is y
    assert_same_bits((values(y), values(total)), (expected, x + residual))
    grads = nk.layer_norm_backward(other(dy), kept, out=dx)
    assert grads.dx is grads.dresidual is dx
    assert_same_bits(values(dx), gradient.dx)


def test_running_statistics_move_in_place(other, rng):
    x = rng.normal(3, 2, (7, 4, 5)).astype(np.float32)
    want = mean, var, tracked = np.zeros(4, np.float32), np.ones(4, np.float32), np.zeros((), np.int64)
    running = [other(a.copy()) for a in want]
    options = {"training": True, "momentum": None}
    expected = nk.batch_norm(x, mean, var, num_batches_tracked=tracked, **options)
    out = other(np.zeros_like(x))
    y = nk.batch_norm(other(x), *running[:2], num_batches_tracked=running[2], out=out, **options)
    assert y is out
    assert_same_bits((values(y), *map(values, running)), (expected, *want))
    assert tracked == 1


def test_what_the_strides_of_out_do_not_fit_is_copied_there(rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    wide = np.zeros((4, 12), np.float32)
    out = tensor(wide, None)[:, ::2]
    assert nk.layer_norm(x, 6, out=out) is out
    assert_same_bits(wide[:, ::2], nk.layer_norm(x, 6))
    assert not wide[:, 1::2].any()


@pytest.mark.parametrize("function", [nk.zscore, nk.minmax])
def test_data_functions_write_in_place(function, other, rng):
    x = rng.normal(size=(6, 4)).astype(np.float32)
    out = other(np.zeros_like(x))
    assert function(x, 0, out=out) is out
    assert_same_bits(values(out), function(x, 0))


def readonly(a, tmp_path):
    a = a.copy()
    a.flags.writeable = False
    return a


def readonly_memmap(a, tmp_path):
    return np.memmap(memmap(a, tmp_path).filename, a.dtype, "r", shape=a.shape)


def immutable(a, tmp_path):
    """As an array of JAX, which says so through DLPack."""
    return ByDLPack(readonly(a, tmp_path))


@pytest.mark.parametrize("name", ["out", "running_mean", "running_var", "num_batches_tracked"])
@pytest.mark.parametrize("make", [readonly, readonly_memmap, immutable], ids=lambda f: f.__name__)
def test_what_is_read_only_is_refused_before_anything_is_written(name, make, tmp_path):
    x = np.ones((4, 6), np.float32)
    arguments = {
        "running_mean": np.zeros(6, np.float32), "running_var": np.ones(6, np.float32),
        "num_batches_tracked": np.zeros(1, np.int32), "out": np.zeros_like(x),
    }  # fmt: skip
    given = {**arguments, name: make(arguments[name], tmp_path)}
    before = {k: values(v).copy() for k, v in given.items()}
    with pytest.raises(ValueError, match=f"{name} must be writeable.*got a read-only array"):
        nk.batch_norm(x, training=True, momentum=None, **given)
    assert_same_bits({k: values(v) for k, v in given.items()}, before)


def test_a_copy_is_no_place_to_write(rng):
    """An array of HDF5, say: taken as x, but what is written into its copy would be lost."""
    x = rng.normal(size=(4, 6)).astype(np.float32)
    assert_same_bits(nk.layer_norm(ByArray(x, copies=True), 6), nk.layer_norm(x, 6))
    with pytest.raises(TypeError, match="out must be .* without a copy, got ByArray: a copy is"):
        nk.layer_norm(x, 6, out=ByArray(x.copy(), copies=True))


def test_overlaps_are_seen_in_shared_memory(other):
    memory = np.ones(30, np.float32)
    x, part = memory[:24].reshape(4, 6), memory[3:27].reshape(4, 6)
    with pytest.raises(ValueError, match="out must be one of the inputs itself or not overlap it"):
        nk.layer_norm(tensor(x, None), 6, out=tensor(part, None))
    with pytest.raises(ValueError, match="out must be one of the inputs itself or not overlap it"):
        nk.layer_norm(ByDLPack(x), 6, out=part.view(Subclass))
    statistics = tensor(memory[:6], None), ByDLPack(memory[3:9])
    with pytest.raises(ValueError, match="running_mean and running_var must not overlap"):
        nk.batch_norm(np.ones((4, 6), np.float32), *statistics, training=True)
    assert (memory == 1).all()
    out = other(np.full((4, 6), 2, np.float32))
    assert nk.layer_norm(out, 6, out=out) is out  # in place
    assert not values(out).any()


@pytest.mark.parametrize("name", ["x", "weight", "out"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_that_requires_grad_is_to_be_detached(name, dtype):
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, dtype)
    arguments = {"x": torch.ones(4, 6, dtype=dtype), "weight": torch.ones(6, dtype=dtype)}
    arguments["out"] = torch.empty_like(arguments["x"])
    arguments[name].requires_grad_()
    with pytest.raises(TypeError, match=rf"{name} must be.*got Tensor: it requires grad, use \.detach\(\)$"):
        nk.layer_norm(**arguments, normalized_shape=6)


@pytest.mark.parametrize("name", ["x", "weight", "residual", "out"])
@pytest.mark.parametrize("library", ["dask", "xarray"])
def test_a_lazy_array_is_not_computed_without_a_word(name, library):
    dask_array = pytest.importorskip("dask.array")
    arguments = {k: np.ones((4, 6), np.float32) for k in ("x", "residual", "out")}
    arguments["weight"] = np.ones(6, np.float32)

    def refuse(block):
        raise AssertionError("computed")

    lazy = dask_array.from_array(arguments[name]).map_blocks(refuse, dtype=np.float32)
    if library == "xarray":
        lazy = pytest.importorskip("xarray").DataArray(lazy)
    with pytest.raises(TypeError, match=rf"{name} must be .*got a \w*Array .*{name}\.compute\(\).*blocks"):
        nk.layer_norm(**{**arguments, name: lazy}, normalized_shape=6)


def test_an_xarray_in_memory_is_taken_and_written():
    xarray = pytest.importorskip("xarray")
    x, out = (xarray.DataArray(np.full((4, 6), n, np.float32)) for n in (2, 3))
    assert nk.layer_norm(x, 6, out=out) is out
    assert not out.values.any()


class OnDevice:
    is_cuda = True

    def __array__(self, dtype=None, copy=None):
        raise TypeError("it is on a device")


@pytest.mark.parametrize("name", ["weight", "out", "running_mean", "num_batches_tracked"])
def test_what_lies_on_a_device_does_not_go_with_host_memory(name):
    arguments = {"running_mean": np.zeros(6, np.float32), "num_batches_tracked": np.zeros(1, int)}
    arguments |= {"running_var": np.ones(6, np.float32), "training": True, "momentum": None, name: OnDevice()}
    with pytest.raises(TypeError, match=f"{name} must be in host memory.*got OnDevice in device memory"):
        nk.batch_norm(np.ones((4, 6), np.float32), **arguments)


def test_out_that_gives_a_copy_whatever_it_is_asked_is_refused():
    class Copies:
        def __init__(self):
            self.values = np.zeros((2, 3))

        def __array__(self, dtype=None, copy=None):
            return self.values.copy()

    with pytest.raises(TypeError, match="out must be .*, got Copies: it converts to a copy"):
        nk.layer_norm(np.ones((2, 3)), 3, out=Copies())
