"""Plans of channels and flat arrays to kernel calls."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import ChannelPlan
from ..results import Array
from . import channels, column_blocks, columns, tuning
from .column_channels import tile_count as column_tiles
from .jit import Kernel
from .parallel import team_size
from .primitives import tile_count
from .run import kind, parameter, run, streams, update
from .tuning import (
    BLOCK_BYTES,
    COLS,
    FEW,
    FEW_ROWS,
    PARTS,
    SAMPLES,
    SCATTERED_BYTES,
    SEGMENT,
    SHORT_RUN,
    TILE,
)


def _tiled(plan: ChannelPlan) -> bool:
    """Whether there are so few channels that their tiles are shared out."""
    return plan.channels < FEW and plan.count > TILE


def _short(plan: ChannelPlan) -> bool:
    """Whether runs are so short that those of neighbouring channels are better taken as one.

    That prepares constants for every element of a sample, which few samples do not repay.
    """
    tiny = plan.inner * plan.layout.arithmetic.itemsize < 128
    repaid = tiny or 2 * plan.outer >= plan.inner or plan.nbytes >= SCATTERED_BYTES
    return plan.inner < SHORT_RUN and repaid and not _tiled(plan)


def _in_blocks(plan: ChannelPlan) -> bool:
    """Whether columns are taken in blocks of channels, which stay in the cache until their output."""
    if plan.inner == 1:
        return plan.fold == 1 and plan.outer <= FEW_ROWS
    return _short(plan)


def _tiles(plan: ChannelPlan, numbers: int) -> Callable[[], tuple[Array, Array]]:
    """What makes room for some sums of every column of every tile, and for whether they are good."""
    width, dtype = plan.fold * plan.channels, plan.layout.arithmetic
    tiles = column_tiles.py_func(plan.outer * plan.channels, width)
    sums, good = (tiles, numbers, width), (tiles, -(-width // COLS))
    return lambda: (np.empty(sums, dtype), np.empty(good, np.uint8))


def _block(plan: ChannelPlan, tensors: int) -> int:
    """How many neighbouring channels to take together."""
    fit = BLOCK_BYTES // (tensors * plan.count * plan.layout.arithmetic.itemsize)
    if plan.inner < SHORT_RUN:
        fit = min(fit, SEGMENT // plan.inner)
    return max(1, min(fit, -(-plan.channels // PARTS) if plan.nbytes >= tuning.PARALLEL_BYTES else fit))


def _partials(plan: ChannelPlan, numbers: int) -> Array:
    """Room for some numbers of every tile of every channel."""
    return np.empty((tile_count.py_func(plan.outer, plan.inner), numbers, plan.channels))


def _rows(width: int, plan: ChannelPlan) -> Array:
    """Room for the constants of every channel, or of every column, as rows over them."""
    return np.empty((4, width), plan.layout.arithmetic)


def channel_statistics(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array, Array]:
    """mean, population variance, and 1/sd, which is in range where the variance is not, of every channel."""
    c = plan.channels
    mean, var, rstd = np.empty(c), np.empty(c), np.empty(c)
    if plan.inner == 1:
        run(
            columns.moments, plan.nbytes, threads,
            x, plan.outer * c, plan.fold, c, *_tiles(plan, 3)(), mean, var, rstd,
        )  # fmt: skip
    else:
        partials = _partials(plan, 4)
        run(channels.moments, plan.nbytes, threads, x, plan.outer, c, plan.inner, partials, mean, var, rstd)
    return mean, var, rstd


def channel_moments(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array]:
    """mean and population variance of every channel."""
    return channel_statistics(plan, x, threads)[:2]


def channel_forward(
    plan: ChannelPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    running: Sequence[Array],
    factor: float,
    limits: tuple[float, float] | None,
    y: Array,
    threads: int | None,
    activation: str | None = None,
    residual: Array | None = None,
) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """Write y, and move the running statistics by `factor`; mean and rstd of every channel, and r and d.

    limits: r_max and d_max of batch renormalization; None for none.
    """
    c, dtype = plan.channels, plan.layout.arithmetic
    settings = np.array((eps, factor, *(limits or (1.0, 0.0))))
    statistics = np.empty((2 if limits is None else 4, c))
    moved = [s if _direct(s) else s.astype(np.float64) for s in running]
    weight, bias = parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    kernel, arguments = forward_kernel(plan, activation)
    state = settings, statistics, *(moved or (None, None))
    run(kernel, plan.nbytes, threads, *arguments(x, residual, weight, bias, state, y))
    for old, new in zip(running, moved, strict=True):
        if new is not old:
            update((old,), (new,))
    return statistics[0], statistics[1], None if limits is None else (statistics[2], statistics[3])


def _direct(statistic: Array) -> bool:
    """Whether kernels can write a running statistic where it is."""
    return bool(statistic.flags.carray) and statistic.dtype in (np.float32, np.float64)


Launch = tuple[Kernel, Callable[..., tuple[Any, ...]]]
"""A kernel, and its arguments, made of those of the pass."""


def forward_kernel(plan: ChannelPlan, activation: str | None) -> Launch:
    """The kernel that normalizes with statistics of its own: (x, residual, weight, bias, state, y)."""
    c, n, outer, fused = plan.channels, plan.inner, plan.outer, kind(activation)
    if n == 1 and not _in_blocks(plan):
        size, width = outer * c, plan.fold * c
        stream, tiles = streams(plan, width), _tiles(plan, 3)
        return columns.forward, lambda x, residual, weight, bias, state, y: (
            x, residual, size, plan.fold, c, weight, bias, *state, *tiles(), _rows(width, plan), fused,
            y, stream,
        )  # fmt: skip
    if n > 1 and not _in_blocks(plan) and _tiled(plan):
        stream = streams(plan, n)
        return channels.forward_tiles, lambda x, residual, weight, bias, state, y: (
            x, residual, outer, c, n, weight, bias, *state, _rows(c, plan), _partials(plan, 4), fused, y,
            stream,
        )  # fmt: skip
    block = _block(plan, 1)
    if _in_blocks(plan):
        stream = streams(plan, block * n)
        return column_blocks.forward, lambda x, residual, weight, bias, state, y: (
            x, residual, outer, c, n, block, weight, bias, *state, fused, y, stream
        )  # fmt: skip
    stream = streams(plan, n)
    return channels.forward, lambda x, residual, weight, bias, state, y: (
        x, residual, outer, c, n, block, weight, bias, *state, _rows(c, plan), _partials(plan, 4), fused, y,
        stream,
    )  # fmt: skip


def normalize_kernel(plan: ChannelPlan, activation: str | None) -> Launch:
    """The kernel that normalizes with running statistics, which go to `statistics`; with these if None."""
    c, n, outer, fused = plan.channels, plan.inner, plan.outer, kind(activation)
    if n == 1 or (n < SHORT_RUN and outer >= SAMPLES):  # every element of a sample is a column
        size, width, fold = outer * c * n, plan.fold * c * n, plan.fold
        stream = streams(plan, width)
        return columns.normalize, lambda x, residual, weight, bias, state, y: (
            x, residual, size, fold, c, n, weight, bias, *state, _rows(width, plan), fused, y, stream
        )  # fmt: skip
    stream = streams(plan, n)
    return channels.normalize, lambda x, residual, weight, bias, state, y: (
        x, residual, outer, c, n, weight, bias, *state, _rows(c, plan), fused, y, stream
    )  # fmt: skip


def given_statistics(running: Sequence[Array], eps: float) -> tuple[Array, Array]:
    """mean and rstd of running statistics, in float64."""
    mean, var = np.array(running, np.float64)
    return mean, reciprocal_sd(var, eps)


def reciprocal_sd(var: Array, eps: float) -> Array:
    """1/sqrt(var + eps), 0 where both vanish; var: flat, in float64."""
    rstd = np.empty_like(var)
    columns.reciprocal(var, eps, rstd)
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
    activation: str | None = None,
    residual: Array | None = None,
) -> None:
    """Write y with given statistics."""
    c, dtype = plan.channels, plan.layout.arithmetic
    weight, bias = parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    kernel, arguments = normalize_kernel(plan, activation)
    state = np.zeros(1), np.stack((mean, rstd)), None, None
    run(kernel, plan.nbytes, threads, *arguments(x, residual, weight, bias, state, y))


def _whole(
    plan: ChannelPlan, activation: str | None, dx: Array, dresidual: Array | None
) -> tuple[Array | None, Array, Array | None]:
    """Room for dz of the whole array, dx and dresidual, which serves as dz where nothing is rounded."""
    if activation is None:
        return None, dx, None
    if dresidual is not None and dresidual.dtype == plan.layout.arithmetic:
        return dresidual, dx, None
    return _buffers.empty(dx.size, plan.layout.arithmetic), dx, dresidual


def channel_backward(
    plan: ChannelPlan,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    renorm: tuple[Array, Array] | None,
    training: bool,
    dx: Array,
    threads: int | None,
    activation: str | None = None,
    residual: Array | None = None,
    dresidual: Array | None = None,
) -> tuple[Array, Array]:
    """Write dx and dresidual; dweight and dbias in float64. In evaluation the statistics are constants.

    With r and d of batch renormalization y = (x_hat * r + d) * weight + bias.
    """
    if renorm is not None:
        r, d = renorm
        wide = np.ones(plan.channels) if weight is None else weight.astype(np.float64)
        weight, bias = wide * r, wide * d + (0.0 if bias is None else bias)
        dweight, dbias = channel_backward(
            plan, dy, x, mean, rstd, weight, bias, None, training, dx, threads, activation, residual,
            dresidual,
        )  # fmt: skip
        return dweight * r + dbias * d, dbias
    c, dtype = plan.channels, plan.layout.arithmetic
    dweight, dbias = np.empty(c), np.empty(c)
    weight, bias = parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    tensors = 2 if residual is None else 3
    kernel, arguments = backward_kernel(plan, activation, tensors, threads)
    given = weight, bias, kind(activation), mean, rstd, training
    run(
        kernel, plan.nbytes, threads,
        *arguments(dy, x, residual, given, dx, dresidual, (dweight, dbias)),
    )  # fmt: skip
    return dweight, dbias


def backward_kernel(plan: ChannelPlan, activation: str | None, tensors: int, threads: int | None) -> Launch:
    """The kernel of the backward, of so many tensors that are read.

    (dy, x, residual, (weight, bias, kind, mean, rstd, training), dx, dresidual, (dweight, dbias))
    """
    c, n, outer, fused = plan.channels, plan.inner, plan.outer, activation is not None
    if n == 1 and not _in_blocks(plan):
        width = plan.fold * c
        stream, tiles = streams(plan, width), _tiles(plan, 2)
        return columns.backward, lambda dy, x, residual, given, dx, dresidual, sums: (
            dy, x, residual, outer * c, plan.fold, c, *given, tiles()[0], _rows(width, plan),
            _rows(width, plan) if fused else None, dx, dresidual, *sums, stream,
        )  # fmt: skip
    if n > 1 and not _in_blocks(plan) and _tiled(plan):
        stream = streams(plan, n)

        def tiled(dy: Any, x: Any, residual: Any, given: Any, dx: Any, dresidual: Any, sums: Any) -> Any:
            dz, *results = _whole(plan, activation, dx, dresidual)
            return (
                dy, x, residual, outer, c, n, *given, _rows(c, plan), _rows(c, plan) if fused else None,
                dz, _partials(plan, 2), *results, *sums, stream,
            )  # fmt: skip

        return channels.backward_tiles, tiled
    block = _block(plan, tensors)
    blocks = -(-c // block)
    workers = min(blocks, team_size(threads)) if fused else blocks  # each has room for dz of a block

    def room() -> Array | None:
        return np.empty(workers * block * plan.count, plan.layout.arithmetic) if fused else None

    if _in_blocks(plan):
        stream = streams(plan, block * n)
        return column_blocks.backward, lambda dy, x, residual, given, dx, dresidual, sums: (
            dy, x, residual, outer, c, n, block, workers, *given, room(), dx, dresidual, *sums, stream
        )  # fmt: skip
    stream = streams(plan, n)
    return channels.backward, lambda dy, x, residual, given, dx, dresidual, sums: (
        dy, x, residual, outer, c, n, block, workers, *given, _rows(c, plan),
        _rows(c, plan) if fused else None, room(), _partials(plan, 2), dx, dresidual, *sums, stream,
    )  # fmt: skip
