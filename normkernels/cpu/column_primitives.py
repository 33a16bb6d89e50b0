"""Primitives over columns: every lane of a vector is a column of its own."""

from .jit import primitive
from .primitives import RESCALE, put, put_part, streamed_head
from .vectors import as_element, fma, lanes, load, load_part, offset, store, store_part, zeros

# Rows of a tile; of one vector of columns that is 16 KB of float32, which stay in L1 for a second pass.
ROWS = 128


@primitive
def column_moments(x, rows, stride, count, sums):
    """Pivot, sum and sum of squares of x - pivot for `count` columns; sums: rows, `stride` apart.

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
def column_spread(x, rows, stride, count, sums):
    """A sum of squares for `count` columns that is 0 only where all elements are equal."""
    zero, unit = as_element(x, 0.0), as_element(x, RESCALE)
    first = load_part(x, 0, count, zero)
    q = zeros(x)
    for i in range(rows):
        d = (load_part(x, i * stride, count, zero) - first) * unit
        q = fma(d, d, q)
    store_part(sums, 0, count, q)


@primitive
def column_dots(dy, x, rows, stride, count, constants, sums):
    """Sums of dy * (x - hi) * r and of dy for `count` columns; constants, sums: two rows, `stride` apart."""
    zero = as_element(x, 0.0)
    hi, r = load_part(constants, 0, count, zero), load_part(constants, stride, count, zero)
    s = zeros(x)
    q = zeros(x)
    for i in range(rows):
        d = load_part(dy, i * stride, count, zero)
        s = s + d
        q = fma((load_part(x, i * stride, count, zero) - hi) * r, d, q)
    store_part(sums, 0, count, q)
    store_part(sums, stride, count, s)


@primitive
def add_column_moments(x, rows, n, stride, sums):
    """Sums of d and d * d, d = x - pivot, of n columns plus those of a few rows.

    sums: rows of pivot, nothing, and the two sums. All rows lie `stride` apart.
    """
    i = 0
    while i + lanes(x) <= n:
        pivot, s, q = load(sums, i), load(sums, i + 2 * stride), load(sums, i + 3 * stride)
        for k in range(i, i + rows * stride, stride):
            d = load(x, k) - pivot
            s = s + d
            q = fma(d, d, q)
        store(sums, i + 2 * stride, s)
        store(sums, i + 3 * stride, q)
        i += lanes(x)
    if i < n:
        zero = as_element(x, 0.0)
        n -= i
        pivot, s = load_part(sums, i, n, zero), load_part(sums, i + 2 * stride, n, zero)
        q = load_part(sums, i + 3 * stride, n, zero)
        for k in range(i, i + rows * stride, stride):
            d = load_part(x, k, n, zero) - pivot
            s = s + d
            q = fma(d, d, q)
        store_part(sums, i + 2 * stride, n, s)
        store_part(sums, i + 3 * stride, n, q)


@primitive
def add_column_dots(dy, x, rows, n, stride, sums):
    """Sums of dy and dy * (x - hi) * r of n columns plus those of a few rows.

    sums: rows of hi, r, and the two sums. All rows lie `stride` apart.
    """
    i = 0
    while i + lanes(x) <= n:
        hi, r = load(sums, i), load(sums, i + stride)
        s, q = load(sums, i + 2 * stride), load(sums, i + 3 * stride)
        for k in range(i, i + rows * stride, stride):
            d = load(dy, k)
            s = s + d
            q = fma((load(x, k) - hi) * r, d, q)
        store(sums, i + 2 * stride, s)
        store(sums, i + 3 * stride, q)
        i += lanes(x)
    if i < n:
        zero = as_element(x, 0.0)
        n -= i
        hi, r = load_part(sums, i, n, zero), load_part(sums, i + stride, n, zero)
        s, q = load_part(sums, i + 2 * stride, n, zero), load_part(sums, i + 3 * stride, n, zero)
        for k in range(i, i + rows * stride, stride):
            d = load_part(dy, k, n, zero)
            s = s + d
            q = fma((load_part(x, k, n, zero) - hi) * r, d, q)
        store_part(sums, i + 2 * stride, n, s)
        store_part(sums, i + 3 * stride, n, q)


@primitive
def _normalize_part(x, i, n, stride, constants, y, stream):
    c, zero = offset(constants, i), as_element(x, 0.0)
    d = load_part(x, i, n, zero) - load_part(c, 0, n, zero)
    put_part(y, i, n, fma(d, load_part(c, stride, n, zero), load_part(c, 2 * stride, n, zero)), stream)


@primitive
def columns_normalize(x, n, stride, constants, y, stream):
    """y = (x - hi) * scale + shift for one row; constants: rows of those, `stride` apart"""
    i = streamed_head(y, n, stream)
    if i > 0:
        _normalize_part(x, 0, i, stride, constants, y, stream)
    while i + lanes(x) <= n:
        c = offset(constants, i)
        put(y, i, fma(load(x, i) - load(c, 0), load(c, stride), load(c, 2 * stride)), stream)
        i += lanes(x)
    if i < n:
        _normalize_part(x, i, n - i, stride, constants, y, stream)


@primitive
def _gradient_part(dy, x, i, n, stride, constants, dx, stream):
    c, zero = offset(constants, i), as_element(x, 0.0)
    hi, scale = load_part(c, 0, n, zero), load_part(c, stride, n, zero)
    c2, k = load_part(c, 2 * stride, n, zero), load_part(c, 3 * stride, n, zero)
    d = fma(load_part(x, i, n, zero) - hi, k, load_part(dy, i, n, zero) - c2)
    put_part(dx, i, n, d * scale, stream)


@primitive
def columns_gradient(dy, x, n, stride, constants, dx, stream):
    """dx = (dy - c2 + (x - hi) * k) * scale for one row; constants: rows of hi, scale, c2, k"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        _gradient_part(dy, x, 0, i, stride, constants, dx, stream)
    while i + lanes(x) <= n:
        c = offset(constants, i)
        d = fma(load(x, i) - load(c, 0), load(c, 3 * stride), load(dy, i) - load(c, 2 * stride))
        put(dx, i, d * load(c, stride), stream)
        i += lanes(x)
    if i < n:
        _gradient_part(dy, x, i, n - i, stride, constants, dx, stream)
