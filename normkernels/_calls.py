"""Prepared calls: what shapes, dtypes and options decide is decided once for each signature, and kept.

The first calls with a signature go the whole way, which checks every argument. If the arrays are those of
NumPy and dense, the second one leaves a function behind that does the rest: it makes the output and calls
machine code.
"""

from collections.abc import Callable, Hashable
from typing import Any

from numpy import dtype, may_share_memory, ndarray

from .results import Saved

_FLOAT64 = dtype(float)
# Signatures that are kept at most.
LIMIT = 1024

Call = Callable[..., Any]
_known: dict[Hashable, Call] = {}
_once: dict[Hashable, None] = {}


def of(array: Any) -> Any:
    """What of an array a call depends on; a list, for which nothing is found, if it is not a plain one."""
    if array is None:
        return None
    return (array.shape, array.dtype, how(array)) if type(array) is ndarray else []


def how(array: Any) -> Any:
    """How an array lies in memory: its flags, and where it is not in C order its strides."""
    flags = array.flags.num
    return flags if flags & 1 else (flags, array.strides)


def find(options: tuple[Any, ...], x: Any, weight: Any, bias: Any) -> tuple[Hashable, Call | None]:
    """The signature of a call, and the function that an earlier call with it has left.

    The signature is what of the arrays a call depends on, and the options; None if they are not plain arrays.
    """
    if type(x) is not ndarray:
        return None, None
    dtype, weight_shape, weight_flags, bias_shape, bias_flags = x.dtype, None, 0, None, 0
    if weight is not None:
        if type(weight) is not ndarray:
            return None, None
        weight_shape, weight_flags = weight.shape, weight.flags.num
        if weight.dtype is not dtype:
            weight_shape = weight_shape, weight.dtype
    if bias is not None:
        if type(bias) is not ndarray:
            return None, None
        bias_shape, bias_flags = bias.shape, bias.flags.num
        if bias.dtype is not dtype:
            bias_shape = bias_shape, bias.dtype
    flags = x.flags.num
    if not flags & 1:
        flags = how(x)
    signature = options, dtype, x.shape, flags, weight_shape, weight_flags, bias_shape, bias_flags
    try:
        return signature, _known.get(signature)
    except TypeError:  # a list, say, as a shape
        return None, None


def find_backward(norm: str, dy: Any, saved: Any, out: Any, threads: Any) -> tuple[Hashable, Call | None]:
    """As `find`, for the backward of a norm with statistics, and only where `out` may be what it is.

    Machine code would take any statistics for those that a forward leaves, contiguous and in float64.
    """
    if type(saved) is not Saved or type(saved.x) is not ndarray:
        return None, None
    x, mean, rstd, weight, bias = saved[:5]
    if type(mean) is not ndarray or type(rstd) is not ndarray or not mean.strides == rstd.strides == (8,):
        return None, None
    if mean.dtype is not _FLOAT64 or rstd.dtype is not _FLOAT64:
        return None, None
    groups = mean.shape, rstd.shape
    options = norm, saved[5:], x.dtype, x.shape, how(x), groups, threads, type(threads), of(out)
    signature, call = find(options, dy, weight, bias)
    if call is not None and out is not None and not fit(out, (dy, x), (weight, bias)):
        call = None
    return signature, call


def _share(a: Any, b: Any) -> bool:
    """Whether arrays may share memory: not if both own theirs, and are not one."""
    return a is b or (not (a.base is None and b.base is None) and may_share_memory(a, b))


def apart(written: Any, *read: Any) -> bool:
    """Whether an array that is written shares memory with none of the others; if in doubt not.

    All of them may be None.
    """
    if written is not None:
        for other in read:
            if other is not None and _share(written, other):
                return False
    return True


def fit(out: Any, may_be: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Whether an output is an array that it may be, or apart from these, and apart from the others."""
    for other in may_be:
        if other is not out and _share(out, other):
            return False
    return apart(out, *others)


def keep(signature: Hashable, make: Callable[..., Call | None], *args: Any) -> None:
    """Remember the function that make(*args) gives, if there is one, when a signature comes a second time.

    To make it takes as long as ten calls: shapes that come once are not to pay for it.
    """
    if signature is None:
        return
    if signature not in _once:
        room(_once, LIMIT)[signature] = None
        return
    _once.pop(signature, None)
    call = make(*args)
    if call is not None:
        room(_known, LIMIT)[signature] = call


def room(kept: dict[Hashable, Any], limit: int) -> dict[Hashable, Any]:
    """The same with room for one more: what came first goes."""
    while len(kept) >= limit:
        kept.pop(next(iter(kept)), None)
    return kept
