"""Kernels over an array seen as (rows, cols): statistics per row, weight and bias per element.

weight and bias have `period` rows: row i takes the row i % period of them. Where both are absent, `part` ones
and zeros, which may be fewer than cols, serve all of a row. Not centred: the mean is taken to be 0, which
makes layer norm RMS norm; such a norm may have None for a bias.

Fused are, where they are not None: `residual`, which is added to x before the norm (`total` receives
the sum), and the activation `kind` that follows; in the backward the activation, and `dsum`, which
is added to dx. What lies between is kept for a batch of rows: the sum in the dtype of x in `h`, the
gradient before the activation in that of the arithmetic in `dz`.

`forward` and `backward` share out blocks of rows. A few very long rows are shared out in tiles, by
`forward_tiles` and `backward_tiles`, and read twice; a row has the same bits either way.

Kernels take tuples: arrays those of `Forward` or `Row`, affine those of `Affine` or `AffineSums`, norm that
of `Norm`, statistics those of `Statistics`.
"""

from typing import NamedTuple

import numpy as np

from .extremes import Group, statistics_of
from .fusion import add_residual, first_of, tile_on_stack, where_absent, where_given
from .jit import kernel, loop, primitive
from .narrow_rows import are_narrow, gradient_of_narrow, normalize_narrow
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import centring, flush, merged, zero
from .row_primitives import (
    Affine,
    AffineSums,
    Forward,
    Norm,
    Row,
    Statistics,
    add_up,
    batch_statistics,
    normalize_row,
    normalize_rows,
    row_at,
    row_gradient,
    rows_gradient,
    tile_dots,
    tile_of_row,
)
from .tuning import BATCH, PAIRED, ROWS_SUMMED, TILE


@primitive
def scratch_width(cols):
    """Elements of scratch memory for a batch of rows."""
    return max(cols, BATCH)


