"""How a kernel is run: on how many threads, and how it stores; parameters as it sees them."""

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import ACTIVATIONS, Plan
from ..results import Array
from .jit import Kernel
from .parallel import ALONE, needs_turns, one_at_a_time, team_of, team_size
from .vectors import CACHE_LINE

# Below this many bytes of one tensor a parallel region costs more than it saves.
PARALLEL_BYTES = 512 * 1024
# Elements of rows that make one piece of work.
PIECE = 32768
# With fewer channels than this, or fewer long rows in a backward, their tiles are shared out instead.
FEW = 8
# Shorter runs that do not meet cache lines alike are written faster through the caches.
STREAM_RUN_BYTES = 512


def _last_level_cache() -> int:
    try:
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        size = 0
    return size if size > 0 else 32 << 20


# From this size on an output goes past the caches (decision 0002).
STREAM_BYTES = _last_level_cache() // 16


def run(kernel: Kernel, nbytes: int, threads: int | None, *args: Any) -> None:
    """Call a kernel on one tensor of so many bytes, with a team of threads where that pays."""
    size = 1 if nbytes < PARALLEL_BYTES else team_size(threads)
    if size == 1:
        kernel(ALONE, *args)
    elif needs_turns():
        with one_at_a_time:
            kernel(team_of(size), *args)
    else:
        kernel(team_of(size), *args)


def streams(plan: Plan, run: int) -> bool:
    """Whether to write the output, in runs of `run` elements, past the caches."""
    nbytes = run * plan.layout.storage.itemsize
    return plan.nbytes >= STREAM_BYTES and (nbytes % CACHE_LINE == 0 or nbytes >= STREAM_RUN_BYTES)


def kind(activation: str | None) -> int | None:
    """The number by which kernels know an activation."""
    return None if activation is None else ACTIVATIONS.index(activation)


@lru_cache(maxsize=64)
def _small_constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return np.full(size, value, dtype)


def _constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return _small_constant(size, value, dtype) if size <= PIECE else np.full(size, value, dtype)


def parameter(value: Array | None, size: int, default: float, dtype: np.dtype[Any]) -> Array:
    """A parameter as kernels see it; an absent weight is ones, an absent bias zeros."""
    if value is None:
        return _constant(size, default, dtype)
    if value.dtype != dtype:
        value = value.astype(dtype)
    return _buffers.flat(value)


def update(running: Sequence[Array], new: Sequence[Array]) -> None:
    """Give the running statistics, where there are any, new values in place."""
    with np.errstate(over="ignore"):  # a variance above the largest float32 is kept as inf
        for statistic, value in zip(running, new, strict=False):
            statistic[:] = value
