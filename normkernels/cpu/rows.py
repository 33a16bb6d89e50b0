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
from .fusion import add_residual, first_of, tile_on_stack
from .jit import kernel, loop, primitive
from .parallel import share
from .primitives import (
    TILE,
    centring,
    merged,
    reciprocal_sd,
    tile_moments,
    tile_squares,
)
from .row_primitives import (
    add,
    flush,
    normalize_row,
    row_gradient,
    row_moments,
    row_squares,
    rows_sums,
    zero,
)
from .vectors import as_element, fence, offset, pointer

# Short rows are taken in batches of so many elements, statistics of all of them first: the divisions
# and the square root of one row then overlap with the loads of the next (measured on rows of 128: 67 ns
# to 45 ns). Batches of 4096 elements leave L1 before they are normalized: 10 to 20 % slower.
BATCH = 512

# Rows summed in the input's own precision before float64 takes over.
FLUSH = 128

# Rows are summed in pairs, which halves the loop's own cost for short rows (256: 1.5 times the speed) and the
# traffic of weight, dweight and dbias once they do not stay in L1 (4096: 1.1 times). Between these lengths
# one row at a time is read faster from memory (768: 1.2 times).
SINGLE = 256, 1024


@primitive
def scratch_width(cols, rows):
    """Elements of scratch memory for a block of which so many rows are taken together."""
    return max(rows * cols, BATCH)


