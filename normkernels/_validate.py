"""Every error a user can see: the rule, then the value."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from .results import Array, Saved

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def array(x: Any, name: str = "x") -> Array:
    """x as an ndarray of a dtype that kernels take, without a copy."""
    if type(x) is not np.ndarray:
        x = _foreign(x, name)
    if x.dtype not in DTYPES or not x.dtype.isnative:
        raise TypeError(f"{name} must be float32 or float64 in native byte order, got {x.dtype.str} ({x.dtype})")
    return x


def _foreign(x: Any, name: str) -> Array:
    """The memory of an object that is not exactly an ndarray."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask: fill or drop the masked elements, got {type(x).__name__}")
    if isinstance(x, np.ndarray):
        return x.view(np.ndarray)
    if hasattr(x, "__cuda_array_interface__"):
        raise TypeError(f"{name} must lie in host memory: this version has no CUDA kernels, got {type(x).__name__}")
    if hasattr(x, "__array__"):
        return np.asarray(x)
    if hasattr(x, "__dlpack__"):
        return np.from_dlpack(x)
    raise TypeError(f"{name} must be an array (NumPy, DLPack or __array__), got {type(x).__name__}")


def eps(value: float) -> float:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"eps must be finite and not negative, got {value}")
    return float(value)


def threads(value: int | None) -> int | None:
    if value is not None and not 1 <= operator.index(value) <= numba.config.NUMBA_NUM_THREADS:
        raise ValueError(f"threads must be in 1..{numba.config.NUMBA_NUM_THREADS}, got {value}")
    return value


def normalized_shape(value: int | Sequence[int], shape: tuple[int, ...]) -> int:
    """How many trailing axes are normalized."""
    wanted = (value,) if isinstance(value, int | np.integer) else tuple(value)
    if not wanted or len(wanted) > len(shape) or shape[len(shape) - len(wanted) :] != wanted:
        raise ValueError(f"normalized_shape must be the last dimensions of x, whose shape is {shape}, got {wanted}")
    return len(wanted)


def axis(value: int, ndim: int, name: str) -> int:
    if not -ndim <= operator.index(value) < ndim:
        raise ValueError(f"{name} must be in {-ndim}..{ndim - 1} for an array of {ndim} dimensions, got {value}")
    return value % ndim


def axes(value: int | Sequence[int] | None, ndim: int) -> tuple[int, ...]:
    """The axes to reduce, sorted; None is all of them."""
    if value is None:
        return tuple(range(ndim))
    wanted = [axis(a, ndim, "axis") for a in ((value,) if isinstance(value, int | np.integer) else value)]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"axis must not name an axis twice, got {value}")
    return tuple(sorted(wanted))


def parameter(value: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array | None:
    """weight or bias: of x's dtype and of exactly this shape."""
    if value is None:
        return None
    value = array(value, name)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    if value.dtype != dtype:
        raise TypeError(f"{name} must have the dtype of x, {dtype}, got {value.dtype}")
    return value


def statistics(running_mean: Any, running_var: Any, channels: int, training: bool) -> tuple[Array, ...]:
    """Both running statistics, or none of them."""
    given = {"running_mean": running_mean, "running_var": running_var}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 2 and training:
        return ()
    if missing:
        rule = "running_mean and running_var go together" if training else "evaluation needs running_mean and running_var"
        raise ValueError(f"{rule}, got no {' and no '.join(missing)}")
    return tuple(_statistic(value, name, channels, training) for name, value in given.items())


def _statistic(value: Any, name: str, channels: int, written: bool) -> Array:
    if written and type(value) is not np.ndarray:
        raise TypeError(f"{name} is updated in place and must be a NumPy array, got {type(value).__name__}")
    value = array(value, name)
    if value.shape != (channels,):
        raise ValueError(f"{name} must have shape {(channels,)}, got {value.shape}")
    if written and not value.flags.writeable:
        raise ValueError(f"{name} is updated in place and must be writeable, got a read-only array")
    return value


def averaging(momentum: float | None, num_batches_tracked: Any) -> float:
    """The weight of the new batch in the running statistics."""
    if momentum is not None:
        if num_batches_tracked is not None:
            raise ValueError(f"num_batches_tracked is taken only with momentum=None, got momentum={momentum}")
        if not math.isfinite(momentum):
            raise ValueError(f"momentum must be finite or None, got {momentum}")
        return float(momentum)
    if num_batches_tracked is None:
        raise ValueError("momentum=None is the cumulative average and takes num_batches_tracked=, got None")
    if isinstance(num_batches_tracked, np.ndarray):
        if num_batches_tracked.size != 1 or num_batches_tracked.dtype.kind not in "iu":
            raise ValueError(
                "num_batches_tracked must be an integer or an integer array of one element, "
                f"got {num_batches_tracked.dtype} of shape {num_batches_tracked.shape}"
            )
        if not num_batches_tracked.flags.writeable:
            raise ValueError("num_batches_tracked is updated in place and must be writeable, got a read-only array")
    seen = operator.index(num_batches_tracked.item() if hasattr(num_batches_tracked, "item") else num_batches_tracked)
    if seen < 0:
        raise ValueError(f"num_batches_tracked must not be negative, got {seen}")
    return 1.0 / (seen + 1)


def output(out: Any, x: Array, same: Sequence[Array], others: Sequence[Array | None]) -> None:
    """out may be one of the arrays `same`, all of it, and must not overlap any other."""
    if type(out) is not np.ndarray:
        raise TypeError(f"out must be a NumPy array, got {type(out).__name__}")
    if out.shape != x.shape:
        raise ValueError(f"out must have shape {x.shape}, got {out.shape}")
    if out.dtype != x.dtype:
        raise TypeError(f"out must have the dtype of x, {x.dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writeable, got a read-only array")
    if any(0 < n and s == 0 for n, s in zip(out.shape, out.strides, strict=True) if n > 1):
        raise ValueError(f"out must not be a broadcast array, got strides {out.strides}")
    for other in same:
        if np.shares_memory(out, other) and not _identical(out, other):
            raise ValueError("out may be the input itself but must not overlap a part of it, got a partial overlap")
    for other in others:
        if other is not None and np.shares_memory(out, other):
            raise ValueError(f"out must not overlap other arguments, got an overlap with one of shape {other.shape}")


def _identical(a: Array, b: Array) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides


def gradient(dy: Any, saved: Any, norm: str) -> Array:
    """dy of the shape and dtype of the output, for a `saved` of the same norm."""
    if not isinstance(saved, Saved) or saved.norm != norm:
        got = saved.norm if isinstance(saved, Saved) else type(saved).__name__
        raise TypeError(f"saved must come from {norm}_forward, got {got}")
    dy = array(dy, "dy")
    if dy.shape != saved.x.shape:
        raise ValueError(f"dy must have the shape of y, {saved.x.shape}, got {dy.shape}")
    if dy.dtype != saved.x.dtype:
        raise TypeError(f"dy must have the dtype of y, {saved.x.dtype}, got {dy.dtype}")
    return dy
