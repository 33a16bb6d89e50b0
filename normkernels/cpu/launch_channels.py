"""Plans of channels and flat arrays to kernel calls."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import ChannelPlan
from ..results import Array
from . import channels, columns, tuning
from .column_channels import row_tiles
from .jit import Kernel
from .parallel import team_size
from .run import direct, kind, parameter, run, streams, update
from .tuning import (
    BLOCK_BYTES,
    CACHE_LINE,
    COLUMNS_BYTES,
    FEW,
    FEW_ROWS,
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


def _block(plan: ChannelPlan, tensors: int, threads: int | None) -> int:
    """How many neighbouring channels to take together: as many as stay in the cache, two blocks a thread."""
    columns, itemsize = plan.inner < SHORT_RUN, plan.layout.arithmetic.itemsize
    line = max(1, CACHE_LINE // (plan.layout.storage.itemsize * plan.inner)) if columns else 1
    fit = (COLUMNS_BYTES if columns else BLOCK_BYTES) // (tensors * plan.count * itemsize)
    if plan.nbytes >= tuning.PARALLEL_BYTES and team_size(threads) > 1:
        fit = min(fit, max(line, -(-plan.channels // (2 * team_size(threads)))))
    if columns:
        fit, whole = min(fit, SEGMENT // plan.inner), CACHE_LINE // plan.layout.storage.itemsize
        fit -= fit % whole if fit > whole else 0  # rows of whole cache lines, whatever a run has
    return max(1, fit)


Launch = tuple[Kernel, Callable[..., tuple[Any, ...]]]
"""A kernel, and its arguments, made of those of the pass."""


def _view(plan: ChannelPlan) -> tuple[int, ...]:
    """The fields of `channel_constants.View`."""
    c, n = plan.channels, plan.inner
    return plan.outer * c * n, plan.fold * c * n, plan.fold, c, n


def _parameters(plan: ChannelPlan, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    c, dtype = plan.channels, plan.layout.arithmetic
    return parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)


def channel_statistics(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, ...]:
    """mean, population variance, 1/sd, and what the mean lost by rounding, of every channel.

    1/sd is in range where the variance is not.
    """
    c, view = plan.channels, _view(plan)
    statistics = np.empty(c), np.empty(c), np.empty(c), np.empty(c)
    if plan.inner == 1:
        sums = np.empty((row_tiles.py_func(*view[:2]), 3, view[1]), plan.layout.arithmetic)
        run(columns.moments, plan.nbytes, threads, x, view, sums, statistics)
    else:
        run(channels.moments, plan.nbytes, threads, x, view, statistics)
    return statistics


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
    settings = np.array((eps, factor, *(limits or (1.0, 0.0))))
    statistics = np.empty((2 if limits is None else 4, plan.channels))
    moved = [direct(s) for s in running]
    kernel, arguments = forward_kernel(plan, activation, threads)
    parameters = *_parameters(plan, weight, bias), settings, statistics, *(moved or (None, None))
    run(kernel, plan.nbytes, threads, *arguments(x, residual, parameters, y))
    update(running, moved)
    return statistics[0], statistics[1], None if limits is None else (statistics[2], statistics[3])


def channel_normalize(
    plan: ChannelPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    running: Sequence[Array],
    y: Array,
    threads: int | None,
    activation: str | None = None,
    residual: Array | None = None,
) -> tuple[Array, Array]:
    """Write y with running statistics; mean and rstd of every channel."""
    settings, statistics = np.array((eps, 0.0, 1.0, 0.0)), np.empty((2, plan.channels))
    kernel, arguments = normalize_kernel(plan, activation)
    parameters = *_parameters(plan, weight, bias), settings, statistics, *map(direct, running)
    run(kernel, plan.nbytes, threads, *arguments(x, residual, parameters, y))
    return statistics[0], statistics[1]


def channel_standardize(
    plan: ChannelPlan, x: Array, mean: Array, rstd: Array, y: Array, threads: int | None
) -> None:
    """Write y = (x - mean) * rstd."""
    kernel, arguments = normalize_kernel(plan, None)
    parameters = *_parameters(plan, None, None), np.zeros(4), np.stack((mean, rstd)), None, None
    run(kernel, plan.nbytes, threads, *arguments(x, None, parameters, y))


def forward_kernel(plan: ChannelPlan, activation: str | None, threads: int | None) -> Launch:
    """The kernel that normalizes with statistics of its own: (x, residual, parameters, y).

    parameters: the arguments of `channel_constants.state_of`.
    """
    n, fused, view, block = plan.inner, kind(activation), _view(plan), _block(plan, 1, threads)
    lead: tuple[Any, ...] = (view,)
    if _in_blocks(plan):
        kernel, run_length, lead = columns.forward_blocks, block * n, (view, block)
    elif n == 1:
        kernel, run_length = columns.forward, view[1]
    elif _tiled(plan):
        kernel, run_length = channels.forward_tiles, n
    else:
        kernel, run_length, lead = channels.forward, n, (view, block)
    stream = streams(plan, run_length)
    return kernel, lambda x, residual, parameters, y: ((x, residual, fused, y, stream), *lead, parameters)


def normalize_kernel(plan: ChannelPlan, activation: str | None) -> Launch:
    """The kernel that normalizes with running statistics, which go to `statistics`; with these if None."""
    n, view, fused = plan.inner, _view(plan), kind(activation)
    kernel, run_length = channels.normalize, n
    if n == 1 or (n < SHORT_RUN and plan.outer >= SAMPLES):  # every element of a sample is a column
        kernel, run_length = columns.normalize, view[1]
    stream = streams(plan, run_length)
    return kernel, lambda x, residual, parameters, y: ((x, residual, fused, y, stream), view, parameters)


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
    """Write dx and dresidual; dweight and dbias. In evaluation the statistics are constants.

    With r and d of batch renormalization y = (x_hat * r + d) * weight + bias.
    """
    if renorm is not None:
        r, d = renorm
        wide = np.ones(plan.channels) if weight is None else weight.astype(np.float64)
        weight, bias = wide * r, wide * d + (0.0 if bias is None else bias)
    dtype = plan.layout.arithmetic if renorm is None else np.float64
    dweight, dbias = np.empty(plan.channels, dtype), np.empty(plan.channels, dtype)
    kernel, arguments = backward_kernel(plan, activation, 2 if residual is None else 3, threads)
    given = *_parameters(plan, weight, bias), mean, rstd, training, dweight, dbias
    run(kernel, plan.nbytes, threads, *arguments(dy, x, residual, given, dx, dresidual))
    return dweight if renorm is None else dweight * r + dbias * d, dbias


def backward_kernel(plan: ChannelPlan, activation: str | None, tensors: int, threads: int | None) -> Launch:
    """The kernel of the backward, of so many tensors that are read: (dy, x, residual, given, dx, dresidual).

    given: the arguments of `channel_constants.given_of`.
    """
    n, dtype, fused, view = plan.inner, plan.layout.arithmetic, kind(activation), _view(plan)
    block = _block(plan, tensors, threads)
    count = -(-plan.channels // block)
    workers = count if fused is None else min(count, team_size(threads))  # each has room for dz of a block
    stream = streams(plan, block * n if _in_blocks(plan) else view[1] if n == 1 else n)

    def whole(dy: Array, x: Array, residual: Any, given: Any, dx: Array, dresidual: Any) -> tuple[Any, ...]:
        return (dy, x, residual, fused, dx, dresidual, stream), view, given

    def blocks(dy: Array, x: Array, residual: Any, given: Any, dx: Array, dresidual: Any) -> tuple[Any, ...]:
        dz = None if fused is None else np.empty(workers * block * plan.count, dtype)
        return (dy, x, residual, fused, dx, dresidual, stream), view, (block, workers), given, dz

    def tiles(dy: Array, x: Array, residual: Any, given: Any, dx: Array, dresidual: Any) -> tuple[Any, ...]:
        dz = None
        if dresidual is not None and dresidual.dtype == dtype:  # serves as dz where nothing is rounded
            dz, dresidual = dresidual, None
        elif fused is not None:
            dz = _buffers.empty(dx.size, dtype)
        return (dy, x, residual, fused, dx, dresidual, stream), view, given, dz

    if _in_blocks(plan):
        return columns.backward_blocks, blocks
    if n == 1:
        return columns.backward, whole
    return (channels.backward_tiles, tiles) if _tiled(plan) else (channels.backward, blocks)
