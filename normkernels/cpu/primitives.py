"""What the row and channel kernels are made of: moments, dots, and the equations on vectors.

All take pointers. A *run* is `n` contiguous elements; a *group* is `outer` runs that lie `stride`
elements apart and share their statistics. A row is a group of one run.
"""

import numpy as np

from .. import _formulas
from .jit import primitive
from .vectors import (
    as_element,
    elements_to_cache_line,
    fma,
    lanes,
    largest,
    load,
    load_part,
    offset,
    store,
    store_part,
    store_part_streaming,
    store_streaming,
    total,
    zeros,
)

# Elements summed in the input's own precision before float64 takes over; 16 KB of float32 stay in L1
# for a second pass. The order of summation depends on it: changing it changes the last bits.
TILE = 4096

# Outside this range a sum of squares of a tile may have lost terms to under- or overflow.
# s²/(q n) = d²/(d² + var) for a pivot d from the mean: beyond two standard deviations it is poor.
FAR = 0.8

SMALL, LARGE = 1e-25, 1e35
RESCALE = 2.0**96

merge = primitive(_formulas.merge)
reciprocal_sd = primitive(_formulas.reciprocal_sd)


@primitive
def _centred_sums(x, outer, stride, n, pivot, scale):
    """Sum and sum of squares of d = (x - pivot) * scale over a group."""
    s = zeros(x)
    q = zeros(x)
    whole = n - n % lanes(x)
    for g in range(outer):
        run = offset(x, g * stride)
        for i in range(0, whole, lanes(x)):
            d = (load(run, i) - pivot) * scale
            s = s + d
            q = fma(d, d, q)
        if whole < n:
            d = (load_part(run, whole, n - whole, pivot) - pivot) * scale
            s = s + d
            q = fma(d, d, q)
    return np.float64(total(s)), np.float64(total(q))


@primitive
def _pivot(x, n):
    """About the mean of the first elements; exactly x[0] where they are all equal."""
    first = x[0]
    quarter = as_element(x, 0.25)
    pivot = first
    for i in range(1, 4):
        pivot += (x[min(i, n - 1)] - first) * quarter
    return pivot


@primitive
def far_or_out_of_range(s, q, count):
    """Whether the sums about a pivot have lost digits to a poor pivot or to the range of the dtype."""
    return not (s * s <= FAR * q * count and SMALL < q < LARGE)


@primitive
def _tile_moments(x, outer, stride, n):
    """pivot, mean - pivot, m2 of a tile: one pass about a mean of its first elements.

    The sum about the pivot corrects both mean and m2. Where the pivot was poor (further than one
    standard deviation from the mean, or a square left the range) a second pass takes a better one.
    """
    count = np.float64(outer * n)
    inverse = 1.0 / count
    one = as_element(x, 1.0)
    pivot = _pivot(x, n)
    s, q = _centred_sums(x, outer, stride, n, pivot, one)
    unscale = 1.0
    if far_or_out_of_range(s, q, count):
        scale = one
        if not q < LARGE:
            scale = as_element(x, 1.0 / RESCALE)
        elif q <= SMALL:
            scale = as_element(x, RESCALE)
        s, q = _centred_sums(x, outer, stride, n, pivot, scale)
        pivot = as_element(x, pivot + s / scale / count)
        s, q = _centred_sums(x, outer, stride, n, pivot, scale)
        unscale = 1.0 / np.float64(scale)
    mean = s * inverse
    return np.float64(pivot), mean * unscale, (q - s * mean) * unscale * unscale


