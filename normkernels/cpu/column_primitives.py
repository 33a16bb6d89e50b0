"""Primitives over columns: every lane of a vector is a column of its own.

What is fused is as in `channel_primitives`; `affine`, as all constants here, is rows `stride` apart.
"""

from .activations import slope
from .fusion import activated, copy_run, plus
from .jit import primitive, step
from .primitives import RESCALE, fetch, put, streamed_head
from .vectors import as_element, fma, lanes, load_part, offset, store_part, zeros

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


@step
def _affine(x, i, n, stride, constants, residual):
    """(x - hi) * scale + shift + residual"""
    c, zero = offset(constants, i), as_element(x, 0.0)
    d = fetch(x, i, n, zero) - fetch(c, 0, n, zero)
    return plus(fma(d, fetch(c, stride, n, zero), fetch(c, 2 * stride, n, zero)), residual, i, n)


@step
def _gradient_of_affine(dy, x, i, n, stride, affine, residual, kind, dz):
    """dy, or what remains of it before the activation, which goes to dz, where there is one"""
    d = fetch(dy, i, n, as_element(x, 0.0))
    if kind is not None:
        d = slope(_affine(x, i, n, stride, affine, residual), d, kind)
    if dz is not None:
        put(dz, i, n, d, False)
    return d


@primitive
def columns_slope(dy, x, n, stride, affine, residual, kind, dz):
    """dz = dy * act'(z) for one row"""
    i = 0
    while i + lanes(x) <= n:
        _gradient_of_affine(dy, x, i, None, stride, affine, residual, kind, dz)
        i += lanes(x)
    if i < n:
        _gradient_of_affine(dy, x, i, n - i, stride, affine, residual, kind, dz)


@step
def _add_moments(x, i, n, rows, stride, sums):
    zero = as_element(x, 0.0)
    pivot = fetch(sums, i, n, zero)
    s, q = fetch(sums, i + 2 * stride, n, zero), fetch(sums, i + 3 * stride, n, zero)
    for k in range(i, i + rows * stride, stride):
        d = fetch(x, k, n, zero) - pivot
        s = s + d
        q = fma(d, d, q)
    put(sums, i + 2 * stride, n, s, False)
    put(sums, i + 3 * stride, n, q, False)


@primitive
def add_column_moments(x, rows, n, stride, sums):
    """Sums of d and d * d, d = x - pivot, of n columns plus those of a few rows.

    sums: rows of pivot, nothing, and the two sums. All rows lie `stride` apart.
    """
    i = 0
    while i + lanes(x) <= n:
        _add_moments(x, i, None, rows, stride, sums)
        i += lanes(x)
    if i < n:
        _add_moments(x, i, n - i, rows, stride, sums)


@step
def _add_dots(dy, x, i, n, rows, stride, affine, residual, kind, dz, width, sums):
    zero = as_element(x, 0.0)
    hi, r = fetch(sums, i, n, zero), fetch(sums, i + stride, n, zero)
    s, q = fetch(sums, i + 2 * stride, n, zero), fetch(sums, i + 3 * stride, n, zero)
    for j in range(rows):
        k = j * stride
        dy_row, x_row, residual_row = offset(dy, k), offset(x, k), offset(residual, k)
        d = _gradient_of_affine(
            dy_row, x_row, i, n, stride, affine, residual_row, kind, offset(dz, j * width)
        )
        s = s + d
        q = fma((fetch(x_row, i, n, zero) - hi) * r, d, q)
    put(sums, i + 2 * stride, n, s, False)
    put(sums, i + 3 * stride, n, q, False)


@primitive
def add_column_dots(dy, x, rows, n, stride, affine, residual, kind, dz, sums):
    """Sums of dy and dy * (x - hi) * r of n columns plus those of a few rows.

    sums: rows of hi, r, and the two sums. All rows lie `stride` apart, but those of dz n elements.
    """
    i = 0
    while i + lanes(x) <= n:
        _add_dots(dy, x, i, None, rows, stride, affine, residual, kind, dz, n, sums)
        i += lanes(x)
    if i < n:
        _add_dots(dy, x, i, n - i, rows, stride, affine, residual, kind, dz, n, sums)


@primitive
def columns_normalize(x, n, stride, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual) for one row"""
    i = streamed_head(y, n, stream)
    if i > 0:
        put(y, 0, i, activated(_affine(x, 0, i, stride, constants, residual), kind), stream)
    while i + lanes(x) <= n:
        put(y, i, None, activated(_affine(x, i, None, stride, constants, residual), kind), stream)
        i += lanes(x)
    if i < n:
        put(y, i, n - i, activated(_affine(x, i, n - i, stride, constants, residual), kind), stream)


@step
def _gradient(dy, x, i, n, stride, constants, dx, stream):
    c, zero = offset(constants, i), as_element(x, 0.0)
    d = fetch(dy, i, n, zero) - fetch(c, 2 * stride, n, zero)
    d = fma(fetch(x, i, n, zero) - fetch(c, 0, n, zero), fetch(c, 3 * stride, n, zero), d)
    put(dx, i, n, d * fetch(c, stride, n, zero), stream)


@primitive
def columns_gradient(dy, x, n, stride, constants, training, dx, dresidual, stream):
    """dx = (dy - c2 + (x - hi) * k) * scale for one row; constants: rows of hi, scale, c2, k

    In evaluation dx = dy * scale. dresidual, where there is one, receives dy.
    """
    if dresidual is not None:
        copy_run(dy, n, dresidual, stream)
    if not training:
        columns_normalize(dy, n, stride, constants, None, None, dx, stream)
        return
    i = streamed_head(dx, n, stream)
    if i > 0:
        _gradient(dy, x, 0, i, stride, constants, dx, stream)
    while i + lanes(x) <= n:
        _gradient(dy, x, i, None, stride, constants, dx, stream)
        i += lanes(x)
    if i < n:
        _gradient(dy, x, i, n - i, stride, constants, dx, stream)
