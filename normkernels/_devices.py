"""What the rest of the package knows of devices, without CUDA."""

from typing import Any

CUDA_TYPES = (2, 13)  # of DLPack: kDLCUDA, kDLCUDAManaged


class OnDevice:
    """What this package makes of an array in device memory."""

    __slots__ = ()


class DeviceUnavailable(RuntimeError):
    """This process cannot use CUDA: a package, the driver or the device is missing, or it was forked."""


class FatalDeviceError(RuntimeError):
    """A kernel broke the CUDA context: nothing runs on the device until the process is restarted."""


def is_device_array(value: Any) -> bool:
    """Whether value is an array in device memory."""
    # Attributes in the order of what they cost: `is_cuda` of a tensor 0.1 µs, the interfaces 1 to 2 µs.
    if getattr(value, "__cuda_ndarray__", False):  # numba's; the simulator's have nothing else
        return True
    cuda = getattr(value, "is_cuda", None)
    if isinstance(cuda, bool):
        return cuda
    device = getattr(value, "__dlpack_device__", None)
    if device is not None:
        try:
            return device()[0] in CUDA_TYPES
        except (BufferError, RuntimeError, TypeError, ValueError):
            pass  # of no single device
    try:
        return hasattr(value, "__cuda_array_interface__")
    except RuntimeError:  # there is one, which refuses
        return True