@primitive
def batch_rows(cols):
    """How many rows are taken together."""
    return max(1, BATCH // cols)


@loop
def forward(
    b, x, residual, rows, cols, block, weight, bias, part, period, kind, centred, eps, scratch, total, y,
    kept, mean, rstd, var, stream,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias) of `block` rows.

    var, which nobody else needs, may be rstd. They and mean have room for every row where they are kept, else
    for a batch of each block.
    """
    batch = batch_rows(cols)
    end, own = min((b + 1) * block, rows), offset(pointer(scratch), b * scratch_width(cols, 1))
    for first in range(b * block, end, batch):
        last, k = min(first + batch, end), first * cols
        room = 0 if kept else b * batch - first
        m, r, v = offset(pointer(mean), room), offset(pointer(rstd), room), offset(pointer(var), room)
        h = add_residual(
            offset(pointer(x), k), offset(pointer(residual), k), (last - first) * cols, own,
            offset(pointer(total), k), stream,
        )  # fmt: skip
        for i in range(first, last):
            row = offset(h, (i - first) * cols)
            if centred:
                m[i], v[i] = row_moments(row, cols)
            else:
                m[i], v[i] = 0.0, row_squares(row, cols)
        for i in range(first, last):
            v[i] /= cols
            r[i] = reciprocal_sd(v[i], eps)
        for i in range(first, last):
            row, y_row = offset(h, (i - first) * cols), offset(pointer(y), i * cols)
            if not usual(r[i]):
                m[i], v[i], r[i] = statistics_again(
                    row, None, 1, 0, cols, cols, eps, centred, m[i], v[i], r[i]
                )
            k = i % period * cols if period > 1 else 0
            w, bias_row = offset(pointer(weight), k), offset(pointer(bias), k)
            for c in range(0, cols, part):
                n = min(part, cols - c)
                normalize_row(offset(row, c), n, m[i], r[i], w, bias_row, kind, offset(y_row, c), stream)
    if stream:
        fence()


@primitive
def _forward_tile(k, x, residual, tiles, cols, centred, partials, total, stream):
    """Moments of one tile, and its sum with the residual."""
    i, t = k // tiles, k % tiles
    start, n = i * cols + t * TILE, min(TILE, cols - t * TILE)
    x_tile, r_tile = offset(pointer(x), start), offset(pointer(residual), start)
    h = add_residual(x_tile, r_tile, n, tile_on_stack(r_tile), offset(pointer(total), start), stream)
    moments = tile_moments(h, 1, 0, n) if centred else (0.0, 0.0, 0.0, tile_squares(h, n))
    for j in range(4):
        partials[i, t, j] = moments[j]
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
        x_tile, r_tile = offset(pointer(x), start), offset(pointer(residual), start)
        h = add_residual(x_tile, r_tile, n, tile_on_stack(r_tile), None, False)
    else:
        h = offset(pointer(total), start)
    w, b = offset(pointer(weight), k), offset(pointer(bias), k)
    normalize_row(h, n, mean[i], rstd[i], w, b, kind, offset(pointer(y), start), stream)
    if stream:
        fence()


@kernel
def forward_tiles(
    team, x, residual, rows, cols, weight, bias, part, period, kind, centred, eps, partials, total, y,
    mean, rstd, var, stream,
):  # fmt: skip
    """As `forward`; partials: (rows, tiles, 4) in float64."""
    tiles = -(-cols // TILE)
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
def _backward_block(
    b, dy, x, rows, cols, block, weight, bias, part, period, kind, scratch, dsum, centred, mean, rstd,
    dx, scalars, dweight, dbias, partials, stream
):  # fmt: skip
    """dx + dsum of `block` rows, and their sums of dy * x_hat and of dy."""
    step = 1 if SINGLE[0] < cols <= SINGLE[1] or period > 1 else 2
    tile = cols if part == cols else TILE
    width, sums = period * tile, partials.shape[1]
    batch = max(step, batch_rows(cols))
    start, end = b * block, min((b + 1) * block, rows)
    dw, db = offset(pointer(dweight), b * width), offset(pointer(dbias), b * width)
    dw_partial = offset(pointer(partials), b * sums * width)
    db_partial = offset(dw_partial, width)
    zero(dw, width)
    zero(db, width)
    zero(dw_partial, sums * width)
    own = offset(pointer(scratch), b * scratch_width(cols, 2))
    constants = offset(pointer(scalars), b * scalars.shape[1] * 5)
    for chunk in range(start, end, FLUSH):
        stop = min(chunk + FLUSH, end)
        for first in range(chunk, stop, batch):
            last = min(first + batch, stop)
            for i in range(first, last):
                # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
                r = rstd[i] if cols > 1 or not centred else 0.0
                a = offset(constants, 5 * (i - first))
                a[0], a[1], a[2] = centring(offset(pointer(x), i * cols), mean[i], r, 1.0)
            for i in range(first, last, step):
                second, k = step == 2 and i + 1 < last, i % period * cols if period > 1 else 0
                a, c1, c2, c1_b, c2_b = offset(constants, 5 * (i - first)), 0.0, 0.0, 0.0, 0.0
                for c in range(0, cols, tile):
                    dots = rows_sums(
                        offset(pointer(dy), i * cols + c), offset(pointer(x), i * cols + c),
                        min(tile, cols - c), cols * second, a, offset(pointer(weight), k),
                        offset(pointer(bias), k), kind, offset(own, (i - first) * cols + c),
                        offset(dw, k), offset(db, k),
                    )  # fmt: skip
                    c1, c2, c1_b, c2_b = c1 + dots[0], c2 + dots[1], c1_b + dots[2], c2_b + dots[3]
                if not centred:
                    c2 = c2_b = 0.0
                a[3], a[4] = as_element(a, c1 / cols), as_element(a, c2 / cols)
                if second:
                    a[8], a[9] = as_element(a, c1_b / cols), as_element(a, c2_b / cols)
            for i in range(first, last):
                k = i % period * cols if period > 1 else 0
                for c in range(0, cols, part):
                    j = i * cols + c
                    dz = first_of(offset(own, (i - first) * cols + c), offset(pointer(dy), j))
                    row_gradient(
                        dz, offset(pointer(x), j), min(part, cols - c),
                        offset(constants, 5 * (i - first)), offset(pointer(weight), k),
                        offset(pointer(dsum), j), offset(pointer(dx), j), stream,
                    )  # fmt: skip
        flush(dw, dw_partial, width)
        flush(db, db_partial, width)
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, rows, cols, block, weight, bias, part, period, kind, scratch, dsum, centred, mean, rstd, dx,
    scalars, dweight, dbias, partials, stream,
):  # fmt: skip
    """dx + dsum, and the sums of dy * x_hat and of dy over all rows, in one sweep.

    scalars: (blocks, 3 or more, 5) for hi, lo, rstd, c1, c2 of the rows of a batch and of one more. dweight,
    dbias (which may be None): (blocks, period, cols), of at most FLUSH rows at a time, all in the dtype of x.
    partials: (blocks, 2, period, cols) in float64, or 1 without dbias; the first receives the result. Where
    weight and bias go with only a part of a row, so do their gradients, which nobody asked for, with a tile.
    """
    width, sums = period * (cols if part == cols else TILE), partials.shape[1]
    share(
        team, -(-rows // block), _backward_block, dy, x, rows, cols, block, weight, bias, part,
        period, kind, scratch, dsum, centred, mean, rstd, dx, scalars, dweight, dbias, partials,
        stream,
    )  # fmt: skip
    for b in range(1, len(partials)):
        add(pointer(partials), offset(pointer(partials), b * sums * width), sums * width)


@primitive
def _sums_tile(t, dy, x, rows, cols, weight, bias, whole, kind, scratch, scalars, dweight, dbias, partials):
    c, n = t * TILE, min(TILE, cols - t * TILE)
    w, b = offset(pointer(weight), c * whole), offset(pointer(bias), c * whole)
    dw, db = tile_on_stack(pointer(dweight)), tile_on_stack(pointer(dbias))
    if whole:
        dw, db = offset(pointer(dweight), c), offset(pointer(dbias), c)
    zero(dw, n)
    zero(db, n)
    for i in range(rows):
        dy_part, part = offset(pointer(dy), i * cols + c), offset(pointer(x), i * cols + c)
        a = offset(pointer(scalars), 5 * i)
        dz = offset(pointer(scratch), i * cols + c)
        dots = rows_sums(dy_part, part, n, 0, a, w, b, kind, dz, dw, db)
        partials[t, i, 0], partials[t, i, 1] = dots[0], dots[1]


@primitive
def _gradient_tile(t, dy, x, rows, cols, weight, whole, scratch, dsum, dx, scalars, stream):
    c, n = t * TILE, min(TILE, cols - t * TILE)
    for i in range(rows):
        k = i * cols + c
        dz = first_of(offset(pointer(scratch), k), offset(pointer(dy), k))
        row_gradient(
            dz, offset(pointer(x), k), n, offset(pointer(scalars), 5 * i),
            offset(pointer(weight), c * whole),
            offset(pointer(dsum), k), offset(pointer(dx), k), stream,
        )  # fmt: skip
    if stream:
        fence()


@kernel
def backward_tiles(
    team, dy, x, rows, cols, weight, bias, part, kind, scratch, dsum, centred, mean, rstd, dx, scalars,
    dweight, dbias, partials, stream,
):  # fmt: skip
    """As `backward` with a period of 1; dweight, dbias: (cols,) in the dtype of x, the result, if asked for.

    scalars: (rows + 1, 5). partials: (tiles, rows, 2) in float64. scratch: as large as x.
    """
    for i in range(rows):
        scalars[i, 0], scalars[i, 1], scalars[i, 2] = centring(pointer(x), mean[i], rstd[i], 1.0)
    tiles, whole = -(-cols // TILE), part == cols
    share(
        team, tiles, _sums_tile, dy, x, rows, cols, weight, bias, whole, kind, scratch, scalars,
        dweight, dbias, partials,
    )  # fmt: skip
    for i in range(rows):
        c1 = c2 = 0.0
        for t in range(tiles):
            c1 += partials[t, i, 0]
            c2 += partials[t, i, 1]
        scalars[i, 3], scalars[i, 4] = c1 / cols, c2 / cols if centred else 0.0
    share(team, tiles, _gradient_tile, dy, x, rows, cols, weight, whole, scratch, dsum, dx, scalars, stream)
