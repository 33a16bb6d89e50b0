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
from .primitives import tile_count
from .run import kind, parameter, run, streams, update
from .tuning import (
    BLOCK_BYTES,
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


def _block(plan: ChannelPlan, tensors: int) -> int:
    """How many neighbouring channels to take together."""
    fit = BLOCK_BYTES // (tensors * plan.count * plan.layout.arithmetic.itemsize)
    if plan.inner < SHORT_RUN:
        fit = min(fit, SEGMENT // plan.inner)
    return max(1, min(fit, -(-plan.channels // PARTS) if plan.nbytes >= tuning.PARALLEL_BYTES else fit))


Launch = tuple[Kernel, Callable[..., tuple[Any, ...]]]
"""A kernel, and its arguments, made of those of the pass."""
Room = tuple[tuple[int, ...], Any]
"""Shape and dtype of an array that a kernel works in."""


def _sums(plan: ChannelPlan, numbers: int) -> Room:
    """Some sums of every column of every tile of rows."""
    width = plan.fold * plan.channels
    return (row_tiles.py_func(plan.outer * plan.channels, width), numbers, width), plan.layout.arithmetic


def _partials(plan: ChannelPlan, numbers: int) -> Room:
    """Some sums of every channel of every tile of runs."""
    return (tile_count.py_func(plan.outer, plan.inner), numbers, plan.channels), np.dtype(np.float64)


def _view(plan: ChannelPlan) -> tuple[int, ...]:
    """The fields of `channel_constants.View`."""
    c, n = plan.channels, plan.inner
    return plan.outer * c * n, plan.fold * c * n, plan.fold, c, n


def _parameters(plan: ChannelPlan, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    c, dtype = plan.channels, plan.layout.arithmetic
    return parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)


def channel_statistics(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array, Array]:
    """mean, population variance, and 1/sd, which is in range where the variance is not, of every channel."""
    c = plan.channels
    statistics = np.empty(c), np.empty(c), np.empty(c)
    ways = (columns.moments, _sums(plan, 3)), (channels.moments, _partials(plan, 4))
    kernel, room = ways[plan.inner > 1]
    run(kernel, plan.nbytes, threads, x, _view(plan), np.empty(*room), statistics)
    return statistics


def channel_moments(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array]:
    """mean and population variance of every channel."""
    return channel_statistics(plan, x, threads)[:2]


def _direct(statistic: Array) -> Array:
    """A running statistic, as it is if kernels can write it there; else a copy."""
    direct = statistic.flags.carray and statistic.dtype in (np.float32, np.float64)
    return statistic if direct else statistic.astype(np.float64)


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
    moved = [_direct(s) for s in running]
    kernel, arguments = forward_kernel(plan, activation)
    parameters = *_parameters(plan, weight, bias), settings, statistics, *(moved or (None, None))
    run(kernel, plan.nbytes, threads, *arguments(x, residual, parameters, y))
    for old, new in zip(running, moved, strict=True):
        if new is not old:
            update((old,), (new,))
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
    parameters = *_parameters(plan, weight, bias), settings, statistics, *map(_direct, running)
    run(kernel, plan.nbytes, threads, *arguments(x, residual, parameters, y))
    return statistics[0], statistics[1]


def channel_standardize(
    plan: ChannelPlan, x: Array, mean: Array, rstd: Array, y: Array, threads: int | None
) -> None:
    """Write y = (x - mean) * rstd."""
    kernel, arguments = normalize_kernel(plan, None)
    parameters = *_parameters(plan, None, None), np.zeros(4), np.stack((mean, rstd)), None, None
    run(kernel, plan.nbytes, threads, *arguments(x, None, parameters, y))


def forward_kernel(plan: ChannelPlan, activation: str | None) -> Launch:
    """The kernel that normalizes with statistics of its own: (x, residual, parameters, y).

    parameters: the arguments of `channel_constants.state_of`.
    """
    c, n, fused, block = plan.channels, plan.inner, kind(activation), _block(plan, 1)
    lead: tuple[Any, ...]
    if _in_blocks(plan):
        view, stream = _view(plan), streams(plan, block * n)
        return columns.forward_blocks, lambda x, residual, parameters, y: (
            (x, residual, fused, y, stream), view, block, parameters
        )  # fmt: skip
    if n == 1:
        kernel, sums, width, lead = columns.forward, _sums(plan, 3), plan.fold * c, (_view(plan),)
    elif _tiled(plan):
        kernel, sums, width, lead = channels.forward_tiles, _partials(plan, 4), c, (_view(plan),)
    else:
        kernel, sums, width, lead = channels.forward, _partials(plan, 4), c, (_view(plan), block)
    stream, constants = streams(plan, width if n == 1 else n), ((4, width), plan.layout.arithmetic)
    return kernel, lambda x, residual, parameters, y: (
        (x, residual, fused, y, stream), *lead, parameters, np.empty(*sums), np.empty(*constants)
    )  # fmt: skip


def normalize_kernel(plan: ChannelPlan, activation: str | None) -> Launch:
    """The kernel that normalizes with running statistics, which go to `statistics`; with these if None."""
    c, n, dtype, fused = plan.channels, plan.inner, plan.layout.arithmetic, kind(activation)
    if n == 1 or (n < SHORT_RUN and plan.outer >= SAMPLES):  # every element of a sample is a column
        width = plan.fold * c * n
        kernel, view, stream, constants = columns.normalize, _view(plan), streams(plan, width), (4, width)
    else:
        kernel, view, stream, constants = channels.normalize, _view(plan), streams(plan, n), (4, c)
    return kernel, lambda x, residual, parameters, y: (
        (x, residual, fused, y, stream), view, parameters, np.empty(constants, dtype)
    )  # fmt: skip


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
    dweight, dbias = np.empty(plan.channels), np.empty(plan.channels)
    kernel, arguments = backward_kernel(plan, activation, 2 if residual is None else 3, threads)
    given = *_parameters(plan, weight, bias), mean, rstd, training, dweight, dbias
    run(kernel, plan.nbytes, threads, *arguments(dy, x, residual, given, dx, dresidual))
    return dweight if renorm is None else dweight * r + dbias * d, dbias


def backward_kernel(plan: ChannelPlan, activation: str | None, tensors: int, threads: int | None) -> Launch:
    """The kernel of the backward, of so many tensors that are read: (dy, x, residual, given, dx, dresidual).

    given: the fields of `channel_constants.Given`.
    """
    c, n, dtype, fused = plan.channels, plan.inner, plan.layout.arithmetic, kind(activation)
    block, width = _block(plan, tensors), plan.fold * c
    count = -(-c // block)
    workers = count if fused is None else min(count, team_size(threads))  # each has room for dz of a block
    blocks, constants = (block, workers), (4 if fused is None else 8, width)

    def room() -> Array | None:
        return None if fused is None else np.empty(workers * block * plan.count, dtype)

    if _in_blocks(plan):
        view, stream = _view(plan), streams(plan, block * n)
        return columns.backward_blocks, lambda dy, x, residual, given, dx, dresidual: (
            (dy, x, residual, fused, dx, dresidual, stream), view, blocks, given, room()
        )  # fmt: skip
    if n == 1:
        view, stream, sums = _view(plan), streams(plan, width), _sums(plan, 2)
        return columns.backward, lambda dy, x, residual, given, dx, dresidual: (
            (dy, x, residual, fused, dx, dresidual, stream), view, given, np.empty(*sums),
            np.empty(constants, dtype),
        )  # fmt: skip
    view, stream, sums = _view(plan), streams(plan, n), _partials(plan, 2)
    if not _tiled(plan):
        return channels.backward, lambda dy, x, residual, given, dx, dresidual: (
            (dy, x, residual, fused, dx, dresidual, stream), view, blocks, given, np.empty(*sums),
            np.empty(constants, dtype), room(),
        )  # fmt: skip

    def tiled(dy: Array, x: Array, residual: Any, given: Any, dx: Array, dresidual: Any) -> tuple[Any, ...]:
        dz = None
        if dresidual is not None and dresidual.dtype == dtype:  # serves as dz where nothing is rounded
            dz, dresidual = dresidual, None
        elif fused is not None:
            dz = _buffers.empty(dx.size, dtype)
        arrays = dy, x, residual, fused, dx, dresidual, stream
        return arrays, view, given, np.empty(*sums), np.empty(constants, dtype), dz

    return channels.backward_tiles, tiled
