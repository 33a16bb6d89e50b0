"""Primitives over rows: every element of a row has its own weight and bias."""

import numpy as np

from .jit import primitive
from .primitives import TILE, as_scale, put, put_part, split, streamed_head
from .vectors import as_element, fma, lanes, load, load_part, offset, store, store_part, total, zeros


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
def _rows_gradient_part(dy, x, i, n, second, scalars, weight, dx, dweight, dbias, stream):
    w, dw, db = load_part(weight, i, n, x[0]), load_part(dweight, i, n, x[0]), load_part(dbias, i, n, x[0])
    for r in range(2 if second > 0 else 1):
        k, s = i + r * second, offset(scalars, 5 * r)
        x_hat, g = ((load_part(x, k, n, s[0]) - s[0]) - s[1]) * s[2], load_part(dy, k, n, s[0])
        put_part(dx, k, n, _row_gradient(x_hat, g, w, s[3], s[4], s[2]), stream)
        dw = fma(x_hat, g, dw)
        db = db + g
    store_part(dweight, i, n, dw)
    store_part(dbias, i, n, db)


@primitive
def rows_gradient(dy, x, cols, second, scalars, weight, dx, dweight, dbias, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd, dweight += dy * x_hat, dbias += dy over two rows.

    The second row lies `second` elements further on, or is left out with 0. Two rows at once halve
    the traffic of weight, dweight and dbias; both are loaded before one is stored, because rows of
    1024 or 4096 elements meet the same sets of the cache (measured: 10.5 ns to 5.6 ns a vector).
    scalars: (2, 5) of hi, lo, rstd, c1, c2.
    """
    a, b = scalars, offset(scalars, 5)
    i = streamed_head(dx, cols, stream)
    if i > 0:
        _rows_gradient_part(dy, x, 0, i, second, scalars, weight, dx, dweight, dbias, stream)
    while i + lanes(x) <= cols:
        w, dw, db = load(weight, i), load(dweight, i), load(dbias, i)
        x_hat, g = ((load(x, i) - a[0]) - a[1]) * a[2], load(dy, i)
        dw = fma(x_hat, g, dw)
        db = db + g
        if second > 0:
            k = i + second
            x_hat_b, g_b = ((load(x, k) - b[0]) - b[1]) * b[2], load(dy, k)
            put(dx, k, _row_gradient(x_hat_b, g_b, w, b[3], b[4], b[2]), stream)
            dw = fma(x_hat_b, g_b, dw)
            db = db + g_b
        put(dx, i, _row_gradient(x_hat, g, w, a[3], a[4], a[2]), stream)
        store(dweight, i, dw)
        store(dbias, i, db)
        i += lanes(x)
    if i < cols:
        _rows_gradient_part(dy, x, i, cols - i, second, scalars, weight, dx, dweight, dbias, stream)


@primitive
def clear(sums, partials, n):
    for i in range(n):
        sums[i] = as_element(sums, 0.0)
        partials[i] = 0.0


@primitive
def flush(sums, partials, n):
    """partials += sums, sums = 0"""
    for i in range(n):
        partials[i] += np.float64(sums[i])
        sums[i] = as_element(sums, 0.0)


@primitive
def add(total, partial, n):
    """total += partial"""
    for i in range(n):
        total[i] += partial[i]
