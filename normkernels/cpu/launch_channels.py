"""Plans of channels and flat arrays to kernel calls."""

from collections.abc import Sequence

import numpy as np

from .. import _buffers
from .._layout import ChannelPlan
from ..results import Array
from . import channels, column_blocks, columns
from .column_channels import tile_count as column_tiles
from .parallel import team_size
from .primitives import TILE, tile_count
from .run import FEW, PARALLEL_BYTES, STREAM_BYTES, kind, parameter, run, streams, update

# What a block of neighbouring channels may hold: more channels make longer runs of memory, too many
# leave the cache before they are read again.
BLOCK_BYTES = 2 * 1024 * 1024
# Into how many pieces the channels are divided at least.
PARTS = 16
# Elements of a run below which neighbouring runs are taken as one row, and of such a row: its
# constants and sums are to stay in the cache.
SHORT_RUN = 128
SEGMENT = 2048
# Rows of so many columns that neighbouring columns of all of them stay in the cache.
FEW_ROWS = 1024
# Fewer samples do not repay constants for every element of a sample, which take the room of four samples
# (512 channels of 7 x 7, 1 sample: 22 µs without them instead of 66).
SAMPLES = 3


def _tiled(plan: ChannelPlan) -> bool:
    """Whether there are so few channels that their tiles are shared out."""
    return plan.channels < FEW and plan.count > TILE


def _short(plan: ChannelPlan) -> bool:
    """Whether runs are so short that those of neighbouring channels are better taken as one.

    That prepares constants for every element of a sample, which few samples do not repay (7 x 7, 1 sample:
    68 µs instead of 34; 32: 253 instead of 284; 4 x 4 is faster always).
    """
    tiny = plan.inner * plan.layout.arithmetic.itemsize < 128
    repaid = tiny or plan.nbytes >= STREAM_BYTES
    return plan.inner < SHORT_RUN and repaid and not _tiled(plan)


def _in_blocks(plan: ChannelPlan) -> bool:
    """Whether columns are taken in blocks of channels, which stay in the cache until their output."""
    if plan.inner == 1:
        return plan.fold == 1 and plan.outer <= FEW_ROWS
    return _short(plan)