@primitive
def tile_count(outer, n):
    """How many tiles a group has: runs are cut into tiles, or several short runs make one."""
    return -(-outer // max(1, TILE // n)) * -(-n // TILE)


@primitive
def tile_bounds(t, outer, n):
    """First run, number of runs, first element, number of elements of tile t."""
    per_run = -(-n // TILE)
    runs = max(1, TILE // n)
    run, start = t // per_run * runs, t % per_run * TILE
    return run, min(runs, outer - run), start, min(TILE, n - start)


@primitive
def tile_moments(x, t, outer, stride, n):
    """count, pivot, mean - pivot, m2 of tile t of a group."""
    run, runs, start, length = tile_bounds(t, outer, n)
    pivot, mean, m2 = _tile_moments(offset(x, run * stride + start), runs, stride, length)
    return np.float64(runs * length), pivot, mean, m2


@primitive
def merged(tiles):
    """mean and m2 of a group from the rows (count, pivot, mean - pivot, m2) of its tiles.

    Between tiles the mean is kept relative to the first pivot: at mean/sd = 1e8 a float64 mean
    is good to 1e-8 sd only, which would show in m2.
    """
    count, origin, mean, m2 = tiles[0]
    for t in range(1, len(tiles)):
        count_t, pivot, mean_t, m2_t = tiles[t]
        mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
        count += count_t
    return origin + mean, m2


@primitive
def group_moments(x, outer, stride, n):
    """mean and m2 of a group: its tiles merged in their order."""
    count, origin, mean, m2 = tile_moments(x, 0, outer, stride, n)
    for t in range(1, tile_count(outer, n)):
        count_t, pivot, mean_t, m2_t = tile_moments(x, t, outer, stride, n)
        mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
        count += count_t
    return origin + mean, m2


@primitive
def split(x, mean):
    """mean as hi + lo in the dtype of x, so that (x - hi) - lo loses nothing to the rounding of mean."""
    hi = as_element(x, mean)
    return hi, as_element(x, mean - np.float64(hi))


@primitive
def as_scale(x, value):
    """A factor in the dtype of x; one beyond its range stays finite, so that 0 * factor = 0."""
    return as_element(x, min(max(value, -largest(x)), largest(x)) if value == value else value)


@primitive
def streamed_head(y, n, stream):
    """How many elements come before the first cache line that can be streamed."""
    return min(n, elements_to_cache_line(y)) if stream else 0


@primitive
def put(y, i, value, stream):
    if stream:
        store_streaming(y, i, value)
    else:
        store(y, i, value)


@primitive
def put_part(y, i, n, value, stream):
    if stream:
        store_part_streaming(y, i, n, value)
    else:
        store_part(y, i, n, value)


@primitive
def _affine_part(x, i, n, hi, lo, rstd, weight, bias, y, stream):
    x_hat = ((load_part(x, i, n, hi) - hi) - lo) * rstd
    put_part(y, i, n, fma(x_hat, load_part(weight, i, n, rstd), load_part(bias, i, n, rstd)), stream)


@primitive
def normalize_row(x, n, mean, rstd, weight, bias, y, stream):
    """y = (x - mean) * rstd * weight + bias, weight and bias of n elements"""
    hi, lo = split(x, mean)
    rstd = as_scale(x, rstd)
    i = streamed_head(y, n, stream)
    if i > 0:
        _affine_part(x, 0, i, hi, lo, rstd, weight, bias, y, stream)
    while i + lanes(x) <= n:
        x_hat = ((load(x, i) - hi) - lo) * rstd
        put(y, i, fma(x_hat, load(weight, i), load(bias, i)), stream)
        i += lanes(x)
    if i < n:
        _affine_part(x, i, n - i, hi, lo, rstd, weight, bias, y, stream)


@primitive
def normalize_run(x, n, hi, lo, scale, shift, y, stream):
    """y = (x - mean) * scale + shift, all scalars of the dtype of x"""
    i = streamed_head(y, n, stream)
    if i > 0:
        put_part(y, 0, i, fma((load_part(x, 0, i, hi) - hi) - lo, scale, shift), stream)
    while i + lanes(x) <= n:
        put(y, i, fma((load(x, i) - hi) - lo, scale, shift), stream)
        i += lanes(x)
    if i < n:
        put_part(y, i, n - i, fma((load_part(x, i, n - i, hi) - hi) - lo, scale, shift), stream)


@primitive
def _tile_row_dots(dy, x, n, hi, lo, rstd, weight):
    """Sums of x_hat * wdy and of wdy."""
    s = zeros(x)
    q = zeros(x)
    whole = n - n % lanes(x)
    for i in range(0, whole, lanes(x)):
        wdy = load(weight, i) * load(dy, i)
        s = s + wdy
        q = fma(((load(x, i) - hi) - lo) * rstd, wdy, q)
    if whole < n:
        rest = n - whole
        wdy = load_part(weight, whole, rest, lo) * load_part(dy, whole, rest, as_element(x, 0.0))
        s = s + wdy
        q = fma(((load_part(x, whole, rest, hi) - hi) - lo) * rstd, wdy, q)
    return np.float64(total(q)), np.float64(total(s))


@primitive
def row_dots(dy, x, n, mean, rstd, weight):
    """c1 = mean(x_hat * wdy), c2 = mean(wdy)"""
    hi, lo = split(x, mean)
    inverse = 1.0 / n
    c1 = c2 = 0.0
    for t in range(0, n, TILE):
        row, dy_row, w = offset(x, t), offset(dy, t), offset(weight, t)
        q, s = _tile_row_dots(dy_row, row, min(TILE, n - t), hi, lo, as_scale(x, rstd), w)
        c1 += q
        c2 += s
    return c1 * inverse, c2 * inverse


@primitive
def _row_gradient(x_hat, dy, weight, c1, c2, rstd):
    """dx = (wdy - x_hat * c1 - c2) * rstd"""
    return fma(x_hat, c1 * -1, weight * dy - c2) * rstd


@primitive
def _rows_gradient_part(dy, x, rows, cols, i, n, scalars, weight, dx, dweight, dbias, stream):
    w, dw, db = load_part(weight, i, n, x[0]), load_part(dweight, i, n, x[0]), load_part(dbias, i, n, x[0])
    for r in range(rows):
        k = r * cols + i
        s = offset(scalars, 5 * r)
        x_hat = ((load_part(x, k, n, s[0]) - s[0]) - s[1]) * s[2]
        g = load_part(dy, k, n, s[0])
        put_part(dx, k, n, _row_gradient(x_hat, g, w, s[3], s[4], s[2]), stream)
        dw = fma(x_hat, g, dw)
        db = db + g
    store_part(dweight, i, n, dw)
    store_part(dbias, i, n, db)


@primitive
def rows_gradient(dy, x, rows, cols, scalars, weight, dx, dweight, dbias, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd, dweight += dy * x_hat, dbias += dy over a few rows.

    Column by column, so that weight, dweight and dbias are loaded once for all the rows.
    scalars: (rows, 5) of hi, lo, rstd, c1, c2.
    """
    i = streamed_head(dx, cols, stream)
    if i > 0:
        _rows_gradient_part(dy, x, rows, cols, 0, i, scalars, weight, dx, dweight, dbias, stream)
    while i + lanes(x) <= cols:
        w, dw, db = load(weight, i), load(dweight, i), load(dbias, i)
        for r in range(rows):
            k = r * cols + i
            s = offset(scalars, 5 * r)
            x_hat = ((load(x, k) - s[0]) - s[1]) * s[2]
            g = load(dy, k)
            put(dx, k, _row_gradient(x_hat, g, w, s[3], s[4], s[2]), stream)
            dw = fma(x_hat, g, dw)
            db = db + g
        store(dweight, i, dw)
        store(dbias, i, db)
        i += lanes(x)
    if i < cols:
        _rows_gradient_part(dy, x, rows, cols, i, cols - i, scalars, weight, dx, dweight, dbias, stream)


@primitive
def _tile_dots(dy, x, outer, stride, n, hi, lo):
    """Sums of dy * (x - mean) and of dy."""
    s = zeros(x)
    q = zeros(x)
    zero = as_element(x, 0.0)
    whole = n - n % lanes(x)
    for g in range(outer):
        run, dy_run = offset(x, g * stride), offset(dy, g * stride)
        for i in range(0, whole, lanes(x)):
            d = load(dy_run, i)
            s = s + d
            q = fma((load(run, i) - hi) - lo, d, q)
        if whole < n:
            d = load_part(dy_run, whole, n - whole, zero)
            s = s + d
            q = fma((load_part(run, whole, n - whole, hi) - hi) - lo, d, q)
    return np.float64(total(q)), np.float64(total(s))


@primitive
def tile_dots(dy, x, t, outer, stride, n, mean):
    """Sums of dy * (x - mean) and of dy over tile t of a group."""
    hi, lo = split(x, mean)
    run, runs, start, length = tile_bounds(t, outer, n)
    k = run * stride + start
    return _tile_dots(offset(dy, k), offset(x, k), runs, stride, length, hi, lo)


@primitive
def summed(tiles):
    """The two sums of a group from those of its tiles."""
    a = b = 0.0
    for t in range(len(tiles)):
        a += tiles[t, 0]
        b += tiles[t, 1]
    return a, b


@primitive
def run_gradient(dy, x, n, hi, lo, k, c2, scale, dx, stream):
    """dx = (dy - (x - mean) * k - c2) * scale, all scalars of the dtype of x"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        d = (load_part(x, 0, i, hi) - hi) - lo
        put_part(dx, 0, i, fma(d, k * -1, load_part(dy, 0, i, hi) - c2) * scale, stream)
    while i + lanes(x) <= n:
        d = (load(x, i) - hi) - lo
        put(dx, i, fma(d, k * -1, load(dy, i) - c2) * scale, stream)
        i += lanes(x)
    if i < n:
        d = (load_part(x, i, n - i, hi) - hi) - lo
        put_part(dx, i, n - i, fma(d, k * -1, load_part(dy, i, n - i, hi) - c2) * scale, stream)
