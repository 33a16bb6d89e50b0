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
