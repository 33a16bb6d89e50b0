"""CUDA devices: whether this process can use them, what they are, their streams and errors.

Contexts are the primary ones, which numba, CuPy, PyTorch and JAX use too. A stream is its handle,
an integer; 0 is the legacy default stream.
"""

import functools
import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

import numba

from .._devices import DeviceUnavailable, FatalDeviceError
from .._extras import install

try:
    from cuda.bindings import driver as _installed
except ImportError:
    _installed = None
driver: Any = _installed

EXTRA = f"CUDA arrays need the extra: {install('cuda')}"
DRIVER = (
    "CUDA arrays need an NVIDIA driver and GPU: install the driver from nvidia.com/drivers, "
    "or start the container with --gpus all"
)
IN_THE_WAY = (
    "an array must not be on the legacy default stream while another stream is captured: "
    "bind it to the captured one"
)
FORKED = (
    "CUDA arrays must not be used in a process forked after CUDA was initialised: "
    "start it with multiprocessing.get_context('spawn')"
)
OLDEST = 8
"""Before it there is no rounding to bfloat16, and too little shared memory for strips of columns."""
# What a kernel can do to its context; all that is called afterwards fails.
FATAL = {
    f"CUDA_ERROR_{name}"
    for name in (
        "ASSERT",
        "CONTEXT_IS_DESTROYED",
        "ECC_UNCORRECTABLE",
        "EXTERNAL_DEVICE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS",
        "MPS_CLIENT_TERMINATED",
        "NVLINK_UNCORRECTABLE",
        "TENSOR_MEMORY_LEAK",
    )
}

_ready = False
_lost: Exception | None = None
"""Why nothing will work in this process any more."""


def _forked() -> None:
    global _ready, _lost
    if _ready and not simulated():
        _ready, _lost = False, DeviceUnavailable(FORKED)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def simulated() -> bool:
    """Whether kernels run in numba's simulator, on host memory."""
    return bool(numba.config.ENABLE_CUDASIM)


def require() -> None:
    """Initialise CUDA, or say in one line why that cannot be; what cannot change is said again."""
    if not _ready:
        _initialise()


def _initialise() -> None:
    global _ready
    if _lost is not None:
        raise type(_lost)(*_lost.args)
    if importlib.util.find_spec("numba_cuda") is None or (driver is None and not simulated()):
        raise DeviceUnavailable(EXTRA)
    if not simulated():
        try:
            error = driver.cuInit(0)[0]
        except RuntimeError:
            raise DeviceUnavailable(f"{DRIVER}; got no driver library") from None
        if error == driver.CUresult.CUDA_ERROR_NOT_INITIALIZED:  # what a fork of another's CUDA gets
            raise DeviceUnavailable(FORKED)
        if error:
            raise DeviceUnavailable(f"{DRIVER}; got {error.name}")
    _ready = True


def check(result: tuple[Any, ...], wanted: int | None = None) -> Any:
    """The value of a call of the driver, or what went wrong; wanted is how many bytes were asked for."""
    error = result[0]
    if error:
        text = driver.cuGetErrorString(error)[1] or b""
        raise explain(RuntimeError(f"{error.name}: {text.decode()}"), wanted)
    return result[1] if len(result) > 1 else None


def explain(error: Exception, wanted: int | None = None) -> Exception:
    """The exception to raise for one of the driver's, of whatever library."""
    global _ready, _lost
    found = re.search(r"CUDA_ERROR_\w+", str(error))
    name = found[0] if found else ""
    if name in FATAL:
        _ready, _lost = (
            False,
            FatalDeviceError(
                f"the CUDA context is lost, a kernel failed with {name}: every later call on the device "
                "fails, restart the process"
            ),
        )
        return _lost
    if name == "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT":
        return RuntimeError(IN_THE_WAY)
    if name == "CUDA_ERROR_OUT_OF_MEMORY":
        asked = "the memory asked for" if wanted is None else f"{wanted} bytes"
        status, free, total = driver.cuMemGetInfo()
        got = "an unknown number" if status else f"{free} of {total}"
        return MemoryError(f"the device must have {asked} free, got {got}")
    return error


@dataclass(frozen=True)
class DeviceProperties:
    """What launch rules go by."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    l2_bytes: int
    shared_per_multiprocessor: int
    registers_per_multiprocessor: int
    threads_per_multiprocessor: int
    blocks_per_multiprocessor: int


SIMULATED = DeviceProperties("simulator", (9, 0), 132, 60 << 20, 233_472, 65_536, 2048, 32)
"""An H200, so that the simulator launches what that would."""


@functools.cache
def properties(device: int) -> DeviceProperties:
    if simulated():
        return SIMULATED
    require()
    from cuda.core import Device

    found = Device(device)
    has, major, minor = found.properties, found.compute_capability.major, found.compute_capability.minor
    if major < OLDEST:
        raise DeviceUnavailable(
            f"CUDA arrays need a device of compute capability {OLDEST}.0 or more, "
            f"got {major}.{minor} ({found.name})"
        )
    return DeviceProperties(
        name=found.name,
        compute_capability=(major, minor),
        multiprocessors=has.multiprocessor_count,
        l2_bytes=has.l2_cache_size,
        shared_per_multiprocessor=has.max_shared_memory_per_multiprocessor,
        registers_per_multiprocessor=has.max_registers_per_multiprocessor,
        threads_per_multiprocessor=has.max_threads_per_multiprocessor,
        blocks_per_multiprocessor=has.max_blocks_per_multiprocessor,
    )


@functools.cache
def context(device: int) -> int:
    """The primary context of a device, held until the process ends."""
    return int(check(driver.cuDevicePrimaryCtxRetain(check(driver.cuDeviceGet(device)))))


class making_current:
    """`with making_current(device):` calls and launches go to this device; the one before comes back.

    Where there was none, as in a new thread, the device stays, and the next time costs less.
    """

    __slots__ = ("device", "previous")

    def __init__(self, device: int) -> None:
        self.device = device

    def __enter__(self) -> None:
        self.previous: int | None = None
        if not _ready:
            _initialise()
        if simulated():
            return
        wanted, current = context(self.device), int(check(driver.cuCtxGetCurrent()))
        if current != wanted:
            check(driver.cuCtxSetCurrent(wanted))
            self.previous = current or None

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            driver.cuCtxSetCurrent(self.previous)


def wait(consumer: int, producer: int) -> None:
    """What is put on the stream `consumer` from now on comes after all that is on `producer` now.

    The device of the producer is current.
    """
    if consumer == producer or simulated():
        return
    if capture(producer) < 0:  # to record an event there would break that capture
        raise RuntimeError(IN_THE_WAY)
    event = check(driver.cuEventCreate(int(driver.CUevent_flags.CU_EVENT_DISABLE_TIMING)))
    try:
        check(driver.cuEventRecord(event, producer))
        check(driver.cuStreamWaitEvent(consumer, event, 0))
    finally:
        driver.cuEventDestroy(event)


def capture(stream: int) -> int:
    """The number of the graph capture that a stream takes part in; 0 for none, -1 for one in the way.

    The legacy stream cannot be asked while another stream is captured, because its work would wait
    for that of the other.
    """
    if simulated():
        return 0
    error, status = driver.cuStreamIsCapturing(stream)  # a third of the time of asking for the number
    if error == driver.CUresult.CUDA_ERROR_STREAM_CAPTURE_IMPLICIT:
        return -1
    check((error,))
    if status == driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE:
        return 0
    error, _, number, *_ = driver.cuStreamGetCaptureInfo(stream)
    check((error,))
    return int(number)