def _tiles(plan: ChannelPlan, numbers: int) -> tuple[Array, Array]:
    """Room for some sums of every column of every tile, and for whether they are good."""
    width = plan.fold * plan.channels
    tiles = column_tiles.py_func(plan.outer * plan.channels, width)
    sums = np.empty((tiles, numbers, width), plan.layout.arithmetic)
    return sums, np.empty((tiles, -(-width // columns.COLS)), np.bool_)


def _block(plan: ChannelPlan, tensors: int) -> int:
    """How many neighbouring channels to take together."""
    fit = BLOCK_BYTES // (tensors * plan.count * plan.layout.arithmetic.itemsize)
    if plan.inner < SHORT_RUN:
        fit = min(fit, SEGMENT // plan.inner)
    return max(1, min(fit, -(-plan.channels // PARTS) if plan.nbytes >= PARALLEL_BYTES else fit))


def _partials(plan: ChannelPlan, numbers: int) -> Array:
    """Room for some numbers of every tile of every channel."""
    return np.empty((plan.channels, tile_count.py_func(plan.outer, plan.inner), numbers))


def _constants(plan: ChannelPlan) -> Array:
    """Room for the constants of every channel, side by side."""
    return np.empty((plan.channels, 4), plan.layout.arithmetic)


def _rows(width: int, plan: ChannelPlan) -> Array:
    """Room for the constants of every column, as rows over the columns."""
    return np.empty((4, width), plan.layout.arithmetic)


def channel_statistics(plan: ChannelPlan, x: Array, threads: int | None) -> tuple[Array, Array, Array]:
    """mean, population variance, and 1/sd, which is in range where the variance is not, of every channel."""
    c = plan.channels
    mean, var, rstd = np.empty(c), np.empty(c), np.empty(c)
    if plan.inner == 1:
        run(
            columns.moments, plan.nbytes, threads,
            x, plan.outer * c, plan.fold, c, *_tiles(plan, 3), mean, var, rstd,
        )  # fmt: skip
    else:
        tiles = np.empty((c, tile_count.py_func(plan.outer, plan.inner), 4))
        run(channels.moments, plan.nbytes, threads, x, plan.outer, c, plan.inner, tiles, mean, var, rstd)
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
    c, n, dtype = plan.channels, plan.inner, plan.layout.arithmetic
    settings = np.array((eps, factor, *(limits or (1.0, 0.0))))
    statistics = np.empty((2 if not running else 4 if limits is None else 6, c))
    if running:
        statistics[2], statistics[3] = running
    weight, bias = parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    if _in_blocks(plan):
        block = _block(plan, 1)
        run(
            column_blocks.forward, plan.nbytes, threads, -(-c // block),
            x, residual, plan.outer, c, n, block, weight, bias, settings, statistics, kind(activation), y,
            streams(y, block * n),
        )  # fmt: skip
    elif n == 1:
        width = plan.fold * c
        run(
            columns.forward, plan.nbytes, threads,
            x, residual, plan.outer * c, plan.fold, c, weight, bias, settings, statistics,
            *_tiles(plan, 3), _rows(width, plan), kind(activation), y, streams(y, width),
        )  # fmt: skip
    elif _tiled(plan):
        run(
            channels.forward_tiles, plan.nbytes, threads,
            x, residual, plan.outer, c, n, weight, bias, settings, statistics, _constants(plan),
            _partials(plan, 4), kind(activation), y, streams(y, n),
        )  # fmt: skip
    else:
        block = _block(plan, 1)
        run(
            channels.forward, plan.nbytes, threads, -(-c // block),
            x, residual, plan.outer, c, n, block, weight, bias, settings, statistics,
            _constants(plan), _partials(plan, 4), kind(activation), y, streams(y, n),
        )  # fmt: skip
    update(running, list(statistics[2:4]))
    return statistics[0], statistics[1], None if limits is None else (statistics[4], statistics[5])


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
    c, n, dtype = plan.channels, plan.inner, plan.layout.arithmetic
    per_channel = mean, rstd, parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    if n == 1 or (n < SHORT_RUN and plan.outer >= SAMPLES):  # every element of a sample is a column
        width = plan.fold * c * n
        run(
            columns.normalize, plan.nbytes, threads,
            x, residual, plan.outer * c * n, plan.fold, c, n, *per_channel, _rows(width, plan),
            kind(activation), y, streams(y, width),
        )  # fmt: skip
    else:
        run(
            channels.normalize, plan.nbytes, threads,
            x, residual, plan.outer, c, n, *per_channel, _constants(plan), kind(activation), y,
            streams(y, n),
        )  # fmt: skip


def _shares(
    plan: ChannelPlan, block: int, activation: str | None, threads: int | None
) -> tuple[int, Array | None]:
    """Among how many workers the blocks are shared out; with an activation each has room for dz of one."""
    blocks = -(-plan.channels // block)
    if activation is None:
        return blocks, None
    workers = min(blocks, team_size(threads))
    return workers, np.empty(workers * block * plan.count, plan.layout.arithmetic)


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
    c, n, dtype = plan.channels, plan.inner, plan.layout.arithmetic
    dweight, dbias = np.empty(c), np.empty(c)
    weight, bias = parameter(weight, c, 1.0, dtype), parameter(bias, c, 0.0, dtype)
    tensors = 2 if residual is None else 3
    statistics = weight, bias, kind(activation), mean, rstd, training
    sums = dweight, dbias
    if _in_blocks(plan):
        block = _block(plan, tensors)
        workers, dz = _shares(plan, block, activation, threads)
        run(
            column_blocks.backward, plan.nbytes, threads, workers,
            dy, x, residual, plan.outer, c, n, block, workers, *statistics, dz, dx, dresidual, *sums,
            streams(dx, block * n),
        )  # fmt: skip
    elif n == 1:
        width = plan.fold * c
        affine = None if activation is None else _rows(width, plan)
        run(
            columns.backward, plan.nbytes, threads,
            dy, x, residual, plan.outer * c, plan.fold, c, *statistics, _tiles(plan, 2)[0],
            _rows(width, plan), affine, dx, dresidual, *sums, streams(dx, width),
        )  # fmt: skip
    elif _tiled(plan):
        affine = None if activation is None else _constants(plan)
        dz, *results = _whole(plan, activation, dx, dresidual)
        run(
            channels.backward_tiles, plan.nbytes, threads,
            dy, x, residual, plan.outer, c, n, *statistics, _constants(plan), affine, dz, _partials(plan, 2),
            *results, *sums, streams(dx, n),
        )  # fmt: skip
    else:
        block = _block(plan, tensors)
        affine = None if activation is None else _constants(plan)
        workers, dz = _shares(plan, block, activation, threads)
        run(
            channels.backward, plan.nbytes, threads, workers,
            dy, x, residual, plan.outer, c, n, block, workers, *statistics, _constants(plan), affine, dz,
            _partials(plan, 2), dx, dresidual, *sums, streams(dx, n),
        )  # fmt: skip
    return dweight, dbias
