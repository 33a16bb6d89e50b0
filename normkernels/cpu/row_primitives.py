"""Primitives over rows: every element of a row has its own weight and bias.

What is fused is None where it is absent: the activation `kind` that follows, for whose backward there is
bias; and `dsum`, a gradient that is added to dx.
"""

import numpy as np

from .activations import slope
from .fusion import activated, plus
from .jit import primitive, step
from .primitives import TILE, centring, fetch, merge, put, streamed_head, tile_moments, tile_squares
from .vectors import as_element, fma, lanes, offset, total, zeros


@primitive
def row_moments(x, n):
    """mean and m2 of one run: its tiles merged in their order."""
    count, origin, mean, m2 = tile_moments(x, 1, 0, min(n, TILE))
    for t in range(TILE, n, TILE):
        count_t, pivot, mean_t, m2_t = tile_moments(offset(x, t), 1, 0, min(TILE, n - t))
        mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
        count += count_t
    return origin + mean, m2


@primitive
def row_squares(x, n):
    """The sum of squares of one run: that of its tiles in their order."""
    q = 0.0
    for t in range(0, n, TILE):
        q += tile_squares(offset(x, t), min(TILE, n - t))
    return q


@step
def _affine(x_hat, weight, bias, i, n):
    """x_hat * weight + bias"""
    zero = as_element(weight, 0.0)
    if bias is None:
        return x_hat * fetch(weight, i, n, zero)
    return fma(x_hat, fetch(weight, i, n, zero), fetch(bias, i, n, zero))


@step
def _normalize(x, i, n, hi, lo, rstd, weight, bias, kind, y, stream):
    x_hat = fma(fetch(x, i, n, hi) - hi, rstd, lo)
    put(y, i, n, activated(_affine(x_hat, weight, bias, i, n), kind), stream)


@primitive
def normalize_row(x, n, mean, rstd, weight, bias, kind, y, stream):
    """y = act((x - mean) * rstd * weight + bias), weight and bias of n elements"""
    hi, lo, rstd = centring(x, mean, rstd, 1.0)
    i = streamed_head(y, n, stream)
    if i > 0:
        _normalize(x, 0, i, hi, lo, rstd, weight, bias, kind, y, stream)
    while i + lanes(x) <= n:
        _normalize(x, i, None, hi, lo, rstd, weight, bias, kind, y, stream)
        i += lanes(x)
    if i < n:
        _normalize(x, i, n - i, hi, lo, rstd, weight, bias, kind, y, stream)


@step
def _add_row(dy, x, i, n, a, w, weight, bias, kind, dz, q, s, dw, db):
    """q + x_hat * wdy, s + wdy, dw + dy * x_hat, db + dy; a: those of `centring`, w: weight[i : i + n]"""
    x_hat = fma(fetch(x, i, n, a[0]) - a[0], a[2], a[1])
    dy = fetch(dy, i, n, as_element(x, 0.0))
    if kind is not None:
        dy = slope(_affine(x_hat, weight, bias, i, n), dy, kind)
        put(dz, i, n, dy, False)
    wdy = w * dy
    return fma(x_hat, wdy, q), s + wdy, fma(x_hat, dy, dw), db + dy


@step
def _add_rows(dy, x, i, n, second, a, b, weight, bias, kind, dz, sums, dweight, dbias):
    """The sums, q and s of two rows, and dweight and dbias plus those of a vector of both rows."""
    zero = as_element(x, 0.0)
    q, s, q_b, s_b = sums
    w, dw = fetch(weight, i, n, zero), fetch(dweight, i, n, zero)
    db = zeros(x) if dbias is None else fetch(dbias, i, n, zero)
    q, s, dw, db = _add_row(dy, x, i, n, a, w, weight, bias, kind, dz, q, s, dw, db)
    if second > 0:
        dy, x, dz = offset(dy, second), offset(x, second), offset(dz, second)
        q_b, s_b, dw, db = _add_row(dy, x, i, n, b, w, weight, bias, kind, dz, q_b, s_b, dw, db)
    put(dweight, i, n, dw, False)
    if dbias is not None:
        put(dbias, i, n, db, False)
    return q, s, q_b, s_b


@primitive
def rows_sums(dy, x, n, second, scalars, weight, bias, kind, dz, dweight, dbias):
    """Sums of x_hat * wdy and of wdy of two rows; dweight += dy * x_hat, dbias += dy.

    The second row lies `second` elements further on, or is left out with 0. scalars: (2, 5), a row
    begins with those of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured). With an activation
    dy stands for the gradient before it, which dz receives.
    """
    a, b = scalars, offset(scalars, 5)
    q = s = q_b = s_b = 0.0
    for t in range(0, n, TILE):
        end, i = min(t + TILE, n), t
        sums = zeros(x), zeros(x), zeros(x), zeros(x)
        while i + lanes(x) <= end:
            sums = _add_rows(dy, x, i, None, second, a, b, weight, bias, kind, dz, sums, dweight, dbias)
            i += lanes(x)
        if i < end:
            sums = _add_rows(dy, x, i, end - i, second, a, b, weight, bias, kind, dz, sums, dweight, dbias)
        q += np.float64(total(sums[0]))
        s += np.float64(total(sums[1]))
        q_b += np.float64(total(sums[2]))
        s_b += np.float64(total(sums[3]))
    return q, s, q_b, s_b


@step
def _row_gradient(dy, x, i, n, scalars, weight, dsum, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum"""
    x_hat = fma(fetch(x, i, n, scalars[0]) - scalars[0], scalars[2], scalars[1])
    d = fma(fetch(dy, i, n, scalars[0]), fetch(weight, i, n, scalars[0]), -scalars[4])
    put(dx, i, n, plus(fma(x_hat, -scalars[3], d) * scalars[2], dsum, i, n), stream)


@primitive
def row_gradient(dy, x, n, scalars, weight, dsum, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum; scalars: those of `centring`, c1, c2"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        _row_gradient(dy, x, 0, i, scalars, weight, dsum, dx, stream)
    while i + lanes(x) <= n:
        _row_gradient(dy, x, i, None, scalars, weight, dsum, dx, stream)
        i += lanes(x)
    if i < n:
        _row_gradient(dy, x, i, n - i, scalars, weight, dsum, dx, stream)


@primitive
def zero(sums, n):
    """sums = 0"""
    if sums is None:
        return
    for i in range(n):
        sums[i] = as_element(sums, 0.0)


@primitive
def flush(sums, partials, n):
    """partials += sums, sums = 0"""
    if sums is None:
        return
    for i in range(n):
        partials[i] += np.float64(sums[i])
        sums[i] = as_element(sums, 0.0)


@primitive
def add(total, partial, n):
    """total += partial"""
    for i in range(n):
        total[i] += partial[i]
