"""Primitives over rows: every element of a row has its own weight and bias."""

import numpy as np

from .jit import primitive
from .primitives import TILE, centring, put, put_part, streamed_head
from .vectors import as_element, fma, lanes, load, load_part, offset, store, store_part, total, zeros


@primitive
def _affine_part(x, i, n, hi, lo, rstd, weight, bias, y, stream):
    x_hat = fma(load_part(x, i, n, hi) - hi, rstd, lo)
    put_part(y, i, n, fma(x_hat, load_part(weight, i, n, rstd), load_part(bias, i, n, rstd)), stream)


@primitive
def normalize_row(x, n, mean, rstd, weight, bias, y, stream):
    """y = (x - mean) * rstd * weight + bias, weight and bias of n elements"""
    hi, lo, rstd = centring(x, mean, rstd)
    i = streamed_head(y, n, stream)
    if i > 0:
        _affine_part(x, 0, i, hi, lo, rstd, weight, bias, y, stream)
    while i + lanes(x) <= n:
        x_hat = fma(load(x, i) - hi, rstd, lo)
        put(y, i, fma(x_hat, load(weight, i), load(bias, i)), stream)
        i += lanes(x)
    if i < n:
        _affine_part(x, i, n - i, hi, lo, rstd, weight, bias, y, stream)


@primitive
def _add_dots(x_hat, dy, weight, q, s):
    """q + x_hat * wdy, s + wdy"""
    wdy = weight * dy
    return fma(x_hat, wdy, q), s + wdy


@primitive
def _tile_sums(dy, x, n, second, a, b, weight, dweight, dbias):
    """As `rows_sums`, of one tile."""
    zero = as_element(x, 0.0)
    q, s, q_b, s_b = zeros(x), zeros(x), zeros(x), zeros(x)
    i, whole = 0, n - n % lanes(x)
    while i < whole:
        w, dw, db = load(weight, i), load(dweight, i), load(dbias, i)
        x_hat, g = fma(load(x, i) - a[0], a[2], a[1]), load(dy, i)
        q, s = _add_dots(x_hat, g, w, q, s)
        dw, db = fma(x_hat, g, dw), db + g
        if second > 0:
            x_hat, g = fma(load(x, i + second) - b[0], b[2], b[1]), load(dy, i + second)
            q_b, s_b = _add_dots(x_hat, g, w, q_b, s_b)
            dw, db = fma(x_hat, g, dw), db + g
        store(dweight, i, dw)
        store(dbias, i, db)
        i += lanes(x)
    if i < n:
        n -= i
        w, dw, db = (
            load_part(weight, i, n, zero),
            load_part(dweight, i, n, zero),
            load_part(dbias, i, n, zero),
        )
        x_hat, g = fma(load_part(x, i, n, a[0]) - a[0], a[2], a[1]), load_part(dy, i, n, zero)
        q, s = _add_dots(x_hat, g, w, q, s)
        dw, db = fma(x_hat, g, dw), db + g
        if second > 0:
            k = i + second
            x_hat, g = fma(load_part(x, k, n, b[0]) - b[0], b[2], b[1]), load_part(dy, k, n, zero)
            q_b, s_b = _add_dots(x_hat, g, w, q_b, s_b)
            dw, db = fma(x_hat, g, dw), db + g
        store_part(dweight, i, n, dw)
        store_part(dbias, i, n, db)
    return np.float64(total(q)), np.float64(total(s)), np.float64(total(q_b)), np.float64(total(s_b))


@primitive
def rows_sums(dy, x, n, second, scalars, weight, dweight, dbias):
    """Sums of x_hat * wdy and of wdy of two rows; dweight += dy * x_hat, dbias += dy.

    The second row lies `second` elements further on, or is left out with 0. scalars: (2, 5), a row
    begins with those of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured).
    """
    q = s = q_b = s_b = 0.0
    for t in range(0, n, TILE):
        sums = _tile_sums(
            offset(dy, t), offset(x, t), min(TILE, n - t), second, scalars, offset(scalars, 5),
            offset(weight, t), offset(dweight, t), offset(dbias, t),
        )  # fmt: skip
        q += sums[0]
        s += sums[1]
        q_b += sums[2]
        s_b += sums[3]
    return q, s, q_b, s_b


@primitive
def _row_gradient(x, dy, weight, scalars):
    """dx = (wdy - x_hat * c1 - c2) * rstd"""
    x_hat = fma(x - scalars[0], scalars[2], scalars[1])
    return fma(x_hat, -scalars[3], fma(dy, weight, -scalars[4])) * scalars[2]


@primitive
def _row_gradient_part(dy, x, i, n, scalars, weight, dx, stream):
    x_part, dy_part = load_part(x, i, n, scalars[0]), load_part(dy, i, n, scalars[0])
    put_part(dx, i, n, _row_gradient(x_part, dy_part, load_part(weight, i, n, scalars[0]), scalars), stream)


@primitive
def row_gradient(dy, x, n, scalars, weight, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd; scalars: those of `centring`, c1, c2"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        _row_gradient_part(dy, x, 0, i, scalars, weight, dx, stream)
    while i + lanes(x) <= n:
        put(dx, i, _row_gradient(load(x, i), load(dy, i), load(weight, i), scalars), stream)
        i += lanes(x)
    if i < n:
        _row_gradient_part(dy, x, i, n - i, scalars, weight, dx, stream)


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
