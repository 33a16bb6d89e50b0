"""Kernels over an array seen as rows of columns, with statistics per channel: batch norm of (N, C), of
channels-last arrays, and of images of few pixels, such as 7 x 7.

A row has `fold` * channels * `inner` elements, its columns: `fold` samples side by side where the channels
alone would make a row too short, or one sample with `inner` elements of each channel. Every column has sums
and constants of its own; a channel has those of its columns together. Elements beyond the last whole row,
which only folded samples leave, are a row of their own.

`moments`, `forward`, `normalize` and `backward` share out tiles of rows, and go through memory in its order:
an array larger than the cache is read twice. `forward_blocks` and `backward_blocks` share out blocks of
neighbouring channels, which are read from memory once, if they stay in the cache between; a block changes no
bits.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In the backward `affine` has the constants of the output, as rows over the columns. `backward` forms
dz, the gradient before the activation, in both passes: memory to keep it in costs more than the slopes.
settings, statistics: as for `finish_moments`. constants: (4, columns) in the dtype of the arithmetic.
"""

import numpy as np

from .channel_primitives import dot_constants, finish_dots, finish_moments, forward_constants
from .column_primitives import (
    ROWS,
    add_dots,
    add_moments,
    columns_gradient,
    columns_normalize,
    columns_slope,
    moments_of_tile,
    tile_sums,
)
from .extremes import group_statistics
from .fusion import first_of, tile_on_stack
from .jit import kernel, loop, primitive
from .parallel import share
from .primitives import merged, reciprocal_sd
from .vectors import as_element, fence, offset, pointer

# Columns of a tile, and elements of a piece of work: the sums of a tile are to stay in L1.
COLS = 2048
PIECE = 65536
# Channels that are finished together.
CHANNELS = 64


