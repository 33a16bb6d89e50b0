"""Kernels over an array seen as rows of columns, with statistics per channel: batch norm of (N, C), of
channels-last arrays, and of images of few pixels, such as 7 x 7.

A row has `fold` * channels * `inner` elements, its columns: `fold` samples side by side where the channels
alone would make a row too short, or one sample with `inner` elements of each channel. Every column has sums
and constants of its own; a channel has those of its columns together. Elements beyond the last whole row,
which only folded samples leave, are a row of their own.

The kernels share out tiles of rows, and go through memory in its order: an array larger than the cache is
read twice.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In the backward `affine` has the constants of the output, as rows over the columns. `backward` forms
dz, the gradient before the activation, in both passes: memory to keep it in costs more than the slopes.
state: as for `finish_moments`. constants: (4, columns) in the dtype of the arithmetic.
"""

import numpy as np

from .column_channels import (
    ROOM,
    bounds_of_tile,
    channel_constants,
    channel_statistics,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
    take_statistics,
    tile_count,
)
from .column_primitives import columns_gradient, columns_normalize, columns_slope, tile_sums
from .fusion import first_of, tile_on_stack
from .jit import kernel, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import reciprocal_sd

# Columns of a tile, and elements of a piece of work: the sums of a tile are to stay in L1.
COLS = 2048
PIECE = 65536
# Channels that are finished together.
CHANNELS = 256


@primitive
def _sums_piece(k, x, size, width, sums, good):
    """Sums of COLS columns of one tile; sums: (tiles, 3, width), good: (tiles, blocks of columns)."""
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, size, width)
    n, good[t, k % blocks] = min(COLS, columns - first), True
    if n > 0:
        tile, own = offset(pointer(x), row * width + first), offset(pointer(sums), 3 * t * width + first)
        good[t, k % blocks] = tile_sums(tile, rows, width, n, own, width)


@primitive
def _statistics(x, start, end, size, fold, channels, sums, good, mean, var, rstd, room):
    channel_statistics(
        pointer(x), start, end, size, fold, channels, 1, pointer(sums), 0, fold * channels, good, 0.0, room,
        offset(pointer(mean), start), offset(pointer(var), start), offset(pointer(rstd), start),
    )  # fmt: skip


@primitive
def _statistics_piece(b, x, size, fold, channels, sums, good, mean, var, rstd):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    room = np.empty((ROOM, end - start))
    _statistics(x, start, end, size, fold, channels, sums, good, mean, var, rstd, room)


