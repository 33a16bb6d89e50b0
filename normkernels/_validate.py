"""Every error a user can see: the rule, then the value."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from ._arrays import array, identical, in_host_memory, near, overlap, overlaps_itself, together, writeable
from ._devices import is_device_array
from ._layout import ACTIVATIONS
from .results import Array, Saved

REALS = (int, float, np.integer, np.floating)


def integer(value: Any, name: str) -> int:
    """A whole number, which a bool is not."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return number


def real(value: Any, name: str) -> float:
    """A finite number, which a bool is not."""
    if isinstance(value, bool) or not isinstance(value, REALS):
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
        rule = "1 or more" if most == math.inf else f"in 1..{most} (up to NUMBA_NUM_THREADS)"
        raise ValueError(f"threads must be {rule}, got {value}")


def normalized_axes(value: Any, dim: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that are normalized, whose sizes are the normalized shape: those of dim, or the last ones."""
    try:
        sizes = (value,) if isinstance(value, int) or not np.ndim(value) else value
        wanted = tuple(integer(n, "normalized_shape") for n in sizes)
    except (TypeError, ValueError):  # the latter of a ragged list
        raise TypeError(f"normalized_shape must be an integer or a sequence of them, got {value!r}") from None
    if dim is None:
        split = len(shape) - len(wanted)
        if not wanted or split < 0 or shape[split:] != wanted:
            raise ValueError(
                f"normalized_shape must be the trailing dimensions of x, whose shape is {shape}, got {wanted}"
            )
        return tuple(range(split, len(shape)))
    named = _distinct(dim, len(shape), "dim")
    if not named or len(named) != len(wanted):
        raise ValueError(f"dim must name an axis for each of normalized_shape, {wanted}, got {dim}")
    if tuple(shape[a] for a in named) != wanted:
        sizes = tuple(shape[a] for a in named)
        raise ValueError(f"normalized_shape must be the sizes of the axes of dim, {sizes}, got {wanted}")
    return named


def last_in_memory(dim: Any, inner: int, order: tuple[int, ...] | None, x: Array) -> None:
    """On a device the axes of dim are the last ones in memory, which `order` says: kernels take rows only."""
    if isinstance(x, np.ndarray):
        return
    if inner > 1 or not (x if order is None else x.transpose(order)).is_c_contiguous:
        raise NotImplementedError(
            f"dim must name the axes that are last in memory where x is on a device, got {dim}"
        )


def axis(value: Any, ndim: int, name: str, array: str = "x") -> int:
    if ndim == 0:
        raise ValueError(f"{array} must have at least 1 dimension, unless {name} is None, got 0")
    if not -ndim <= integer(value, name) < ndim:
        raise ValueError(f"{name} must be in {-ndim}..{ndim - 1} for {ndim} dimensions, got {value}")
    return int(value) % ndim


def axes(value: Any, ndim: int) -> tuple[int, ...]:
    """The axes to reduce, sorted; None is all of them."""
    if value is None:
        return tuple(range(ndim))
    return tuple(sorted(_distinct(value, ndim, "axis")))


def _distinct(value: Any, ndim: int, name: str) -> tuple[int, ...]:
    """An axis, or several."""
    try:
        several = np.ndim(value) > 0
    except ValueError:  # a ragged list
        several = True
    named = tuple(axis(a, ndim, name) for a in (value if several else (value,)))
    if len(set(named)) < len(named):
        raise ValueError(f"{name} must not name an axis twice, got {value}")
    return named


def parameter(value: Any, name: str, shape: tuple[int, ...], x: Array) -> Array | None:
    """weight or bias: of exactly this shape and of x's dtype, or float32 where that is a half type."""
    if value is None:
        return None
    a, dtype = near(value, name, x), x.dtype
    if a.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {a.shape}")
    if a.dtype != dtype and not (dtype.itemsize == 2 and a.dtype == np.float32):
        rule = f"the dtype of x, {dtype}" + (", or float32" if dtype.itemsize == 2 else "")
        raise TypeError(f"{name} must have {rule}, got {a.dtype}")
    return a


def beside(value: Any, name: str, x: Array) -> Array:
    """An array of the shape and dtype of x."""
    a = near(value, name, x)
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
    a = near(value, name, x, written=written)
    if a.shape != (channels,):
        raise ValueError(f"{name} must have shape {(channels,)}, got {a.shape}")
    if written and not writeable(a):
        raise ValueError(f"{name} must be writeable, to be updated in place, got a read-only array")
    if written and overlaps_itself(a):
        raise ValueError(f"{name} must not overlap itself, its strides must nest, got {a.strides}")
    return a


def averaging(momentum: Any, num_batches_tracked: Any, training: bool) -> tuple[float, Array | None]:
    """The weight of the new batch in the running statistics, and the counter to be incremented."""
    name = "num_batches_tracked"
    if not training:
        return 0.0 if momentum is None else real(momentum, "momentum"), None
    if momentum is not None:
        if num_batches_tracked is not None:
            raise ValueError(f"{name} must be None unless momentum is None, got {num_batches_tracked}")
        return real(momentum, "momentum"), None
    if num_batches_tracked is None:
        raise ValueError(f"{name} must be given with momentum=None, the cumulative average, got None")
    counter = None
    is_array = any(hasattr(num_batches_tracked, how) for how in ("__array__", "__dlpack__"))
    if isinstance(num_batches_tracked, np.generic) or not is_array:
        seen = integer(num_batches_tracked, name)
    else:
        counter = _counter(num_batches_tracked, name)
        seen = integer(counter.item(), name)
        if seen == np.iinfo(counter.dtype).max:
            raise ValueError(f"{name} must be below the largest {counter.dtype}, got {seen}")
    if seen < 0:
        raise ValueError(f"{name} must not be negative, got {seen}")
    return 1.0 / (seen + 1), counter


def _counter(value: Any, name: str) -> Array:
    """An integer array of one element in host memory, to be incremented."""
    if is_device_array(value):
        raise TypeError(f"{name} must be in host memory, got {type(value).__name__} in device memory")
    counter = in_host_memory(value, name, written=True)
    if counter.dtype.kind not in "iu":
        raise TypeError(f"{name} must have an integer dtype, got {counter.dtype}")
    if counter.size != 1:
        raise ValueError(f"{name} must have one element, got shape {counter.shape}")
    if not counter.flags.writeable:
        raise ValueError(f"{name} must be writeable, to be updated in place, got a read-only array")
    return counter


def output(value: Any, name: str, x: Array, same: Sequence[Array], others: Sequence[Array | None]) -> Array:
    """out as passes see it: it may be one of the arrays `same`, all of it, and must not overlap others."""
    out: Array = value
    if type(value) is not np.ndarray or not isinstance(x, np.ndarray):
        out = near(value, name, x, written=True)
    if out.shape != x.shape:
        raise ValueError(f"{name} must have shape {x.shape}, got {out.shape}")
    if out.dtype != x.dtype:
        raise TypeError(f"{name} must have the dtype of x, {x.dtype}, got {out.dtype}")
    if not writeable(out):
        raise ValueError(f"{name} must be writeable, got a read-only array")
    if overlaps_itself(out):
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
    return out


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
        together(x, "dy", saved.x)
        statistics = saved.x, saved.mean, saved.rstd, *(saved.renorm or ())
        beside = *statistics, saved.weight, saved.bias, saved.residual
        for a in beside:
            if a is not None:
                a.precede(x)
    return x


def gradient_of_groups(dy: Any, saved: Any, norm: str) -> Array:
    """As `gradient`, for a `saved` with statistics, which must be as the forward gave them."""
    x = gradient(dy, saved, norm)
    for name, a in (("mean", saved.mean), ("rstd", saved.rstd)):
        if isinstance(a, np.ndarray) and a.size and (a.dtype != np.float64 or a.strides != (8,)):
            rule = f"saved.{name} must be as the forward gave it, contiguous and of float64"
            raise TypeError(f"{rule}, got {a.dtype} with strides {a.strides}")
        groups = saved.plan.rows if hasattr(saved.plan, "rows") else saved.plan.channels
        if isinstance(a, np.ndarray) and a.size and a.shape != (groups,):
            raise ValueError(f"saved.{name} must have shape {(groups,)}, got {a.shape}")
    return x
