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
from . import channels, columns, rows, short_runs
from .column_primitives import ROWS
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
# Into how many pieces the channels are divided at least.
PARTS = 16
# With fewer rows or channels than this, their tiles are shared out instead.
FEW = 8
# Elements of a run below which neighbouring runs are taken as one row, and of such a row: its
# constants and sums are to stay in the cache.
SHORT_RUN = 128
SEGMENT = 2048
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
    if n > PIECE and plan.rows < (threads or numba.get_num_threads()):  # the same bits as below
        _run(
            rows.forward_tiles, plan.nbytes, threads,
            x, plan.rows, n, weight, bias, eps, np.empty((plan.rows, -(-n // TILE), 4)), y, mean, rstd,
            _streams(y, n),
        )  # fmt: skip
        return mean, rstd
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
    """Write dx; dweight and dbias in float64, or in the dtype of x."""
    n, dtype = plan.cols, plan.layout.dtype
    weight, scalars = _parameter(weight, n, 1.0, dtype), np.empty((plan.rows + 1, 5), dtype)
    if n > PIECE and plan.rows < FEW:
        results = _buffers.empty(2 * n, dtype).reshape(2, n)
        _run(
            rows.backward_tiles, plan.nbytes, threads,
            dy, x, plan.rows, n, weight, mean, rstd, dx, scalars, results,
            np.empty((-(-n // TILE), plan.rows, 2)), _streams(dx, n),
        )  # fmt: skip
        return results[0], results[1]
    block = max(-(-plan.rows // PARTIALS), -(-PIECE // n), min(16, -(-plan.rows // 2)))
    blocks = -(-plan.rows // block)
    sums = _buffers.empty(2 * blocks * n, dtype).reshape(blocks, 2, n)
    partials = _buffers.empty(2 * blocks * n, np.dtype(np.float64)).reshape(blocks, 2, n)
    _run(
        rows.backward, plan.nbytes, threads,
        dy, x, plan.rows, n, block, weight, mean, rstd, dx,
        scalars, sums, partials, _streams(dx, n),
    )  # fmt: skip
    return partials[0, 0], partials[0, 1]


def _tiled(plan: ChannelPlan) -> bool:
    """Whether there are so few channels that their tiles are shared out."""
    return plan.channels < FEW and plan.count > TILE


def _short(plan: ChannelPlan) -> bool:
    """Whether runs are so short that those of neighbouring channels are better taken as one."""
    return plan.inner < SHORT_RUN and not _tiled(plan)


def _block(plan: ChannelPlan, tensors: int) -> int:
    """How many neighbouring channels to take together."""
    fit = BLOCK_BYTES // (tensors * plan.count * plan.layout.dtype.itemsize)
    if _short(plan):
        fit = min(fit, SEGMENT // plan.inner)
    return max(1, min(fit, -(-plan.channels // PARTS)))


def _partials(plan: ChannelPlan, numbers: int) -> Array:
    """Room for some numbers of every tile of every channel."""
    if plan.inner == 1 or _short(plan):
        tiles = -(-plan.outer // ROWS)
    else:
        tiles = tile_count.py_func(plan.outer, plan.inner)
    return np.empty((plan.channels, tiles, numbers))


def _scratch(plan: ChannelPlan, numbers: int) -> Array:
    """Room for the sums, in the dtype of x: of every element of a sample, every column, or every channel."""
    if plan.inner == 1:
        shape: tuple[int, ...] = (-(-plan.outer // ROWS), numbers, plan.channels)
    elif _short(plan):
        shape = (4, plan.channels * plan.inner)
    else:
        shape = (plan.channels, 2 * VECTOR_BYTES // plan.layout.dtype.itemsize)
    return np.empty(shape, plan.layout.dtype)


def _constants(plan: ChannelPlan) -> Array:
    """Room for the constants of every channel; side by side, or as rows over the columns."""
    shape = (4, plan.channels) if plan.inner == 1 else (plan.channels, 4)
    return np.empty(shape, plan.layout.dtype)


def channel_moments(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array]:
    """mean and population variance of every channel."""
    c = plan.channels
    mean, m2 = np.empty(c), np.empty(c)
    if plan.inner == 1:
        _run(
            columns.moments, plan.nbytes, threads,
            x, plan.outer, c, _scratch(plan, 4), _partials(plan, 4), mean, m2,
        )  # fmt: skip
    else:
        tiles = np.empty((c, tile_count.py_func(plan.outer, plan.inner), 4))
        _run(channels.moments, plan.nbytes, threads, x, plan.outer, c, plan.inner, tiles, mean, m2)
    return mean, m2 / plan.count


def channel_forward(
    plan: ChannelPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    running: Array,
    factor: float,
    y: Array,
    threads: int | None,
) -> tuple[Array, Array]:
    """Write y and update `running`, (2, channels) in float64; mean and rstd of every channel."""
    c, n, dtype = plan.channels, plan.inner, plan.layout.dtype
    mean, rstd = np.empty(c), np.empty(c)
    weight, bias = _parameter(weight, c, 1.0, dtype), _parameter(bias, c, 0.0, dtype)
    if n == 1:
        _run(
            columns.forward, plan.nbytes, threads,
            x, plan.outer, c, weight, bias, eps, running, factor, _scratch(plan, 4), _partials(plan, 4),
            _constants(plan), y, mean, rstd, _streams(y, c),
        )  # fmt: skip
    elif _short(plan):
        block = _block(plan, 1)
        _run(
            short_runs.forward, plan.nbytes, threads,
            x, plan.outer, c, n, block, weight, bias, eps, running, factor,
            _scratch(plan, 4), _partials(plan, 4), y, mean, rstd, _streams(y, block * n),
        )  # fmt: skip
    elif _tiled(plan):
        _run(
            channels.forward_tiles, plan.nbytes, threads,
            x, plan.outer, c, n, weight, bias, eps, running, factor, _constants(plan), _partials(plan, 4),
            y, mean, rstd, _streams(y, n),
        )  # fmt: skip
    else:
        _run(
            channels.forward, plan.nbytes, threads,
            x, plan.outer, c, n, _block(plan, 1), weight, bias, eps, running, factor,
            _scratch(plan, 4), _constants(plan), _partials(plan, 4), y, mean, rstd, _streams(y, n),
        )  # fmt: skip
    return mean, rstd


def reciprocal_sd(var: Array, eps: float) -> Array:
    """1/sqrt(var + eps), 0 where both vanish; var: flat, in float64."""
    rstd = np.empty_like(var)
    columns.reciprocal.serial(var, eps, rstd)
    return rstd


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
    c, n, dtype = plan.channels, plan.inner, plan.layout.dtype
    per_channel: tuple[Array, ...] = (
        mean,
        rstd,
        _parameter(weight, c, 1.0, dtype),
        _parameter(bias, c, 0.0, dtype),
    )
    if n < SHORT_RUN:  # every element of a sample is a column
        c *= n
        if n > 1:
            per_channel = tuple(p.repeat(n) for p in per_channel)
        constants = np.empty((4, c), dtype)
        _run(
            columns.normalize, plan.nbytes, threads,
            x, plan.outer, c, *per_channel, constants, y, _streams(y, c),
        )  # fmt: skip
    else:
        _run(
            channels.normalize, plan.nbytes, threads,
            x, plan.outer, c, n, *per_channel, _constants(plan), y, _streams(y, n),
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
    c, n = plan.channels, plan.inner
    dweight, dbias = np.empty(c), np.empty(c)
    weight = _parameter(weight, c, 1.0, plan.layout.dtype)
    if n == 1:
        _run(
            columns.backward, plan.nbytes, threads,
            dy, x, plan.outer, c, weight, mean, rstd, training, _scratch(plan, 2), _partials(plan, 2),
            _constants(plan), dx, dweight, dbias, _streams(dx, c),
        )  # fmt: skip
    elif _short(plan):
        block = _block(plan, 2)
        _run(
            short_runs.backward, plan.nbytes, threads,
            dy, x, plan.outer, c, n, block, weight, mean, rstd, training, _scratch(plan, 2),
            _partials(plan, 2), dx, dweight, dbias, _streams(dx, block * n),
        )  # fmt: skip
    elif _tiled(plan):
        _run(
            channels.backward_tiles, plan.nbytes, threads,
            dy, x, plan.outer, c, n, weight, mean, rstd, training, _constants(plan), _partials(plan, 2),
            dx, dweight, dbias, _streams(dx, n),
        )  # fmt: skip
    else:
        _run(
            channels.backward, plan.nbytes, threads,
            dy, x, plan.outer, c, n, _block(plan, 2), weight, mean, rstd, training, _scratch(plan, 2),
            _constants(plan), _partials(plan, 2), dx, dweight, dbias, _streams(dx, n),
        )  # fmt: skip
    return dweight, dbias
