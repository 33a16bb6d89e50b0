"""Devices and memory of the CUDA backend: what cannot be used, what is freed when, and the simulator."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="the extra cuda is not installed")

from cuda.bindings import driver as bindings

import normkernels as nk
from cuda_fakes import ADDRESS, F4, Interface, fake_driver  # noqa: F401
from normkernels._devices import DeviceUnavailable, FatalDeviceError
from normkernels.cuda import devices, foreign, memory


def test_memory_is_freed_on_its_stream_when_nothing_looks_at_it(driver):
    y = memory.empty((4, 8), F4, 1, 7)
    assert (y.shape, y.strides, y.device, y.stream) == ((4, 8), (32, 4), 1, 7)
    assert driver.named("cuMemAllocFromPoolAsync") == [("cuMemAllocFromPoolAsync", 512, "pool", 7)]
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
    nk.set_buffer_limit(66)
    assert [int(value) for *_, value in driver.named("cuMemPoolSetAttribute")] == [1 << 30, 55, 66, 66]
    nk.release_buffers()
    assert driver.named("cuMemPoolTrimTo") == [("cuMemPoolTrimTo", "pool", 0)] * 2


def test_memory_waits_for_those_it_was_shown_to(driver):
    y = memory.empty((4,), F4, 0, 7)
    y.__dlpack__(stream=9)
    driver.calls.clear()
    del y
    assert [call[:2] for call in driver.named("cuEventRecord", "cuStreamWaitEvent", "cuMemFreeAsync")] == [
        ("cuEventRecord", "event"), ("cuStreamWaitEvent", 7), ("cuMemFreeAsync", ADDRESS + (1 << 20)),
    ]  # fmt: skip
    assert driver.named("cuEventRecord") == [("cuEventRecord", "event", 9)]


def allocations(driver):
    return len(driver.named("cuMemAllocFromPoolAsync")), len(driver.named("cuMemFreeAsync"))


def test_a_small_array_takes_the_place_of_one_that_was_dropped(driver):
    address = memory.empty((100,), F4, 0, 0).address
    assert allocations(driver) == (1, 0)
    y = memory.empty((4, 30), F4, 0, 0)  # 480 bytes, of which 512 are made as of 400
    assert y.address == address
    z = memory.empty((100,), F4, 0, 0)
    assert z.address != address
    assert allocations(driver) == (2, 0)
    nk.release_buffers()
    del y, z
    assert allocations(driver) == (2, 0)
    nk.release_buffers()
    assert {at for _, at, _ in driver.named("cuMemFreeAsync")} == {address, address + (1 << 20)}


@pytest.mark.parametrize("case", ["another stream", "another device", "large", "shown to another stream"])
def test_what_is_not_kept_at_hand(driver, case):
    def make():
        on, stream = int(case == "another device"), 7 if case == "another stream" else 0
        return memory.empty((1 << 20 if case == "large" else 4,), F4, on, stream)

    memory.empty((4,), F4, 0, 0)
    y = make()
    if case == "shown to another stream":
        y.__dlpack__(stream=9)
    address = y.address
    del y
    driver.calls.clear()
    assert (make().address == address) == (case == "another device")
    assert allocations(driver)[0] == (case != "another device")


def test_what_is_kept_at_hand_is_bounded(driver, monkeypatch):
    monkeypatch.setattr(memory._Spare, "MOST", 3 << 20)
    arrays = [memory.empty((1 << 18,), F4, 0, 0) for _ in range(4)]
    while arrays:
        arrays.pop()
        assert len(driver.named("cuMemFreeAsync")) == (0 if arrays else 4)
    nk.set_buffer_limit(0)
    memory.empty((4,), F4, 0, 0)
    assert len(driver.named("cuMemFreeAsync")) == 5, "reuse is turned off"


def test_memory_of_a_graph_is_freed_in_the_graph(driver):
    driver.captures[7] = 5
    memory.workspace(10, 0, 7)
    assert len(driver.named("cuMemFreeAsync")) == 1
    assert devices.capture(7)
    assert not devices.capture(8)


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
    error = bindings.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    driver.fails["cuStreamIsCapturing"] = error
    assert devices.capture(0) == -1
    message = "must not be on the legacy default stream while another stream is"
    with pytest.raises(RuntimeError, match=message):
        memory.workspace(10, 0, 0)
    assert not driver.named("cuMemAllocFromPoolAsync")
    with pytest.raises(RuntimeError, match=message):
        devices.check((error,))  # what a launch gets


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


def test_missing_packages(driver, monkeypatch):
    monkeypatch.setattr(devices, "driver", None)
    needs = r"^CUDA arrays need the extra: pip install -e '\.\[cuda\]' in a clone of normkernels$"
    with pytest.raises(DeviceUnavailable, match=needs):
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


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: nk.rms_norm(Interface(typestr="<i4"), 64), "x must be float32, .*, got <i4 .int32."),
        (lambda: nk.rms_norm(Interface(typestr=">f4"), 64), "x must be float32, .*, got >f4 .>f4."),
        (lambda: nk.rms_norm(Interface(typestr="|b1"), 64), "x must be float32, .*, got .b1 .bool."),
        (lambda: nk.zscore(Interface()), "x must be an array in host memory, got Interface in device memory"),
        (lambda: nk.minmax(Interface()), "x must be an array in host memory, got Interface in device memory"),
        (lambda: nk.whiten(Interface()), "x must be an array in host memory, got Interface in device memory"),
    ],
)
def test_what_no_driver_would_help_is_said_without_one(driver, act, message):
    driver.fails["cuInit"] = bindings.CUresult.CUDA_ERROR_NO_DEVICE
    with pytest.raises(TypeError, match=f"^{message}$"):
        act()
    with pytest.raises(DeviceUnavailable, match="NVIDIA driver"):
        nk.rms_norm(Interface(), 64)
    with pytest.raises(DeviceUnavailable, match="NVIDIA driver"):
        nk.rms_norm(Interface(typestr="<V2"), 64)  # bfloat16, as far as that can be told


@pytest.mark.skipif(has_driver(), reason="this machine has a CUDA driver")
def test_tests_of_a_device_say_why_none_was_run():
    command = [sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider", "tests/cuda"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert f"NUMBA_ENABLE_CUDASIM=1 or NORMKERNELS_TEST_DEVICE=host: {devices.DRIVER}; got" in done.stdout


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
assert not devices.capture(0)
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
