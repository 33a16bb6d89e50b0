"""Kernels over an array seen as (rows, cols): statistics per row, weight and bias per element.

weight and bias have `period` rows: row i takes the row i % period of them. Where both are absent, `part` ones
and zeros, which may be fewer than cols, serve all of a row. Not centred: the mean is taken to be 0, which
makes layer norm RMS norm; such a norm may have None for a bias.

Fused are, where they are not None: `residual`, which is added to x before the norm (`total` receives
the sum), and the activation `kind` that follows; in the backward the activation, and `dsum`, which
is added to dx. What lies between is kept for a batch of rows in `scratch`: the sum in the dtype of x, the
gradient before the activation in that of the arithmetic.

`forward` and `backward` share out blocks of rows. A few very long rows are shared out in tiles, by
`forward_tiles` and `backward_tiles`, and read twice; a row has the same bits either way.
"""

from .extremes import statistics_again, usual
from .fusion import add_residual, copy_run, first_of, tile_on_stack, where_given
from .jit import kernel, loop, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import add, centring, flush, merged, reciprocal_sd, tile_moments, tile_squares, zero
from .row_primitives import (
    batch_statistics,
    normalize_row,
    normalize_rows,
    row_gradient,
    rows_gradient,
    tile_dots,
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
def forward(
    b, x, residual, rows, cols, block, weight, bias, part, period, kind, centred, eps, scratch, total, y,
    kept, statistics, stream,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias) of `block` rows.

    statistics: the first `kept` of mean, rstd and var, rows of them, in float64.
    """
    batch, own_statistics = batch_rows(cols), tile_on_stack(statistics)
    end, own = min((b + 1) * block, rows), offset(scratch, b * scratch_width(cols))
    for first in range(b * block, end, batch):
        last, k = min(first + batch, end), first * cols
        m, r, v = own_statistics, offset(own_statistics, batch), offset(own_statistics, 2 * batch)
        if kept >= 2:
            m = offset(statistics, first)
            r = offset(m, rows)
        if kept == 3:
            v = offset(r, rows)
        h = add_residual(
            offset(x, k), offset(residual, k), (last - first) * cols, own,
            offset(total, k), stream,
        )  # fmt: skip
        batch_statistics(h, last - first, cols, eps, centred, m, v, r)
        for c in range(0, cols, part):
            normalize_rows(
                offset(h, c), last - first, min(part, cols - c), first % period, period, m, r,
                weight, bias, kind, offset(y, k + c), stream,
            )  # fmt: skip
    if stream:
        fence()


@primitive
def _forward_tile(k, x, residual, tiles, cols, centred, partials, total, stream):
    """Moments of one tile, and its sum with the residual."""
    i, t = k // tiles, k % tiles
    start, n = i * cols + t * TILE, min(TILE, cols - t * TILE)
    x_tile, r_tile = offset(x, start), offset(residual, start)
    h = add_residual(x_tile, r_tile, n, tile_on_stack(r_tile), offset(total, start), stream)
    own = offset(partials, 4 * k)
    own[0], own[1], own[2], own[3] = (
        tile_moments(h, 1, 0, n) if centred else (0.0, 0.0, 0.0, tile_squares(h, n))
    )
    if stream:
        fence()


@primitive
def _normalize_tile(
    p, x, residual, tiles, cols, weight, bias, part, period, kind, total, y, mean, rstd, stream
):  # fmt: skip
    i, c = p // tiles, p % tiles * TILE
    start, n = i * cols + c, min(TILE, cols - c)
    k = i % period * cols + c if part == cols else 0
    if total is None:
        x_tile, r_tile = offset(x, start), offset(residual, start)
        h = add_residual(x_tile, r_tile, n, tile_on_stack(r_tile), None, None)
    else:
        h = offset(total, start)
    w, b = offset(weight, k), offset(bias, k)
    centre = centring(h, mean[i], rstd[i], 1.0)
    normalize_row(h, n, centre, w, b, kind, offset(y, start), stream, n)
    if stream:
        fence()


@kernel
def forward_tiles(
    team, x, residual, rows, cols, weight, bias, part, period, kind, centred, eps, partials, total, y,
    statistics, stream,
):  # fmt: skip
    """As `forward`; statistics: (3, rows); partials: (rows, tiles, 4) in float64."""
    tiles, mean, rstd, var = -(-cols // TILE), statistics[0], statistics[1], statistics[2]
    share(team, rows * tiles, _forward_tile, x, residual, tiles, cols, centred, partials, total, stream)
    for i in range(rows):
        if centred:
            mean[i], m2 = merged(offset(pointer(partials), 4 * tiles * i), tiles)
        else:
            mean[i] = m2 = 0.0
            for t in range(tiles):
                m2 += partials[i, t, 3]
        var[i] = m2 / cols
        rstd[i] = reciprocal_sd(var[i], eps)
        if not usual(rstd[i]):
            if total is None:
                mean[i], var[i], rstd[i] = statistics_again(
                    offset(pointer(x), i * cols), offset(pointer(residual), i * cols), 1, 0, cols, cols, eps,
                    centred, mean[i], var[i], rstd[i],
                )  # fmt: skip
            else:  # which may be x or residual, and has their sum by now
                mean[i], var[i], rstd[i] = statistics_again(
                    offset(pointer(total), i * cols), None, 1, 0, cols, cols, eps, centred, mean[i], var[i],
                    rstd[i],
                )  # fmt: skip
    share(
        team, rows * tiles, _normalize_tile, x, residual, tiles, cols, weight, bias, part, period,
        kind, total, y, mean, rstd, stream,
    )  # fmt: skip


@primitive
def _gradient_of_long_row(
    dy, x, cols, part, centred, mean, rstd, weight, bias, kind, dz, dsum, dx, dweight, dbias, stream
):  # fmt: skip
    """As `rows_gradient`, of a row of several tiles, of which a `part` has parameters, or all."""
    centre, whole, c1, c2 = centring(x, mean, rstd, 1.0), part == cols, 0.0, 0.0
    for c in range(0, cols, TILE):
        j = c if whole else 0
        dots = tile_dots(
            offset(dy, c), offset(x, c), min(TILE, cols - c), centre, offset(weight, j), offset(bias, j),
            kind, offset(dz, c), offset(dweight, j), offset(dbias, j),
        )  # fmt: skip
        c1, c2 = c1 + dots[0], c2 + dots[1]
    c1, c2 = c1 * (1.0 / cols), c2 * (1.0 / cols) if centred else 0.0
    for c in range(0, cols, part):
        row_gradient(
            first_of(offset(dz, c), offset(dy, c)), offset(x, c), min(part, cols - c), centre, c1, c2, weight,
            offset(dsum, c), offset(dx, c), stream,
        )  # fmt: skip


@primitive
def _backward_block(
    b, dy, x, rows, cols, block, weight, bias, part, period, kind, scratch, dsum, centred, mean, rstd,
    dx, sums, partials, count, width, dbias, stream
):  # fmt: skip
    """dx + dsum of `block` rows, and `count` sums of `width` elements: of dy * x_hat and of dy."""
    dw, partial = offset(sums, b * count * width), offset(partials, b * count * width)
    db = where_given(offset(dw, width), dbias)
    zero(dw, count * width)
    zero(partial, count * width)
    start, end, own = b * block, min((b + 1) * block, rows), offset(scratch, b * gradient_room(cols))
    for first in range(start, end, ROWS_SUMMED):
        last, k = min(first + ROWS_SUMMED, end), first * cols
        if cols <= TILE:
            rows_gradient(
                offset(dy, k), offset(x, k), last - first, cols, first % period, period,
                centred, offset(mean, first), offset(rstd, first), weight,
                bias, kind, own, offset(dsum, k), offset(dx, k), dw, db, stream,
            )  # fmt: skip
        else:
            for i in range(first, last):
                k, j = i * cols, i % period * cols
                _gradient_of_long_row(
                    offset(dy, k), offset(x, k), cols, part, centred, mean[i], rstd[i],
                    offset(weight, j), offset(bias, j), kind, own,
                    offset(dsum, k), offset(dx, k), offset(dw, j), offset(db, j), stream,
                )  # fmt: skip
        flush(dw, partial, count * width)
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, rows, cols, block, weight, bias, part, period, kind, scratch, dsum, centred, mean, rstd, dx,
    sums, partials, dweight, dbias, stream,
):  # fmt: skip
    """dx + dsum, and dweight and dbias, the sums of dy * x_hat and of dy over all rows, in one sweep.

    scratch: (blocks, room). sums: (blocks, 2, period * cols) of at most ROWS_SUMMED rows at a time, in the
    dtype of the arithmetic; partials: as sums, in float64. Without a dbias there is one sum. Where weight and
    bias go with only a part of a row, so do the sums, which nobody asked for, with a tile.
    """
    count, width, total = sums.shape[1], sums.shape[2], pointer(partials)
    share(
        team, -(-rows // block), _backward_block, dy, x, rows, cols, block, weight, bias, part,
        period, kind, scratch, dsum, centred, mean, rstd, dx, sums, partials, count, width, dbias, stream,
    )  # fmt: skip
    for b in range(1, len(partials)):
        add(total, offset(total, b * count * width), count * width)
    copy_run(total, width, pointer(dweight), None)
    if dbias is not None:
        copy_run(offset(total, width), width, pointer(dbias), None)


@primitive
def _sums_tile(
    t, dy, x, rows, cols, weight, bias, whole, kind, scratch, mean, rstd, dweight, dbias, partials
):
    c, n = t * TILE, min(TILE, cols - t * TILE)
    w, b = offset(weight, c * whole), offset(bias, c * whole)
    dw, db = tile_on_stack(dweight), tile_on_stack(dbias)
    if whole:
        dw, db = offset(dweight, c), offset(dbias, c)
    zero(dw, n)
    zero(db, n)
    for i in range(rows):
        dy_part, part = offset(dy, i * cols + c), offset(x, i * cols + c)
        centre = centring(part, mean[i], rstd[i], 1.0)
        dz = offset(scratch, i * cols + c)
        own = offset(partials, 2 * (t * rows + i))
        own[0], own[1] = tile_dots(dy_part, part, n, centre, w, b, kind, dz, dw, db)


@primitive
def _gradient_tile(
    t, dy, x, rows, cols, weight, whole, scratch, dsum, mean, rstd, partials, dx, stream
):  # fmt: skip
    c, n = t * TILE, min(TILE, cols - t * TILE)
    for i in range(rows):
        k = i * cols + c
        dz = first_of(offset(scratch, k), offset(dy, k))
        row_gradient(
            dz, offset(x, k), n, centring(x, mean[i], rstd[i], 1.0), partials[2 * i],
            partials[2 * i + 1], offset(weight, c * whole), offset(dsum, k),
            offset(dx, k), stream,
        )  # fmt: skip
    if stream:
        fence()


@kernel
def backward_tiles(
    team, dy, x, rows, cols, weight, bias, part, kind, scratch, dsum, centred, mean, rstd, dx, dweight, dbias,
    partials, stream,
):  # fmt: skip
    """As `backward` with a period of 1; dweight, dbias: (cols,) in the dtype of x, the result, if asked for.

    partials: (tiles, rows, 2) in float64; the first receives the means of x_hat * wdy and of wdy of each row.
    scratch: as large as x.
    """
    tiles, whole = -(-cols // TILE), part == cols
    share(
        team, tiles, _sums_tile, dy, x, rows, cols, weight, bias, whole, kind, scratch, mean, rstd, dweight,
        dbias, partials,
    )  # fmt: skip
    for i in range(rows):
        c1 = c2 = 0.0
        for t in range(tiles):
            c1 += partials[t, i, 0]
            c2 += partials[t, i, 1]
        partials[0, i, 0], partials[0, i, 1] = c1 * (1.0 / cols), c2 * (1.0 / cols) if centred else 0.0
    share(
        team, tiles, _gradient_tile, dy, x, rows, cols, weight, whole, scratch, dsum, mean, rstd,
        partials, dx, stream,
    )  # fmt: skip