@kernel
def moments(team, x, size, fold, channels, sums, good, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every channel.

    sums: (tiles, 3, columns) in the dtype of the arithmetic. good: (tiles, blocks of columns).
    """
    width = fold * channels
    share(team, tile_count(size, width) * -(-width // COLS), _sums_piece, x, size, width, sums, good)
    share(
        team, -(-channels // CHANNELS), _statistics_piece, x, size, fold, channels, sums, good, mean, var,
        rstd,
    )  # fmt: skip


@primitive
def _finish_moments_piece(b, x, size, fold, channels, sums, good, weight, bias, state, constants):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    finish_columns(
        x, start, end, size, fold, channels, 1, sums, 0, fold * channels, good, weight, bias, state,
        constants, np.empty((ROOM, end - start)), np.empty((3, end - start), weight.dtype),
    )  # fmt: skip


@primitive
def _normalize_piece(b, x, residual, size, width, constants, kind, y, stream):
    rows = 1 + PIECE // width
    for k in range(b * rows * width, min((b + 1) * rows * width, size), width):
        x_row, residual_row = offset(pointer(x), k), offset(pointer(residual), k)
        columns_normalize(
            x_row, min(width, size - k), width, pointer(constants), residual_row, kind, offset(pointer(y), k),
            stream,
        )  # fmt: skip
    if stream:
        fence()


@primitive
def _row_pieces(size, width):
    """Pieces of work of some rows each."""
    return -(-size // (width * (1 + PIECE // width)))


@kernel
def forward(
    team, x, residual, size, fold, channels, weight, bias, state, sums, good, constants, kind,
    y, stream
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x.

    sums, good: as for `moments`.
    """
    width = fold * channels
    share(team, tile_count(size, width) * -(-width // COLS), _sums_piece, x, size, width, sums, good)
    share(
        team, -(-channels // CHANNELS), _finish_moments_piece, x, size, fold, channels, sums, good, weight,
        bias, state, constants,
    )  # fmt: skip
    share(
        team, _row_pieces(size, width), _normalize_piece, x, residual, size, width, constants, kind, y, stream
    )


@kernel
def reciprocal(var, eps, rstd):
    for c in range(len(var)):
        rstd[c] = reciprocal_sd(var[c], eps)


@primitive
def _constants_piece(
    b, x, fold, channels, inner, running_mean, running_var, eps, statistics, weight, bias, constants, values
):  # fmt: skip
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    take_statistics(start, end, running_mean, running_var, eps, statistics)
    mean = offset(pointer(statistics), start)
    channel_constants(
        pointer(x), start, end, fold, channels, inner, mean, offset(mean, channels),
        offset(pointer(weight), start), offset(pointer(bias), start),
        offset(pointer(values), 3 * start), offset(pointer(constants), start * inner),
        fold * channels * inner,
    )  # fmt: skip


@kernel
def normalize(
    team, x, residual, size, fold, channels, inner, running_mean, running_var, eps, statistics, weight, bias,
    constants, kind, y, stream,
):  # fmt: skip
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`; with these if None."""
    width = fold * channels * inner
    blocks = -(-channels // CHANNELS)
    values = np.empty((channels if fold * inner > 1 else 0, 3), weight.dtype)
    share(
        team, blocks, _constants_piece, x, fold, channels, inner, running_mean, running_var, eps, statistics,
        weight, bias, constants, values,
    )  # fmt: skip
    share(
        team, _row_pieces(size, width), _normalize_piece, x, residual, size, width, constants, kind, y, stream
    )


@primitive
def _prepare_piece(b, x, fold, channels, weight, bias, kind, mean, rstd, constants, affine):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    prepare_dots(
        pointer(x), start, end, fold, channels, 1, weight, bias, kind, mean, rstd, pointer(constants),
        pointer(affine), 0, fold * channels, np.empty((3, end - start), weight.dtype),
    )  # fmt: skip


@primitive
def _dots_piece(k, dy, x, residual, size, width, constants, affine, kind, sums):
    """The dots of COLS columns of one tile; sums: (tiles, 2, width)."""
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, size, width)
    n, i = min(COLS, columns - first), row * width + first
    z = offset(pointer(affine), first)
    if n > 0:
        dots_of_tile(
            offset(pointer(dy), i), offset(pointer(x), i), offset(pointer(residual), i), rows, width, n,
            offset(pointer(constants), first), z, width, kind, tile_on_stack(z), 0,
            offset(pointer(sums), 2 * t * width + first),
        )  # fmt: skip


@primitive
def _finish_piece(b, x, size, fold, channels, weight, mean, rstd, training, sums, dweight, dbias, constants):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    finish_dots_of_columns(
        x, start, end, size, fold, channels, 1, weight, mean, rstd, training, sums, 0, fold * channels,
        dweight, dbias, constants, np.empty((2, end - start)), np.empty((4, end - start), weight.dtype),
    )  # fmt: skip


@primitive
def _gradient_piece(
    b, dy, x, residual, size, width, kind, training, constants, affine, dx, dresidual, stream
):  # fmt: skip
    rows = 1 + PIECE // width
    dz = tile_on_stack(pointer(affine))
    for row in range(b * rows * width, min((b + 1) * rows * width, size), width):
        for first in range(0, min(width, size - row), COLS):
            k, n = row + first, min(COLS, width - first, size - row - first)
            if kind is not None:
                columns_slope(
                    offset(pointer(dy), k), offset(pointer(x), k), n, width, offset(pointer(affine), first),
                    offset(pointer(residual), k), kind, dz,
                )  # fmt: skip
            columns_gradient(
                first_of(dz, offset(pointer(dy), k)), offset(pointer(x), k), n, width,
                offset(pointer(constants), first), training, offset(pointer(dx), k),
                offset(pointer(dresidual), k), stream,
            )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, residual, size, fold, channels, weight, bias, kind, mean, rstd, training, sums, constants,
    affine, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    sums: (tiles, 2, columns) in the dtype of the arithmetic.
    """
    width, blocks = fold * channels, -(-channels // CHANNELS)
    share(team, blocks, _prepare_piece, x, fold, channels, weight, bias, kind, mean, rstd, constants, affine)
    share(
        team, len(sums) * -(-width // COLS), _dots_piece, dy, x, residual, size, width, constants, affine,
        kind, sums,
    )  # fmt: skip
    share(
        team, blocks, _finish_piece, x, size, fold, channels, weight, mean, rstd, training, sums, dweight,
        dbias, constants,
    )  # fmt: skip
    share(
        team, _row_pieces(size, width), _gradient_piece, dy, x, residual, size, width, kind, training,
        constants, affine, dx, dresidual, stream,
    )  # fmt: skip
