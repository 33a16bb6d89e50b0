"""From plans and flat arrays to kernel calls: scratch memory, serial or parallel, how to store."""

import os
import threading
from functools import lru_cache
from typing import Any

import numba
import numpy as np

from .. import _buffers
from .._layout import ChannelPlan, RowPlan
from ..results import Array
from . import channels, columns, rows
from .jit import Kernel
from .primitives import TILE, tile_count
from .vectors import CACHE_LINE, VECTOR_BYTES

# Below this many bytes of one tensor a parallel region costs more than it saves.
PARALLEL_BYTES = 512 * 1024
# Elements of rows that make one piece of work.
PIECE = 32768
# What a block of neighbouring channels may hold: more channels make longer runs of memory, too many
# leave the cache before they are read again.
BLOCK_BYTES = 2 * 1024 * 1024
# Shorter runs that do not meet cache lines alike are written faster through the caches.
STREAM_RUN_BYTES = 512
# Partial sums of dweight and dbias: their number is set by the shape, never by the threads.
PARTIALS = 32

_one_at_a_time = threading.RLock()


def _last_level_cache() -> int:
    try:
        size = os.sysconf("SC_LEVEL3_CACHE_SIZE")
    except (AttributeError, ValueError, OSError):
        size = 0
    return size if size > 0 else 32 << 20


# From this size on an output goes past the caches (decision 0002).
STREAM_BYTES = _last_level_cache() // 16


def _run(kernel: Kernel, nbytes: int, threads: int | None, *args: Any) -> None:
    if nbytes < PARALLEL_BYTES or threads == 1:
        kernel.serial(*args)
        return
    before = numba.get_num_threads()
    if threads is None or threads == before:
        _run_parallel(kernel, args)
        return
    numba.set_num_threads(threads)
    try:
        _run_parallel(kernel, args)
    finally:
        numba.set_num_threads(before)


def _run_parallel(kernel: Kernel, args: tuple[Any, ...]) -> None:
    if _needs_turns():
        with _one_at_a_time:
            kernel.parallel(*args)
    else:
        kernel.parallel(*args)


def _needs_turns() -> bool:
    """numba's own pool ("workqueue") ends the process when two threads enter it at once."""
    try:
        return bool(numba.threading_layer() == "workqueue")
    except ValueError:  # not started yet: nobody knows which one it will be
        return True


def _streams(y: Array, run: int) -> bool:
    """Whether to write y, in runs of `run` elements, past the caches."""
    nbytes = run * y.itemsize
    return y.nbytes >= STREAM_BYTES and (nbytes % CACHE_LINE == 0 or nbytes >= STREAM_RUN_BYTES)


@lru_cache(maxsize=64)
def _small_constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return np.full(size, value, dtype)


def _constant(size: int, value: float, dtype: np.dtype[Any]) -> Array:
    return _small_constant(size, value, dtype) if size <= PIECE else np.full(size, value, dtype)


def _parameter(value: Array | None, size: int, default: float, dtype: np.dtype[Any]) -> Array:
    """A parameter as kernels see it; an absent weight is ones, an absent bias zeros."""
    if value is None:
        return _constant(size, default, dtype)
    if value.dtype != dtype:
        value = value.astype(dtype)
    return _buffers.flat(value)


def row_forward(
    plan: RowPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
) -> tuple[Array, Array]:
    """Write y; mean and rstd."""
    n, dtype = plan.cols, plan.layout.dtype
    mean, rstd = np.empty(plan.rows), np.empty(plan.rows)
    weight, bias = _parameter(weight, n, 1.0, dtype), _parameter(bias, n, 0.0, dtype)
    _run(
        rows.forward, plan.nbytes, threads,
        x, plan.rows, n, 1 + PIECE // n, weight, bias, eps, y, mean, rstd, _streams(y, n),
    )  # fmt: skip
    return mean, rstd


