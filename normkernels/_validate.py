"""Every error a user can see: the rule, then the value."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from ._devices import DeviceUnavailable, OnDevice, is_device_array
from ._layout import ACTIVATIONS
from .results import Array, Saved

# Numbers of dtypes, quicker to look up than dtypes; that of bfloat16 is known once ml_dtypes made it.
DTYPES = {np.dtype(t).num for t in (np.float16, np.float32, np.float64)}
REALS = (int, float, np.integer, np.floating)


def array(value: Any, name: str = "x") -> Array:
    """value as an ndarray, or a DeviceArray, of a dtype that kernels take, without a copy."""
    x: Array = value  # a DeviceArray has what the passes ask of an array
    if type(value) is not np.ndarray:
        if not isinstance(value, OnDevice):
            x = _foreign(value, name)
        if not isinstance(x, np.ndarray) and not x.is_aligned:
            raise ValueError(
                f"{name} must be aligned to its elements of {x.itemsize} bytes on a device, "
                f"got address {x.address:#x} and strides {x.strides}"
            )
    if x.dtype.num in DTYPES and x.dtype.isnative:
        return x
    if x.dtype.name == "bfloat16":
        DTYPES.add(x.dtype.num)
        return x
    raise _wrong(x.dtype, name)


def _wrong(dtype: np.dtype[Any], name: str) -> TypeError:
    rule = "float32, float64, float16 or bfloat16 in native byte order"
    return TypeError(f"{name} must be {rule}, got {dtype.str} ({dtype})")


def _foreign(x: Any, name: str) -> Array:
    """The memory of an object that is not exactly an ndarray."""
    rule = (
        f"{name} must be an array of NumPy, or one that speaks DLPack, __array__ or __cuda_array_interface__"
    )
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"{rule} without a mask, got {type(x).__name__}")
    if isinstance(x, np.ndarray):
        return x.view(np.ndarray)
    if is_device_array(x):
        from .cuda.foreign import dtype_of, from_foreign  # needs packages that not everybody has

        try:
            return from_foreign(x, name)  # type: ignore[return-value]  # it has what the passes ask of an array
        except DeviceUnavailable:
            dtype = dtype_of(x)
            if dtype is not None and dtype.kind != "V" and not (dtype.num in DTYPES and dtype.isnative):
                # A driver would not help. Without a name of its own there is bfloat16.
                raise _wrong(dtype, name) from None
            raise
    try:
        if hasattr(x, "__array__"):
            return np.asarray(x)
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"{rule}, got {type(x).__name__}: {error}") from None
    raise TypeError(f"{rule}, got {type(x).__name__}")


def near(a: Array, name: str, x: Array) -> Array:
    """An array that lies where x lies; what is on its stream by now comes before what is put on that of x."""
    if isinstance(a, np.ndarray) and isinstance(x, np.ndarray):
        return a
    _together(a, name, x)
    a.precede(x)
    return a


def _together(a: Array, name: str, x: Array) -> None:
    if a.device != x.device:
        error = TypeError if "cpu" in (a.device, x.device) else ValueError
        raise error(f"{name} must be {_place(x)} like the other arrays, got one {_place(a)}")


def _place(a: Array) -> str:
    return "in host memory" if isinstance(a, np.ndarray) else f"on device {a.device}"


def integer(value: Any, name: str) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None


def real(value: Any, name: str) -> float:
    """A finite number."""
    if not isinstance(value, REALS):
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} must be finite, got {value}")
    return result


def eps(value: Any) -> float:
    result = real(value, "eps")
    if result < 0:
        raise ValueError(f"eps must not be negative, got {value}")
    return result


def flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def activation(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"activation must be None or a string, got {value!r}")
    if value is not None and value not in ACTIVATIONS:
        *first, last = ACTIVATIONS
        raise ValueError(f"activation must be None, {', '.join(first)} or {last}, got {value!r}")
    return value


def threads(value: Any, x: Array) -> None:
    """Those of the CPU, of which there are so many; on a device no more is said of them than a number."""
    if value is None:
        return
    most = numba.config.NUMBA_NUM_THREADS if isinstance(x, np.ndarray) else math.inf
    if not 1 <= integer(value, "threads") <= most:
        rule = "1 or more" if most == math.inf else f"in 1..{most}"
        raise ValueError(f"threads must be {rule}, got {value}")


def normalized_shape(value: Any, shape: tuple[int, ...]) -> int:
    """How many trailing axes are normalized."""
    try:
        sizes = (value,) if isinstance(value, int) or not np.ndim(value) else value
        wanted = tuple(operator.index(n) for n in sizes)
    except TypeError:
        raise TypeError(f"normalized_shape must be an integer or a sequence of them, got {value!r}") from None
    if not wanted or len(wanted) > len(shape) or shape[len(shape) - len(wanted) :] != wanted:
        raise ValueError(
            f"normalized_shape must be the trailing dimensions of x, whose shape is {shape}, got {wanted}"
        )
    return len(wanted)


def axis(value: Any, ndim: int, name: str) -> int:
    if ndim == 0:
        raise ValueError(f"{name} must be None for an array without dimensions, got {value}")
    if not -ndim <= integer(value, name) < ndim:
        raise ValueError(f"{name} must be in {-ndim}..{ndim - 1} for {ndim} dimensions, got {value}")
    return int(value) % ndim


def axes(value: Any, ndim: int) -> tuple[int, ...]:
    """The axes to reduce, sorted; None is all of them."""
    if value is None:
        return tuple(range(ndim))
    named = [axis(a, ndim, "axis") for a in (value if np.ndim(value) else (value,))]
    if len(set(named)) < len(named):
        raise ValueError(f"axis must not name an axis twice, got {value}")
    return tuple(sorted(named))


def parameter(value: Any, name: str, shape: tuple[int, ...], x: Array) -> Array | None:
    """weight or bias: of exactly this shape and of x's dtype, or float32 where that is a half type."""
    if value is None:
        return None
    a, dtype = near(array(value, name), name, x), x.dtype
    if a.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {a.shape}")
    if a.dtype != dtype and not (dtype.itemsize == 2 and a.dtype == np.float32):
        rule = f"the dtype of x, {dtype}" + (", or float32" if dtype.itemsize == 2 else "")
        raise TypeError(f"{name} must have {rule}, got {a.dtype}")
    return a


