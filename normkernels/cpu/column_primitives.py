"""Primitives over columns: an array is seen as rows of `width` elements, and every element of a row has sums
and constants of its own, `width` apart.

A *tile* is up to ROWS_SUMMED rows of a block of n columns. What is fused is as in `channel_primitives`.
"""

import math

import numpy as np

from .activations import slope
from .fusion import activated, copy_run, plus, tile_on_stack
from .jit import primitive
from .loops import each, sums
from .pointers import as_element, offset
from .primitives import RESCALE, are_good, tile_moments, zero
from .tracing import step
from .tuning import ROWS_TOGETHER
from .vectors import fma, where, wide


@step
def _start(i, s, x, second, third, fourth, pivot, q):
    """The pivot is about the mean of the first rows; exactly the first where they are all equal."""
    first = x[i]
    pivot[i] = first + ((x[i + second] - first) + (x[i + third] - first) + (x[i + fourth] - first)) * 0.25
    s[i] = q[i] = 0.0


@step
def _add_row(i, s, x, pivot, q):
    d = x[i] - pivot[i]
    s[i] = s[i] + d
    q[i] = fma(d, d, q[i])


@step
def _add_rows(i, s, x, width, pivot, q):
    a, b, c, d = (x[i + k * width] - pivot[i] for k in range(4))
    s[i] = s[i] + ((a + b) + (c + d))
    q[i] = fma(d, d, fma(c, c, fma(b, b, fma(a, a, q[i]))))


@step
def _add_spread(i, q, x, first, unit):
    d = (x[i] - first[i]) * unit
    q[i] = fma(d, d, q[i])


@step
def _count_poor(i, sums, s, q, rows):
    return (sums[0] + where(are_good(wide(s[i]), wide(q[i]), rows), s.rounded(0.0), 1.0),)


@step
def _count_varied_and_poor(i, sums, s, q, spread, rows):
    """How many are poor and not constant; the sum of squares of these becomes NaN."""
    poor = where(are_good(wide(s[i]), wide(q[i]), rows), s.rounded(0.0), 1.0)
    poor = where(spread[i].equals(0.0), 0.0, poor)
    q[i] = where(poor > 0.0, math.nan, q[i])
    return (sums[0] + poor,)


@primitive
def tile_sums(x, rows, width, n, room, pitch):
    """Pivot, and the sums of d and d * d, d = x - pivot, of n columns of a tile; room: 3 rows, `pitch` apart.

    Gives whether all of them are good. The sum of squares of a column that is not is made NaN: its pivot was
    poor, or its squares left the range of the dtype. Constant columns are common, and good.
    """
    pivot, s, q = room, offset(room, pitch), offset(room, 2 * pitch)
    second, third, fourth = min(1, rows - 1) * width, min(2, rows - 1) * width, min(3, rows - 1) * width
    each(n, None, _start, s, x, second, third, fourth, pivot, q)
    whole = rows - rows % ROWS_TOGETHER
    for i in range(0, whole, ROWS_TOGETHER):
        each(n, None, _add_rows, s, offset(x, i * width), width, pivot, q)
    for i in range(whole, rows):
        each(n, None, _add_row, s, offset(x, i * width), pivot, q)
    if rows == 1 or sums(1, n, _count_poor, s, q, rows)[0] == 0.0:
        return True
    spread, unit = tile_on_stack(s), as_element(s, RESCALE)
    zero(spread, n)
    for i in range(1, rows):
        each(n, None, _add_spread, spread, offset(x, i * width), x, unit)
    return sums(1, n, _count_varied_and_poor, s, q, spread, rows)[0] == 0.0


@step
def _moments(i, count, pivot, mean, m2, p, s, q, rows):
    total = wide(s[i])
    average = total * (1.0 / rows)
    count[i], pivot[i], mean[i], m2[i] = rows, p[i], average, q[i] - total * average


@primitive
def moments_of_tile(x, rows, width, n, tile, pitch, good, moments, apart):
    """count, pivot, mean - pivot and m2 of n columns of a tile from its sums; moments: 4 rows, `apart`."""
    count, pivot = moments, offset(moments, apart)
    mean, m2 = offset(moments, 2 * apart), offset(moments, 3 * apart)
    each(
        n, None, _moments, count, pivot, mean, m2, tile, offset(tile, pitch), offset(tile, 2 * pitch),
        np.float64(rows),
    )  # fmt: skip
    if good:
        return
    for j in range(n):
        if m2[j] != m2[j]:
            _, pivot[j], mean[j], m2[j] = tile_moments(offset(x, j), rows, width, 1)


@step
def _add_moments(i, count, pivot, mean, m2, other_count, other_pivot, other_mean, other_m2):
    own, other = count[i], other_count[i]
    delta = (other_pivot[i] - pivot[i]) + other_mean[i] - mean[i]
    share = other / (own + other)
    mean[i], m2[i] = mean[i] + delta * share, m2[i] + (other_m2[i] + delta * delta * (own * share))
    count[i] = own + other


