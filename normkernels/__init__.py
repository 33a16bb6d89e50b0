"""Fused normalization kernels for host and CUDA arrays, forward and backward, and benchmarks of them.

Arrays are those of NumPy, or what has ``__array__`` or ``__dlpack__``; or they are on a CUDA device, from
PyTorch, CuPy, JAX or numba (extra ``cuda``). All arrays of a call lie together, and its results lie there
too, on a device as `DeviceArray`, which those libraries take without a copy: ``torch.from_dlpack(y)``. An
array given as ``out`` comes back as it is. docs/cuda.md has the rest.
"""

from typing import TYPE_CHECKING, Any

from ._ahead import Compiled, compile
from ._buffers import release_buffers, set_buffer_limit
from ._devices import DeviceUnavailable, FatalDeviceError
from .functional import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    batch_renorm,
    batch_renorm_backward,
    batch_renorm_forward,
    group_norm,
    group_norm_backward,
    group_norm_forward,
    instance_norm,
    instance_norm_backward,
    instance_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    local_response_norm,
    local_response_norm_backward,
    local_response_norm_forward,
    minmax,
    moments,
    rms_norm,
    rms_norm_backward,
    rms_norm_forward,
    weight_norm,
    weight_norm_backward,
    weight_norm_forward,
    whiten,
    zscore,
)
from .norms import NORMS, NormSpec
from .results import Grads, Moments, Range, ResidualGrads, Saved, Whitening

if TYPE_CHECKING:
    from .cuda.arrays import DeviceArray

__version__ = "0.1.0.dev0"

__all__ = [
    "NORMS",
    "Compiled",
    "DeviceArray",
    "DeviceUnavailable",
    "FatalDeviceError",
    "Grads",
    "ResidualGrads",
    "Moments",
    "NormSpec",
    "Range",
    "Saved",
    "Whitening",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_renorm",
    "batch_renorm_backward",
    "batch_renorm_forward",
    "compile",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "local_response_norm",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "minmax",
    "moments",
    "release_buffers",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "set_buffer_limit",
    "weight_norm",
    "weight_norm_backward",
    "weight_norm_forward",
    "whiten",
    "zscore",
]


def __getattr__(name: str) -> Any:
    if name == "DeviceArray":  # with it comes the CUDA backend
        from .cuda.arrays import DeviceArray

        return DeviceArray
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, and the public modules that have been imported."""
    modules = {"jit", "reference", "sklearn"} & globals().keys()
    return sorted({*__all__, *modules, "__version__"})
