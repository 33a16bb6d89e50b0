"""How a kernel is run: on how many threads, and how it stores; parameters as it sees them."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import ACTIVATIONS, GroupPlan, Plan, RowPlan
from ..results import Array
from . import tuning
from .jit import Kernel
from .parallel import ALONE, needs_turns, one_at_a_time, team_of, team_size


def run(kernel: Callable[..., None], nbytes: int, threads: int | None, *args: Any) -> None:
    """Call a kernel, or its entry point, on one tensor of so many bytes, with threads where that pays."""
    size = 1 if nbytes < tuning.PARALLEL_BYTES else team_size(threads)
    if size == 1:
        kernel(ALONE, *args)
    elif needs_turns():
        with one_at_a_time:
            kernel(team_of(size), *args)
    else:
        kernel(team_of(size), *args)


ForwardLaunch = tuple[
    Kernel, tuple[int, ...], Array, Array | None, int | None, tuple[Any, ...], int, bool, int
]
"""A kernel of a forward, the pieces of one that is one loop, and what it takes beside the arrays of the pass:
weight, bias, the number of the activation, sizes, how many statistics are kept, whether to write past the
caches; elements of the room for x + residual. A plain tuple: a record takes 0.3 µs of each call to make."""


def run_forward(
    plan: RowPlan | GroupPlan, threads: int | None, launch: ForwardLaunch, arrays: Sequence[Any], eps: float,
    statistics: Array,
) -> None:  # fmt: skip
    """Write y, the sum, where it is wanted, and statistics; arrays: x, residual, sum and y."""
    kernel, pieces, weight, bias, fused, norm, kept, stream, room = launch
    x, residual, total, y = arrays
    h = None if residual is None else _buffers.empty(room, x.dtype)
    given, affine = (x, residual, h, total, y, stream), (weight, bias, fused)
    run(kernel, plan.nbytes, threads, *pieces, given, affine, norm, eps, kept, statistics)


def streams(plan: Plan, run: int) -> bool:
    """Whether to write the output, in runs of `run` elements, past the caches."""
    nbytes = run * plan.layout.storage.itemsize
    return plan.nbytes >= tuning.STREAM_BYTES and (
        nbytes % tuning.CACHE_LINE == 0 or nbytes >= tuning.STREAM_RUN_BYTES
    )


def kind(activation: str | None) -> int | None:
    """The number by which kernels know an activation."""
    return None if activation is None else ACTIVATIONS.index(activation)


@lru_cache(maxsize=64)
def _small_constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return np.full(size, value, dtype)


def _constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return _small_constant(size, value, dtype) if size <= tuning.ROWS_PIECE else np.full(size, value, dtype)


def parameter(value: Array | None, size: int, default: float, dtype: np.dtype[Any]) -> Array:
    """A parameter as kernels see it; an absent weight is ones, an absent bias zeros."""
    if value is None:
        return _constant(size, default, dtype)
    if value.dtype != dtype:
        value = value.astype(dtype)
    return _buffers.flat(value)


def is_direct(statistic: Array) -> bool:
    """Whether kernels can read and write a running statistic where it lies."""
    return bool(statistic.flags.carray) and statistic.dtype in (np.float32, np.float64)


def direct(statistic: Array) -> Array:
    """A running statistic, as it is if kernels can write it there; else a copy."""
    return statistic if is_direct(statistic) else statistic.astype(np.float64)


def update(running: Sequence[Array], moved: Sequence[Array]) -> None:
    """Give running statistics their new values, where these are in copies that `direct` has made."""
    for statistic, value in zip(running, moved, strict=True):
        if value is not statistic:
            with np.errstate(over="ignore"):  # a variance above the largest float32 is kept as inf
                statistic[:] = value
