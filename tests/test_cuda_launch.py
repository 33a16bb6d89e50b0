"""What calls ask of the driver: which kernels, on which stream, with what; that takes no device."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="the extra cuda is not installed")

import ctypes

import cuda.core
from cuda.bindings import driver as bindings
from numba.cuda import dispatcher

import normkernels as nk
from cuda_fakes import fake_driver  # noqa: F401
from normkernels.cuda import devices, jit, offline
from normkernels.cuda.arrays import DeviceArray
from normkernels.cuda.memory import empty

pytestmark = pytest.mark.cuda  # kernels are compiled for a device

F4 = np.dtype(np.float32)
STREAM = 7
H200 = offline.DEVICES[9, 0]


@pytest.fixture(name="asked")
def asked_of_driver(driver, monkeypatch):
    """The driver, which takes what is compiled, and one device."""
    limits = SimpleNamespace(
        multiprocessor_count=H200.multiprocessors,
        l2_cache_size=H200.l2_bytes,
        max_shared_memory_per_multiprocessor=H200.shared_per_multiprocessor,
        max_registers_per_multiprocessor=H200.registers_per_multiprocessor,
        max_threads_per_multiprocessor=H200.threads_per_multiprocessor,
        max_blocks_per_multiprocessor=H200.blocks_per_multiprocessor,
    )
    found = SimpleNamespace(
        name="a device", compute_capability=SimpleNamespace(major=9, minor=0), properties=limits
    )
    monkeypatch.setattr(cuda.core, "Device", lambda number: found)
    devices.properties.cache_clear()
    for kernel in jit.KERNELS:
        monkeypatch.setattr(kernel, "variants", {})
    loaded = []
    driver.on_cuLibraryLoadData = lambda code, *_: loaded.append(code) or (bindings.CUlibrary(len(loaded)),)
    driver.on_cuLibraryGetKernel = lambda library, name: (bindings.CUkernel(int(library)),)
    here = SimpleNamespace(compute_capability=(9, 0), id=0)
    monkeypatch.setattr(dispatcher, "get_current_device", lambda: here)
    yield driver
    devices.properties.cache_clear()


def on_device(*shape, dtype=F4):
    return empty(shape, np.dtype(dtype), 0, STREAM)


def launches(driver):
    return driver.named("cuLaunchKernel", "cuLaunchCooperativeKernel")


def test_a_device_that_is_too_old_is_refused(asked, monkeypatch):
    old = SimpleNamespace(
        name="T4", compute_capability=SimpleNamespace(major=7, minor=5), properties=SimpleNamespace()
    )
    monkeypatch.setattr(cuda.core, "Device", lambda number: old)
    with pytest.raises(nk.DeviceUnavailable, match=r"capability 8\.0 or more, got 7\.5 \(T4\)$"):
        nk.layer_norm(on_device(4, 8), 8)
    assert not launches(asked)


def test_a_launch_is_one_call_of_the_driver_on_the_stream_of_x(asked):
    x, weight, bias = on_device(32, 1024), on_device(1024), on_device(1024)
    asked.calls.clear()
    y = nk.layer_norm(x, 1024, weight, bias)
    (launch,) = launches(asked)
    name, _, blocks, *ones, shared, stream, (values, types), _ = launch
    assert (name, ones[:2], shared, stream) == ("cuLaunchKernel", [1, 1], 0, STREAM)
    assert {x.address, y.address, weight.address, bias.address, 32, 1024} <= set(values)
    assert len(values) == len(types)
    assert all(
        t is (ctypes.c_double if type(v) is float else ctypes.c_int64)
        for v, t in zip(values, types, strict=True)
    )
    assert 0 < blocks <= 32
    assert not asked.named("cuStreamSynchronize", "cuCtxSynchronize", "cuMemcpyDtoHAsync")


def test_a_variant_is_compiled_and_loaded_once(asked):
    x = on_device(32, 1024)
    for rows in (x, x, on_device(64, 1024)):
        nk.layer_norm(rows, 1024)
    assert len(launches(asked)) == 3
    assert len(asked.named("cuLibraryLoadData")) == 1
    nk.layer_norm(on_device(32, 1024, dtype=np.float16), 1024)
    assert len(asked.named("cuLibraryLoadData")) == 2


def test_blocks_that_wait_for_each_other_are_launched_together(asked):
    x = on_device(2, 65_536)
    asked.calls.clear()
    nk.layer_norm(x, 65_536)
    memset, launch = asked.named("cuMemsetD8Async"), launches(asked)
    assert [name for name, *_ in launch] == ["cuLaunchCooperativeKernel"]
    assert len(memset) == 1, "their flags begin at 0"
    assert launch[0][2] <= H200.multiprocessors


def test_a_row_beyond_the_device_is_read_twice(asked):
    x, weight = on_device(2, 3_000_001), on_device(3_000_001)
    asked.calls.clear()
    _, saved = nk.layer_norm_forward(x, 3_000_001, weight, activation="relu")
    assert [name for name, *_ in launches(asked)] == ["cuLaunchKernel"] * 3, "moments, merged, normalize"
    asked.calls.clear()
    grads = nk.layer_norm_backward(x, saved)
    assert [name for name, *_ in launches(asked)] == ["cuLaunchKernel"] * 4, "the sums of dweight besides"
    assert grads.dweight.shape == (3_000_001,)


def test_backward_is_a_sweep_and_a_second_stage(asked):
    x, weight, bias = on_device(4096, 1024), on_device(1024), on_device(1024)
    _, saved = nk.layer_norm_forward(x, 1024, weight, bias)
    asked.calls.clear()
    grads = nk.layer_norm_backward(x, saved)
    assert len(launches(asked)) == 2
    assert (grads.dweight.shape, grads.dbias.dtype) == ((1024,), F4)


def test_what_was_saved_on_another_stream_is_waited_for(asked):
    x = on_device(32, 1024)
    _, saved = nk.layer_norm_forward(x, 1024)
    dy = empty((32, 1024), F4, 0, 9)
    asked.calls.clear()
    grads = nk.layer_norm_backward(dy, saved)
    names = [name for name, *_ in asked.calls]
    assert names.index("cuStreamWaitEvent") < names.index("cuLaunchKernel")
    assert {launch[9] for launch in launches(asked)} == {9}
    assert grads.dx.stream == 9


def test_arrays_of_two_devices_are_refused(asked):
    with pytest.raises(ValueError, match="weight must be on device 0 .*, got one on device 1"):
        nk.layer_norm(on_device(32, 1024), 1024, empty((1024,), F4, 1, STREAM))
    with pytest.raises(TypeError, match="bias must be on device 0 .*, got one in host memory"):
        nk.layer_norm(on_device(32, 1024), 1024, None, np.zeros(1024, np.float32))


def test_an_illegal_access_is_fatal_for_good(asked):
    x = on_device(32, 1024)
    nk.layer_norm(x, 1024)
    asked.fails["cuLaunchKernel"] = bindings.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    for _ in range(2):
        with pytest.raises(nk.FatalDeviceError, match="restart the process"):
            nk.layer_norm(x, 1024)
        asked.fails.clear()


def test_statistics_outlive_a_backward_on_another_stream(asked):
    """Dropped right after it, they are freed only when that stream is done with them."""
    x = on_device(32, 1024)
    _, saved = nk.layer_norm_forward(x, 1024)
    nk.layer_norm_backward(empty((32, 1024), F4, 0, 9), saved)
    asked.calls.clear()
    statistics = saved.mean.owner.address
    del saved
    names = [name for name, *_ in asked.calls]
    assert ("cuMemFreeAsync", statistics, STREAM) in asked.calls
    assert names.index("cuStreamWaitEvent") < names.index("cuMemFreeAsync")


def test_an_out_on_another_stream_waits_for_the_kernel(asked):
    x, out = on_device(32, 1024), empty((32, 1024), F4, 0, 9)
    asked.calls.clear()
    assert nk.layer_norm(x, 1024, out=out) is out
    names = [name for name, *_ in asked.calls]
    assert names.index("cuLaunchKernel") < len(names) - 1 - names[::-1].index("cuStreamWaitEvent")


def test_what_is_not_aligned_is_named_before_anything_is_written(asked):
    x, statistics = on_device(4, 8, 6), on_device(8)
    shifted = DeviceArray((8,), (4,), F4, statistics.address + 2, 0, STREAM, statistics)
    with pytest.raises(ValueError, match="running_var must be aligned to its elements of 4 bytes"):
        nk.batch_norm(x, statistics, shifted, training=True)
    assert not launches(asked)
