"""Primitives over columns: every lane of a vector is a column of its own."""

from .jit import primitive
from .primitives import put, put_part, streamed_head
from .vectors import as_element, fma, lanes, load, load_part, offset, store_part, zeros


@primitive
def column_moments(x, rows, stride, count, sums):
    """Pivot, sum and sum of squares of x - pivot for `count` columns; sums: three rows, `stride` apart.

    The pivot is the mean of the tile's column, so no column needs another pass for a poor one.
    """
    zero = as_element(x, 0.0)
    first = load_part(x, 0, count, zero)
    s = zeros(x)
    for i in range(rows):
        s = s + (load_part(x, i * stride, count, zero) - first)
    pivot = fma(s, as_element(x, 1.0 / rows), first)
    s = zeros(x)
    q = zeros(x)
    for i in range(rows):
        d = load_part(x, i * stride, count, zero) - pivot
        s = s + d
        q = fma(d, d, q)
    store_part(sums, 0, count, pivot)
    store_part(sums, stride, count, s)
    store_part(sums, 2 * stride, count, q)


@primitive
def column_dots(dy, x, rows, stride, count, mean, sums):
    """Sums of dy * (x - mean) and of dy for `count` columns; mean: hi and lo, `stride` apart."""
    zero = as_element(x, 0.0)
    hi, lo = load_part(mean, 0, count, zero), load_part(mean, stride, count, zero)
    s = zeros(x)
    q = zeros(x)
    for i in range(rows):
        d = load_part(dy, i * stride, count, zero)
        s = s + d
        q = fma((load_part(x, i * stride, count, zero) - hi) - lo, d, q)
    store_part(sums, 0, count, q)
    store_part(sums, stride, count, s)


@primitive
def _normalize_part(x, i, n, cols, coefficients, y, stream):
    c = offset(coefficients, i)
    hi, lo = load_part(c, 0, n, x[i]), load_part(c, cols, n, x[i])
    scale, shift = load_part(c, 2 * cols, n, x[i]), load_part(c, 3 * cols, n, x[i])
    put_part(y, i, n, fma((load_part(x, i, n, x[i]) - hi) - lo, scale, shift), stream)


@primitive
def columns_normalize(x, cols, coefficients, y, stream):
    """y = (x - mean) * scale + shift for one row; coefficients: (4, cols) of hi, lo, scale, shift"""
    i = streamed_head(y, cols, stream)
    if i > 0:
        _normalize_part(x, 0, i, cols, coefficients, y, stream)
    while i + lanes(x) <= cols:
        c = offset(coefficients, i)
        d = (load(x, i) - load(c, 0)) - load(c, cols)
        put(y, i, fma(d, load(c, 2 * cols), load(c, 3 * cols)), stream)
        i += lanes(x)
    if i < cols:
        _normalize_part(x, i, cols - i, cols, coefficients, y, stream)


@primitive
def _gradient_part(dy, x, i, n, cols, coefficients, dx, stream):
    c = offset(coefficients, i)
    hi, lo, k = load_part(c, 0, n, x[i]), load_part(c, cols, n, x[i]), load_part(c, 2 * cols, n, x[i])
    c2, scale = load_part(c, 3 * cols, n, x[i]), load_part(c, 4 * cols, n, x[i])
    d = (load_part(x, i, n, x[i]) - hi) - lo
    put_part(dx, i, n, (load_part(dy, i, n, x[i]) - d * k - c2) * scale, stream)


@primitive
def columns_gradient(dy, x, cols, coefficients, dx, stream):
    """dx = (dy - (x - mean) * k - c2) * scale for one row; coefficients: (5, cols) of those"""
    i = streamed_head(dx, cols, stream)
    if i > 0:
        _gradient_part(dy, x, 0, i, cols, coefficients, dx, stream)
    while i + lanes(x) <= cols:
        c = offset(coefficients, i)
        d = (load(x, i) - load(c, 0)) - load(c, cols)
        put(dx, i, (load(dy, i) - d * load(c, 2 * cols) - load(c, 3 * cols)) * load(c, 4 * cols), stream)
        i += lanes(x)
    if i < cols:
        _gradient_part(dy, x, i, cols - i, cols, coefficients, dx, stream)