@primitive
def add_moments(n, moments, new, pitch):
    """moments += new, of n columns, by Chan's formula.

    Both: rows of count, pivot, mean - pivot and m2, `pitch` apart.
    """
    each(
        n, None, _add_moments, moments, offset(moments, pitch), offset(moments, 2 * pitch),
        offset(moments, 3 * pitch), new, offset(new, pitch), offset(new, 2 * pitch), offset(new, 3 * pitch),
    )  # fmt: skip


@step
def _mean(i, mean, pivot, deviation):
    mean[i] = pivot[i] + deviation[i]


@primitive
def taken(n, moments, pitch, mean, m2):
    """mean and m2 from n moments, rows as for `add_moments`; m2 may stand where it is."""
    each(n, None, _mean, mean, offset(moments, pitch), offset(moments, 2 * pitch))
    copy_run(offset(moments, 3 * pitch), n, m2, None)


@step
def _add_mean(i, sums, pivot, mean, origin):
    return (sums[0] + ((pivot[i] - origin) + mean[i]),)


@step
def _add_spread_of_means(i, sums, m2, pivot, mean, origin):
    d = (pivot[i] - origin) + mean[i]
    return sums[0] + m2[i], fma(d, d, sums[1])


@primitive
def joined(moments, n, pitch):
    """mean and m2 of n columns together, which have one count; moments: as for `add_moments`."""
    pivot, mean, m2 = offset(moments, pitch), offset(moments, 2 * pitch), offset(moments, 3 * pitch)
    first = pivot[0]
    middle = first + sums(1, n, _add_mean, pivot, mean, first)[0] / n
    within, between = sums(2, n, _add_spread_of_means, m2, pivot, mean, middle)
    return middle, within + moments[0] * between


def _affine(i, x, width, constants, residual):
    """(x - hi) * scale + shift + residual"""
    hi, scale, shift = (constants[i + k * width] for k in range(3))
    return plus(fma(x[i] - hi, scale, shift), residual, i)


@step
def _normalize(i, y, x, width, constants, residual, kind):
    y[i] = activated(_affine(i, x, width, constants, residual), kind)


@primitive
def columns_normalize(x, n, width, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual) for one row; constants: 3 rows, `width` apart"""
    each(n, stream, _normalize, y, x, width, constants, residual, kind)


@step
def _slope(i, dz, dy, x, width, affine, residual, kind):
    dz[i] = slope(_affine(i, x, width, affine, residual), dy[i], kind)


@primitive
def columns_slope(dy, x, n, width, affine, residual, kind, dz):
    """dz = dy * act'(z) for one row"""
    each(n, None, _slope, dz, dy, x, width, affine, residual, kind)


@step
def _add_dots(i, s, dy, x, width, constants, q):
    d = dy[i]
    s[i] = s[i] + d
    q[i] = fma((x[i] - constants[i]) * constants[i + width], d, q[i])


@step
def _add_dots_of_rows(i, s, dy, x, rows_apart, width, constants, q):
    hi, r, total, dot = constants[i], constants[i + width], s[i], q[i]
    for k in range(ROWS_TOGETHER):
        j = i + k * rows_apart
        total, dot = total + dy[j], fma((x[j] - hi) * r, dy[j], dot)
    s[i], q[i] = total, dot


@primitive
def add_dots(dy, x, rows, width, n, constants, pitch, s, q):
    """s += dy and q += dy * (x - hi) * r over the rows of a tile; constants: hi and r, `pitch` apart"""
    whole = rows - rows % ROWS_TOGETHER
    for i in range(0, whole, ROWS_TOGETHER):
        k = i * width
        each(n, None, _add_dots_of_rows, s, offset(dy, k), offset(x, k), width, pitch, constants, q)
    for i in range(whole, rows):
        k = i * width
        each(n, None, _add_dots, s, offset(dy, k), offset(x, k), pitch, constants, q)


@step
def _gradient(i, dx, dy, x, width, constants):
    hi, scale, c2, k = (constants[i + j * width] for j in range(4))
    dx[i] = fma(x[i] - hi, k, dy[i] - c2) * scale


@primitive
def columns_gradient(dy, x, n, width, constants, training, dx, dresidual, stream):
    """dx = (dy - c2 + (x - hi) * k) * scale for one row; constants: rows of hi, scale, c2, k

    In evaluation dx = dy * scale. dresidual, where there is one, receives dy.
    """
    if dresidual is not None:
        copy_run(dy, n, dresidual, stream)
    if training:
        each(n, stream, _gradient, dx, dy, x, width, constants)
    else:
        columns_normalize(dy, n, width, constants, None, None, dx, stream)