@primitive
def batch_rows(cols):
    """How many rows are taken together."""
    return max(1, BATCH // cols)


@primitive
def gradient_room(cols):
    """Elements of scratch memory for the rows whose gradients are taken together."""
    return 2 * cols if cols <= PAIRED else cols


@loop
def forward(b, arrays, affine, norm, eps, kept, statistics):
    """y = act((x + residual - mean) * rstd * weight + bias).

    statistics: the first `kept` of mean, rstd and var, rows of them, in float64.
    """
    arrays, affine, norm = Forward(*arrays), Affine(*affine), Norm(*norm)
    rows, cols, batch = norm.rows, norm.cols, batch_rows(norm.cols)
    end, room = min((b + 1) * norm.block, rows), tile_on_stack(statistics)
    own = offset(arrays.h, b * scratch_width(cols))
    for first in range(b * norm.block, end, batch):
        count, to = min(batch, end - first), offset(arrays, first * cols)
        found, var = Statistics(room, offset(room, batch)), offset(room, 2 * batch)
        if kept >= 2:
            found = Statistics(offset(statistics, first), offset(statistics, rows + first))
        if kept == 3:
            var = offset(statistics, 2 * rows + first)
        h = add_residual(to.x, to.residual, count * cols, own, to.total, to.stream)
        if are_narrow(norm):
            normalize_narrow(h, to.y, count, norm, eps, found, var, affine)
            continue
        batch_statistics(h, count, cols, eps, norm.centred, found, var)
        for c in range(0, cols, norm.part):
            n = min(norm.part, cols - c)
            normalize_rows(
                offset(h, c), offset(to, c), count, n, first % norm.period, norm.period, found, affine
            )
    if arrays.stream:
        fence()


@primitive
def _tile(p, cols):
    """Row, first element in it, and number of elements of tile p."""
    tiles = -(-cols // TILE)
    c = p % tiles * TILE
    return p // tiles, c, min(TILE, cols - c)


@primitive
def _moments_of_tile(p, arrays, norm, moments):
    """Moments of one tile, and its sum with the residual."""
    i, c, n = _tile(p, norm.cols)
    tile, own = offset(arrays, i * norm.cols + c), offset(moments, 4 * p)
    h = add_residual(tile.x, tile.residual, n, tile_on_stack(tile.residual), tile.total, tile.stream)
    own[0], own[1], own[2], own[3] = tile_of_row(h, n, norm.centred)
    if tile.stream:
        fence()


@primitive
def _summands(arrays):
    """x and residual; their sum, which may lie in the place of either, and None where it has been kept."""
    return first_of(arrays.total, arrays.x), where_absent(arrays.residual, arrays.total)


@primitive
def _normalize_tile(p, arrays, norm, affine, moments):
    i, c, n = _tile(p, norm.cols)
    tile, own = offset(arrays, i * norm.cols + c), offset(moments, 4 * (p - c // TILE))
    x, residual = _summands(tile)
    h = add_residual(x, residual, n, tile_on_stack(residual), None, None)
    j = i % norm.period * norm.cols + c if norm.part == norm.cols else 0
    normalize_row(h, n, centring(h, own[0], own[1], 1.0), offset(affine, j), tile.y, tile.stream, n)
    if tile.stream:
        fence()


@kernel
def forward_tiles(team, arrays, affine, norm, eps, kept, statistics):
    """As `forward`; of the moments of tiles the first of a row become its mean, rstd and var."""
    arrays, norm = Forward(*arrays), Norm(*norm)
    tiles = -(-norm.cols // TILE)
    moments = np.empty((norm.rows, tiles, 4))
    share(team, norm.rows * tiles, _moments_of_tile, arrays, norm, moments)
    for i in range(norm.rows):
        own = offset(pointer(moments), 4 * tiles * i)
        mean, m2 = merged(own, tiles)
        x, residual = _summands(offset(pointer(arrays), i * norm.cols))
        row = Group(x, residual, 1, 0, norm.cols)
        own[0], own[2], own[1] = statistics_of(row, norm.cols, eps, norm.centred, mean, m2 / norm.cols)
        for k in range(kept):
            statistics[k, i] = own[k]
    share(team, norm.rows * tiles, _normalize_tile, arrays, norm, Affine(*affine), moments)


class Room(NamedTuple):
    """Where `backward` sums dy * x_hat and dy: `size` elements for each block, of `width` for either sum."""

    sums: object
    partials: object
    width: int
    size: int


@primitive
def _backward_block(b, arrays, affine, norm, statistics, room):
    """dx + dsum of a block of rows, and the sums of dy * x_hat and of dy."""
    sums, partials = offset(room.sums, b * room.size), offset(room.partials, b * room.size)
    dbias, cols = where_given(offset(sums, room.width), affine.dbias), norm.cols
    affine = AffineSums(affine.weight, affine.bias, affine.kind, sums, dbias)
    zero(sums, room.size)
    zero(partials, room.size)
    end, dz = min((b + 1) * norm.block, norm.rows), offset(arrays.dz, b * gradient_room(cols))
    for first in range(b * norm.block, end, ROWS_SUMMED):
        last = min(first + ROWS_SUMMED, end)
        own, rows = offset(statistics, first), row_at(arrays, first * cols, dz)
        if are_narrow(norm):
            gradient_of_narrow(rows, last - first, norm, own, affine)
        else:
            rows_gradient(rows, last - first, first % norm.period, norm, own, affine)
        flush(sums, partials, room.size)
    if arrays.stream:
        fence()


@kernel
def backward(team, arrays, affine, norm, statistics, sums, partials):
    """dx + dsum, and dweight and dbias, the sums of dy * x_hat and of dy over all rows, in one sweep.

    dz: (blocks, gradient_room(cols)). sums: (blocks, 2, period * cols) of at most ROWS_SUMMED rows at a time,
    in the dtype of the arithmetic; partials: as sums, in float64. Without a dbias there is one sum. Where
    weight and bias go with only a part of a row, so do the sums, which nobody asked for, with a tile.
    """
    affine, norm = AffineSums(*affine), Norm(*norm)
    room = Room(sums, partials, sums.shape[2], sums.shape[1] * sums.shape[2])
    statistics = Statistics(*statistics)
    share(team, len(sums), _backward_block, Row(*arrays), affine, norm, statistics, room)
    add_up(partials, affine.dweight, affine.dbias)


@primitive
def _sums_of_tile(t, arrays, affine, norm, statistics, dots):
    _, c, n = _tile(t, norm.cols)
    whole = norm.part == norm.cols
    dweight, dbias = tile_on_stack(affine.dweight), tile_on_stack(affine.dbias)
    affine = offset(affine, c * whole)
    if whole:
        dweight, dbias = affine.dweight, affine.dbias
    affine = AffineSums(affine.weight, affine.bias, affine.kind, dweight, dbias)
    zero(dweight, n)
    zero(dbias, n)
    for i in range(norm.rows):
        row, own = offset(arrays, i * norm.cols + c), offset(dots, 2 * (t * norm.rows + i))
        own[0], own[1] = tile_dots(
            row, n, centring(row.x, statistics.mean[i], statistics.rstd[i], 1.0), affine
        )


@primitive
def _gradient_of_tile(t, arrays, affine, norm, statistics, means):
    _, c, n = _tile(t, norm.cols)
    affine = offset(affine, c * (norm.part == norm.cols))
    for i in range(norm.rows):
        row = offset(arrays, i * norm.cols + c)
        centre = centring(row.x, statistics.mean[i], statistics.rstd[i], 1.0)
        row_gradient(row, n, centre, means[2 * i], means[2 * i + 1], affine)
    if arrays.stream:
        fence()


@kernel
def backward_tiles(team, arrays, affine, norm, statistics):
    """As `backward` with a period of 1; dweight, dbias: (cols,) in the dtype of x, the result, if asked for.

    Of the dots of tiles the first receive the means of x_hat * wdy and of wdy of each row. dz: as large as x.
    """
    arrays, affine, norm, statistics = Row(*arrays), AffineSums(*affine), Norm(*norm), Statistics(*statistics)
    tiles = -(-norm.cols // TILE)
    dots = np.empty((tiles, norm.rows, 2))
    share(team, tiles, _sums_of_tile, arrays, affine, norm, statistics, dots)
    for i in range(norm.rows):
        c1 = c2 = 0.0
        for t in range(tiles):
            c1 += dots[t, i, 0]
            c2 += dots[t, i, 1]
        dots[0, i, 0] = c1 * (1.0 / norm.cols)
        dots[0, i, 1] = c2 * (1.0 / norm.cols) if norm.centred else 0.0
    share(team, tiles, _gradient_of_tile, arrays, affine, norm, statistics, dots)