def row_backward(
    plan: RowPlan,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    dx: Array,
    threads: int | None,
) -> tuple[Array, Array]:
    """Write dx; dweight and dbias in float64."""
    n, dtype = plan.cols, plan.layout.dtype
    block = max(-(-plan.rows // PARTIALS), -(-PIECE // n), min(16, -(-plan.rows // 2)))
    blocks = -(-plan.rows // block)
    sums, partials = (
        _buffers.empty(2 * blocks * n, dtype),
        _buffers.empty(2 * blocks * n, np.dtype(np.float64)),
    )
    partials = partials.reshape(blocks, 2, n)
    _run(
        rows.backward, plan.nbytes, threads,
        dy, x, plan.rows, n, block, _parameter(weight, n, 1.0, dtype), mean, rstd, dx,
        np.empty((plan.rows, 5), dtype), sums.reshape(blocks, 2, n), partials,
        _streams(dx, n) and n * dtype.itemsize % CACHE_LINE == 0,
    )  # fmt: skip
    return partials[0, 0], partials[0, 1]


def _few(plan: ChannelPlan, threads: int | None) -> bool:
    """Whether there are too few channels to give every thread its share."""
    return plan.channels < 4 * (threads or numba.get_num_threads()) and plan.count > TILE


def _block(plan: ChannelPlan, tensors: int) -> int:
    """How many neighbouring channels to take together."""
    fit = BLOCK_BYTES // (tensors * plan.count * plan.layout.dtype.itemsize)
    return max(1, min(fit, plan.channels // 16))


def _per_channel(value: Array | None, channels: int, default: float) -> Array:
    """A parameter of channels: float64, so that kernels are compiled for one type of it."""
    return _parameter(value, channels, default, np.dtype(np.float64))


def _partials(plan: ChannelPlan, numbers: int) -> Array:
    """Room for some numbers of every tile of every channel."""
    return np.empty((plan.channels, tile_count.py_func(plan.outer, plan.inner), numbers))


def _scratch(plan: ChannelPlan) -> Array:
    """Room for three vectors for every channel."""
    return np.empty((plan.channels, 3 * VECTOR_BYTES // plan.layout.dtype.itemsize), plan.layout.dtype)


def _column_coefficients(plan: ChannelPlan, mean: Array, *others: Array) -> Array:
    """hi and lo of the mean, and others, as rows in the dtype of x."""
    limits = np.finfo(plan.layout.dtype)
    result = np.empty((2 + len(others), plan.channels), plan.layout.dtype)
    result[0] = mean
    result[1] = mean - result[0]
    for i, other in enumerate(others):
        result[2 + i] = np.clip(other, limits.min, limits.max)
    return result


def channel_moments(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array]:
    """mean and population variance of every channel."""
    c = plan.channels
    mean, m2 = np.empty(c), np.empty(c)
    if plan.inner == 1 and c > 1:
        tiles = -(-plan.outer // columns.ROWS)
        scratch, partials = np.empty((tiles, 3, c), plan.layout.dtype), np.empty((c, tiles, 4))
        _run(columns.moments, plan.nbytes, threads, x, plan.outer, c, scratch, partials, mean, m2)
    else:
        _run(
            channels.moments, plan.nbytes, threads, x, plan.outer, c, plan.inner, _partials(plan, 4), mean, m2
        )
    return mean, m2 / plan.count


def channel_forward(
    plan: ChannelPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
) -> tuple[Array, Array, Array]:
    """Write y; mean, var and rstd of every channel."""
    c = plan.channels
    if plan.inner == 1 or _few(plan, threads):
        mean, var = channel_moments(plan, x, threads)
        rstd = reciprocal_sd(var, eps)
        channel_normalize(plan, x, mean, rstd, weight, bias, y, threads)
        return mean, var, rstd
    mean, var, rstd = np.empty(c), np.empty(c), np.empty(c)
    _run(
        channels.forward, plan.nbytes, threads,
        x, plan.outer, c, plan.inner, _block(plan, 1),
        _per_channel(weight, c, 1.0), _per_channel(bias, c, 0.0), eps,
        _scratch(plan), _partials(plan, 4), y, mean, var, rstd, _streams(y, plan.inner),
    )  # fmt: skip
    return mean, var, rstd


def reciprocal_sd(var: Array, eps: float) -> Array:
    """1/sqrt(var + eps), 0 where both vanish."""
    v = np.asarray(var, np.float64) + eps
    return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v != 0)


def channel_normalize(
    plan: ChannelPlan,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    y: Array,
    threads: int | None,
) -> None:
    """Write y with given statistics."""
    c = plan.channels
    scale, shift = rstd * _per_channel(weight, c, 1.0), _per_channel(bias, c, 0.0)
    if plan.inner == 1:
        coefficients = _column_coefficients(plan, mean, scale, shift)
        _run(columns.normalize, plan.nbytes, threads, x, plan.outer, c, coefficients, y, _streams(y, c))
        return
    _run(
        channels.normalize, plan.nbytes, threads,
        x, plan.outer, c, plan.inner, mean, scale, shift, y, _streams(y, plan.inner),
    )  # fmt: skip


def channel_backward(
    plan: ChannelPlan,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    training: bool,
    dx: Array,
    threads: int | None,
) -> tuple[Array, Array]:
    """Write dx; dweight and dbias in float64. In evaluation the statistics are constants."""
    c = plan.channels
    dweight, dbias = np.empty(c), np.empty(c)
    scale = rstd * _per_channel(weight, c, 1.0)
    if plan.inner == 1:
        tiles = -(-plan.outer // columns.ROWS)
        scratch, partials = np.empty((tiles, 2, c), plan.layout.dtype), np.empty((c, tiles, 2))
        hi_lo = _column_coefficients(plan, mean)
        _run(
            columns.dots,
            plan.nbytes,
            threads,
            dy,
            x,
            plan.outer,
            c,
            scratch,
            partials,
            hi_lo,
            rstd,
            dweight,
            dbias,
        )
    elif _few(plan, threads):
        _run(
            channels.dots, plan.nbytes, threads,
            dy, x, plan.outer, c, plan.inner, mean, rstd, _partials(plan, 2), dweight, dbias,
        )  # fmt: skip
    else:
        _run(
            channels.backward, plan.nbytes, threads,
            dy, x, plan.outer, c, plan.inner, _block(plan, 2), scale, mean, rstd,
            _scratch(plan), _partials(plan, 2), training, dx, dweight, dbias, _streams(dx, plan.inner),
        )  # fmt: skip
        return dweight, dbias
    if not training:
        zero = np.zeros(c)
        channel_normalize(plan, dy, zero, scale, None, None, dx, threads)
    elif plan.inner == 1:
        coefficients = _column_coefficients(
            plan, mean, rstd * dweight / plan.count, dbias / plan.count, scale
        )
        _run(columns.gradient, plan.nbytes, threads, dy, x, plan.outer, c, coefficients, dx, _streams(dx, c))
    else:
        _run(
            channels.gradient, plan.nbytes, threads,
            dy, x, plan.outer, c, plan.inner, scale, mean, rstd, dweight, dbias, dx, _streams(dx, plan.inner),
        )  # fmt: skip
    return dweight, dbias