def beside(value: Any, name: str, x: Array) -> Array:
    """An array of the shape and dtype of x."""
    a = near(array(value, name), name, x)
    if a.shape != x.shape:
        raise ValueError(f"{name} must have the shape of x, {x.shape}, got {a.shape}")
    if a.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {a.dtype}")
    return a


def apart(written: Sequence[Array], read: Sequence[Array | None]) -> None:
    """Running statistics share no memory with each other or with what is read."""
    others = [a for a in read if a is not None]
    for i, statistic in enumerate(written):
        for other in (*written[:i], *others):
            if overlap(statistic, other):
                raise ValueError(
                    "running_mean and running_var must not overlap another argument, "
                    f"got memory of one of shape {other.shape}"
                )


def r_max(value: Any) -> float:
    result = real(value, "r_max")
    if result < 1:
        raise ValueError(f"r_max must be at least 1, got {value}")
    return result


def d_max(value: Any) -> float:
    result = real(value, "d_max")
    if result < 0:
        raise ValueError(f"d_max must not be negative, got {value}")
    return result


def num_groups(value: Any, channels: int) -> int:
    groups = integer(value, "num_groups")
    if groups < 1 or channels % groups:
        raise ValueError(f"num_groups must divide the {channels} channels, got {groups}")
    return groups


def statistics(
    running_mean: Any, running_var: Any, channels: int, training: bool, x: Array, needed: bool = False
) -> tuple[Array, ...]:
    """Both running statistics, or none of them in training, unless that needs them too."""
    if running_mean is None and running_var is None and training and not needed:
        return ()
    return (
        _statistic(running_mean, "running_mean", channels, training, x),
        _statistic(running_var, "running_var", channels, training, x),
    )