@primitive
def tile_count(size, width):
    """Tiles of an array of so many elements; the rest of a row is one."""
    return -(-(size // width) // ROWS) + (size % width > 0)


@primitive
def _tile(t, size, width):
    """First row, rows, and columns of tile t."""
    rows = size // width
    first = min(t * ROWS, rows)
    return (first, min(ROWS, rows - first), width) if first < rows else (first, 1, size % width)


@primitive
def _sums_piece(k, x, size, width, sums, good):
    """Sums of COLS columns of one tile; sums: (tiles, 3, width), good: (tiles, blocks of columns)."""
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = _tile(t, size, width)
    n, good[t, k % blocks] = min(COLS, columns - first), True
    if n > 0:
        tile, own = offset(pointer(x), row * width + first), offset(pointer(sums), 3 * t * width + first)
        good[t, k % blocks] = tile_sums(tile, rows, width, n, own, width)


@primitive
def _merge_tiles(x, first, n, size, width, sums, pitch, good, moments, partials, apart):
    """count, pivot, mean - pivot and m2 of n columns from the sums of their tiles.

    x, sums: at the first of the columns. moments: (8, n), room. partials: those of a column lie `apart` from
    the next.
    """
    count, pivot, mean, m2 = moments[0], moments[1], moments[2], moments[3]
    for t in range(tile_count(size, width)):
        row, rows, columns = _tile(t, size, width)
        m, new = min(n, columns - first), 4 * (t > 0)
        if m > 0:
            moments_of_tile(
                offset(x, row * width), rows, width, m, offset(sums, 3 * t * pitch), pitch, good[t].all(),
                moments[new], moments[new + 1], moments[new + 2], moments[new + 3],
            )  # fmt: skip
            if new:
                add_moments(m, count, pivot, mean, m2, moments[4], moments[5], moments[6], moments[7])
    for j in range(n):
        a = offset(partials, j * apart)
        a[0], a[1], a[2], a[3] = count[j], pivot[j], mean[j], m2[j]


@primitive
def _channel_moments(
    x, start, end, size, fold, channels, inner, sums, origin, pitch, good, moments, partials
):
    """partials: (channels, fold * inner, 4), the moments of all columns of the channels start..end.

    origin: the column with which the sums begin.
    """
    n = (end - start) * inner
    for f in range(fold):
        first = (f * channels + start) * inner
        _merge_tiles(
            offset(x, first), first, n, size, fold * channels * inner, offset(sums, first - origin), pitch,
            good, moments, offset(pointer(partials), 4 * f * inner), 4 * (fold if inner == 1 else 1),
        )  # fmt: skip


@primitive
def _spread(rows, constants, pitch, c, fold, channels, inner):
    """The constants of a channel, which lie at its first column, to all its columns."""
    for r in range(rows):
        row = offset(constants, r * pitch)
        for f in range(fold):
            first = (f * channels + c) * inner
            for j in range(first, first + inner):
                row[j] = row[c * inner]


@primitive
def _statistics(x, start, end, size, fold, channels, sums, good, mean, var, rstd, moments, partials):
    _channel_moments(
        pointer(x), start, end, size, fold, channels, 1, pointer(sums), 0, fold * channels, good, moments,
        partials,
    )  # fmt: skip
    outer = size // channels
    for c in range(start, end):
        mean[c], m2 = merged(offset(pointer(partials), 4 * fold * (c - start)), fold)
        own = offset(pointer(x), c)
        mean[c], var[c], rstd[c] = group_statistics(own, outer, channels, 1, 0.0, True, mean[c], m2 / outer)


@primitive
def _statistics_piece(b, x, size, fold, channels, sums, good, mean, var, rstd):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    moments, partials = np.empty((8, end - start)), np.empty((end - start, fold, 4))
    _statistics(x, start, end, size, fold, channels, sums, good, mean, var, rstd, moments, partials)


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
def _finish_moments(
    x, start, end, size, fold, channels, inner, sums, origin, pitch, good, weight, bias, settings, statistics,
    constants, moments, partials,
):  # fmt: skip
    """Statistics, and constants of the output, of the channels start..end; constants: from `origin` on."""
    _channel_moments(
        pointer(x), start, end, size, fold, channels, inner, pointer(sums), origin, pitch, good, moments,
        partials,
    )  # fmt: skip
    own = offset(pointer(constants), -origin)
    for c in range(start, end):
        mean, m2 = merged(offset(pointer(partials), 4 * fold * inner * (c - start)), fold * inner)
        finish_moments(
            pointer(x), c, size // (channels * inner), channels, inner, mean, m2, weight, bias, settings,
            statistics, offset(own, c * inner), pitch,
        )  # fmt: skip
        _spread(3, own, pitch, c, fold, channels, inner)


@primitive
def _finish_moments_piece(
    b, x, size, fold, channels, sums, good, weight, bias, settings, statistics, constants
):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    moments, partials = np.empty((8, end - start)), np.empty((end - start, fold, 4))
    _finish_moments(
        x, start, end, size, fold, channels, 1, sums, 0, fold * channels, good, weight, bias, settings,
        statistics, constants, moments, partials,
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
    team, x, residual, size, fold, channels, weight, bias, settings, statistics, sums, good, constants, kind,
    y, stream
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x.

    sums, good: as for `moments`.
    """
    width = fold * channels
    share(team, tile_count(size, width) * -(-width // COLS), _sums_piece, x, size, width, sums, good)
    share(
        team, -(-channels // CHANNELS), _finish_moments_piece, x, size, fold, channels, sums, good, weight,
        bias, settings, statistics, constants,
    )  # fmt: skip
    share(
        team, _row_pieces(size, width), _normalize_piece, x, residual, size, width, constants, kind, y, stream
    )


@primitive
def _forward_block(
    x, residual, start, end, outer, channels, inner, weight, bias, settings, statistics, kind, y, stream,
    sums, good, constants, moments, partials,
):  # fmt: skip
    width, first, n = channels * inner, start * inner, (end - start) * inner
    for t in range(len(sums)):
        row, rows, _ = _tile(t, outer * width, width)
        tile, own = offset(pointer(x), row * width + first), offset(pointer(sums), 3 * t * n)
        good[t, 0] = tile_sums(tile, rows, width, n, own, n)
    _finish_moments(
        x, start, end, outer * width, 1, channels, inner, sums, first, n, good, weight, bias, settings,
        statistics, constants, moments, partials,
    )  # fmt: skip
    for k in range(first, first + outer * width, width):
        x_row, residual_row = offset(pointer(x), k), offset(pointer(residual), k)
        columns_normalize(x_row, n, n, pointer(constants), residual_row, kind, offset(pointer(y), k), stream)


@loop
def forward_blocks(
    b, x, residual, outer, channels, inner, block, weight, bias, settings, statistics, kind, y, stream
):  # fmt: skip
    """As `forward`, of a block of channels."""
    start, end = b * block, min((b + 1) * block, channels)
    n, tiles = (end - start) * inner, -(-outer // ROWS)
    sums, constants = np.empty((tiles, 3, n), weight.dtype), np.empty((4, n), weight.dtype)
    good, moments, partials = (
        np.empty((tiles, 1), np.bool_),
        np.empty((8, n)),
        np.empty((end - start, inner, 4)),
    )
    _forward_block(
        x, residual, start, end, outer, channels, inner, weight, bias, settings, statistics, kind, y, stream,
        sums, good, constants, moments, partials,
    )  # fmt: skip
    if stream:
        fence()


@kernel
def reciprocal(var, eps, rstd):
    for c in range(len(var)):
        rstd[c] = reciprocal_sd(var[c], eps)


@primitive
def _forward_constants(c, x, fold, channels, inner, mean, rstd, weight, bias, constants):
    width, own = fold * channels * inner, offset(pointer(constants), c * inner)
    forward_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], own, width)
    _spread(3, pointer(constants), width, c, fold, channels, inner)


@kernel
def normalize(
    team, x, residual, size, fold, channels, inner, mean, rstd, weight, bias, constants, kind, y, stream
):  # fmt: skip
    """As `forward`, with given statistics."""
    width = fold * channels * inner
    share(team, channels, _forward_constants, x, fold, channels, inner, mean, rstd, weight, bias, constants)
    share(
        team, _row_pieces(size, width), _normalize_piece, x, residual, size, width, constants, kind, y, stream
    )


@primitive
def _prepare_dots(
    x, start, end, fold, channels, inner, weight, bias, kind, mean, rstd, constants, affine, origin, pitch
):  # fmt: skip
    """The constants of the dots of the channels start..end, and with an activation those of their output."""
    a, z = offset(constants, -origin), offset(affine, -origin)
    for c in range(start, end):
        k = c * inner
        dot_constants(x, mean[c], rstd[c], weight[c], bias[c], offset(a, k), offset(z, k), pitch)
        _spread(2, a, pitch, c, fold, channels, inner)
        if kind is not None:
            _spread(3, z, pitch, c, fold, channels, inner)


@primitive
def _prepare_piece(b, x, fold, channels, weight, bias, kind, mean, rstd, constants, affine):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    _prepare_dots(
        pointer(x), start, end, fold, channels, 1, weight, bias, kind, mean, rstd, pointer(constants),
        pointer(affine), 0, fold * channels,
    )  # fmt: skip


@primitive
def _dots_of_tile(dy, x, residual, rows, width, n, constants, affine, pitch, kind, dz, apart, sums):
    """The dots of n columns of a tile; sums: rows of them, `pitch` apart.

    With an activation dz, of which a row lies `apart` from the next, receives the gradient before it.
    """
    s, q = sums, offset(sums, pitch)
    for j in range(n):
        s[j] = q[j] = as_element(sums, 0.0)
    if kind is None:
        add_dots(dy, x, rows, width, n, constants, pitch, s, q)
    else:
        for i in range(rows):
            k, own = i * width, offset(dz, i * apart)
            columns_slope(offset(dy, k), offset(x, k), n, pitch, affine, offset(residual, k), kind, own)
            add_dots(own, offset(x, k), 1, width, n, constants, pitch, s, q)


@primitive
def _dots_piece(k, dy, x, residual, size, width, constants, affine, kind, sums):
    """The dots of COLS columns of one tile; sums: (tiles, 2, width)."""
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = _tile(t, size, width)
    n, i = min(COLS, columns - first), row * width + first
    z = offset(pointer(affine), first)
    if n > 0:
        _dots_of_tile(
            offset(pointer(dy), i), offset(pointer(x), i), offset(pointer(residual), i), rows, width, n,
            offset(pointer(constants), first), z, width, kind, tile_on_stack(z), 0,
            offset(pointer(sums), 2 * t * width + first),
        )  # fmt: skip


@primitive
def _finish_dots(
    x, start, end, size, fold, channels, inner, weight, mean, rstd, training, sums, origin, pitch, dweight,
    dbias, constants, totals,
):  # fmt: skip
    """The sums of the channels start..end and the constants of their gradient; totals: (2, columns), room."""
    width, n, a = fold * channels * inner, (end - start) * inner, offset(pointer(constants), -origin)
    totals[:] = 0.0
    for f in range(fold):
        first = (f * channels + start) * inner
        for t in range(len(sums)):
            m = min(n, _tile(t, size, width)[2] - first)
            own = offset(pointer(sums), 2 * t * pitch + first - origin)
            for j in range(m):
                totals[0, j] += np.float64(own[j])
                totals[1, j] += np.float64(own[pitch + j])
    for c in range(start, end):
        s = dot = 0.0
        for j in range((c - start) * inner, (c - start + 1) * inner):
            s += totals[0, j]
            dot += totals[1, j]
        finish_dots(
            pointer(x), c, size // channels, dot, s, weight, mean, rstd, training, dweight, dbias,
            offset(a, c * inner), pitch,
        )  # fmt: skip
        _spread(4, a, pitch, c, fold, channels, inner)


@primitive
def _finish_piece(b, x, size, fold, channels, weight, mean, rstd, training, sums, dweight, dbias, constants):
    start, end = b * CHANNELS, min((b + 1) * CHANNELS, channels)
    _finish_dots(
        x, start, end, size, fold, channels, 1, weight, mean, rstd, training, sums, 0, fold * channels,
        dweight, dbias, constants, np.empty((2, end - start)),
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


@primitive
def _backward_block(
    dy, x, residual, start, end, outer, channels, inner, weight, bias, kind, mean, rstd, training, dz, dx,
    dresidual, dweight, dbias, stream, sums, constants, affine, totals,
):  # fmt: skip
    width, first, n = channels * inner, start * inner, (end - start) * inner
    a, z = pointer(constants), pointer(affine)
    _prepare_dots(pointer(x), start, end, 1, channels, inner, weight, bias, kind, mean, rstd, a, z, first, n)
    for t in range(len(sums)):
        row, rows, _ = _tile(t, outer * width, width)
        k = row * width + first
        _dots_of_tile(
            offset(pointer(dy), k), offset(pointer(x), k), offset(pointer(residual), k), rows, width, n, a, z,
            n, kind, offset(dz, row * n), n, offset(pointer(sums), 2 * t * n),
        )  # fmt: skip
    _finish_dots(
        x, start, end, outer * width, 1, channels, inner, weight, mean, rstd, training, sums, first, n,
        dweight, dbias, constants, totals,
    )  # fmt: skip
    for i in range(outer):
        k = i * width + first
        columns_gradient(
            first_of(offset(dz, i * n), offset(pointer(dy), k)), offset(pointer(x), k), n, n, a, training,
            offset(pointer(dx), k), offset(pointer(dresidual), k), stream,
        )  # fmt: skip


@loop
def backward_blocks(
    w, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd, training, dz,
    dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """As `backward`. The blocks are shared out among `workers`, each with room in dz for one of them."""
    blocks = -(-channels // block)
    own = offset(pointer(dz), w * block * outer * inner)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, channels)
        n, tiles = (end - start) * inner, -(-outer // ROWS)
        sums, constants = np.empty((tiles, 2, n), weight.dtype), np.empty((4, n), weight.dtype)
        room = np.empty((3, n), weight.dtype)
        _backward_block(
            dy, x, residual, start, end, outer, channels, inner, weight, bias, kind, mean, rstd, training,
            own, dx, dresidual, dweight, dbias, stream, sums, constants, room, np.empty((2, n)),
        )  # fmt: skip
    if stream:
        fence()