def _statistic(value: Any, name: str, channels: int, written: bool, x: Array) -> Array:
    if value is None:
        rule = "be given with the other one" if written else "be given in evaluation"
        raise ValueError(f"{name} must {rule}, got None")
    if written and type(value) is not np.ndarray and isinstance(x, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, to be updated in place, got {type(value).__name__}")
    a = near(array(value, name), name, x)
    if a.shape != (channels,):
        raise ValueError(f"{name} must have shape {(channels,)}, got {a.shape}")
    if written and not _writeable(a):
        raise ValueError(f"{name} must be writeable, to be updated in place, got a read-only array")
    return a


def averaging(momentum: Any, num_batches_tracked: Any, training: bool) -> float:
    """The weight of the new batch in the running statistics."""
    name = "num_batches_tracked"
    if not training:
        return 0.0 if momentum is None else real(momentum, "momentum")
    if momentum is not None:
        if num_batches_tracked is not None:
            raise ValueError(f"{name} must be None unless momentum is None, got {num_batches_tracked}")
        return real(momentum, "momentum")
    if num_batches_tracked is None:
        raise ValueError(f"{name} must be given with momentum=None, the cumulative average, got None")
    if isinstance(num_batches_tracked, np.ndarray):
        if num_batches_tracked.dtype.kind not in "iu":
            raise TypeError(f"{name} must have an integer dtype, got {num_batches_tracked.dtype}")
        if num_batches_tracked.size != 1:
            raise ValueError(f"{name} must have one element, got shape {num_batches_tracked.shape}")
        if not num_batches_tracked.flags.writeable:
            raise ValueError(f"{name} must be writeable, to be updated in place, got a read-only array")
        seen = integer(num_batches_tracked.item(), name)
        if seen == np.iinfo(num_batches_tracked.dtype).max:
            raise ValueError(f"{name} must be below the largest {num_batches_tracked.dtype}, got {seen}")
    elif hasattr(num_batches_tracked, "__array__") and not isinstance(num_batches_tracked, np.generic):
        got = type(num_batches_tracked).__name__
        raise TypeError(f"{name} must be an integer, or a NumPy array to be incremented, got {got}")
    else:
        seen = integer(num_batches_tracked, name)
    if seen < 0:
        raise ValueError(f"{name} must not be negative, got {seen}")
    return 1.0 / (seen + 1)


def output(out: Any, name: str, x: Array, same: Sequence[Array], others: Sequence[Array | None]) -> Array:
    """out as passes see it: it may be one of the arrays `same`, all of it, and must not overlap others."""
    if type(out) is not np.ndarray:
        if isinstance(x, np.ndarray):
            raise TypeError(f"{name} must be an array of NumPy, got {type(out).__name__}")
        out = array(out, name)
    near(out, name, x)
    if out.shape != x.shape:
        raise ValueError(f"{name} must have shape {x.shape}, got {out.shape}")
    if out.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {out.dtype}")
    if not _writeable(out):
        raise ValueError(f"{name} must be writeable, got a read-only array")
    if _overlaps_itself(out):
        raise ValueError(f"{name} must not overlap itself, its strides must nest, got {out.strides}")
    for other in same:
        if overlap(out, other) and not identical(out, other):
            raise ValueError(
                f"{name} must be one of the inputs itself or not overlap it, "
                f"got a part of one of shape {other.shape}"
            )
    for argument in others:
        if argument is not None and overlap(out, argument):
            raise ValueError(
                f"{name} must not overlap an argument that is needed or written besides, "
                f"got memory of one of shape {argument.shape}"
            )
    seen: Array = out
    return seen


class _Extent:
    """The memory of an array on a device, for NumPy to reason about; nobody may read there."""

    def __init__(self, x: Any) -> None:
        self.__array_interface__ = {
            "shape": x.shape,
            "strides": x.strides,
            "typestr": f"|V{x.itemsize}",
            "data": (x.address, True),
            "version": 3,
        }


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays have memory in common."""
    if isinstance(a, np.ndarray):
        # Two arrays that own their memory: asking NumPy would take longer than a small call.
        alone = a.base is None and b.base is None and a is not b
        return not alone and np.shares_memory(a, b)
    (first_a, past_a), (first_b, past_b) = a.extent(), b.extent()
    if past_a <= first_b or past_b <= first_a or first_a == past_a or first_b == past_b:
        return False
    return np.shares_memory(*(np.asarray(_Extent(x)) for x in (a, b)))


def _writeable(x: Array) -> bool:
    return x.flags.writeable if isinstance(x, np.ndarray) else not x.readonly


def _overlaps_itself(x: Array) -> bool:
    """Whether a step along some axis does not get past all elements of the finer axes."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        return False
    reach = x.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def identical(a: Array, b: Array) -> bool:
    """Whether each element of a is the same memory as that of b; axes of one element lead nowhere."""
    strides = zip(a.shape, a.strides, b.strides, strict=True)
    return _address(a) == _address(b) and all(n == 1 or s == t for n, s, t in strides)


def _address(x: Any) -> int:
    address: int = x.ctypes.data if isinstance(x, np.ndarray) else x.address
    return address


def gradient(dy: Any, saved: Any, norm: str) -> Array:
    """dy of the shape and dtype of the output, for a `saved` of the same norm."""
    if not isinstance(saved, Saved) or saved.norm != norm:
        got = saved.norm if isinstance(saved, Saved) else type(saved).__name__
        raise TypeError(f"saved must come from {norm}_forward, got {got}")
    x = array(dy, "dy")
    if x.shape != saved.x.shape:
        raise ValueError(f"dy must have shape {saved.x.shape}, got {x.shape}")
    if x.dtype != saved.x.dtype:
        raise TypeError(f"dy must have the dtype of y, {saved.x.dtype}, got {x.dtype}")
    if not (isinstance(x, np.ndarray) and isinstance(saved.x, np.ndarray)):
        _together(x, "dy", saved.x)
        statistics = saved.x, saved.mean, saved.rstd, *(saved.renorm or ())
        beside = *statistics, saved.weight, saved.bias, saved.residual
        for a in beside:
            if a is not None:
                a.precede(x)
    return x
