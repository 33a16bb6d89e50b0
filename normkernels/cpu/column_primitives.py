"""Primitives over columns: an array is seen as rows of `width` elements, and every element of a row has sums
and constants of its own, `width` apart.

A *tile* is up to ROWS_SUMMED rows of a block of n columns.
"""

import math

import numpy as np

from .fusion import copy_run, tile_on_stack
from .jit import primitive
from .loops import each, sums
from .pointers import as_element, offset
from .primitives import RESCALE, are_good, tile_moments, two_sum, zero
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
    for k in range(4):  # the next four: 10 to 15 % faster from memory
        x.prefetch(i + (k + 4) * width, 2)
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
def _mark_varied_and_poor(i, q, s, spread, rows):
    """The sum of squares of columns that are poor and not constant becomes NaN."""
    kept = where(are_good(wide(s[i]), wide(q[i]), rows), q[i], math.nan)
    q[i] = where(spread[i].equals(0.0), q[i], kept)


@primitive
def tile_sums(x, rows, width, n, room, pitch):
    """Pivot, and the sums of d and d * d, d = x - pivot, of n columns of a tile; room: 3 rows, `pitch` apart.

    The sum of squares of a column that is not good is made NaN: its pivot was poor, or its squares left the
    range of the dtype. Constant columns are common, and good.
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
        return
    spread, unit = tile_on_stack(s), as_element(s, RESCALE)
    zero(spread, n)
    for i in range(1, rows):
        each(n, None, _add_spread, spread, offset(x, i * width), x, unit)
    each(n, None, _mark_varied_and_poor, q, s, spread, rows)


@step
def _moments(i, sums, moments, apart, tile, pitch, rows):
    """Of each column; how many of them are not good."""
    total = wide(tile[i + pitch])
    mean = total * (1.0 / rows)
    m2 = tile[i + pitch * 2] - total * mean
    moments[i], moments[i + apart], moments[i + apart * 2], moments[i + apart * 3] = rows, tile[i], mean, m2
    return (sums[0] + where(m2.equals(m2), 0.0, moments.rounded(1.0)),)


@primitive
def moments_of_tile(x, rows, width, n, tile, pitch, moments, apart):
    """count, pivot, mean - pivot and m2 of n columns of a tile from its sums; moments: 4 rows, `apart`."""
    if sums(1, n, _moments, moments, apart, tile, pitch, np.float64(rows))[0] == 0.0:
        return
    pivot, mean, m2 = offset(moments, apart), offset(moments, 2 * apart), offset(moments, 3 * apart)
    for j in range(n):
        if m2[j] != m2[j]:
            _, pivot[j], mean[j], m2[j] = tile_moments(offset(x, j), rows, width, 1)


@step
def _add_moments(i, moments, new, pitch):
    pivot, mean, m2 = (i + pitch * k for k in (1, 2, 3))
    count, other, average = moments[i], new[i], moments[mean]
    delta = (new[pivot] - moments[pivot]) + new[mean] - average
    share = other / (count + other)
    moments[m2] = moments[m2] + (new[m2] + delta * delta * (count * share))
    moments[i], moments[mean] = count + other, average + delta * share


@primitive
def add_moments(n, moments, new, pitch):
    """moments += new, of n columns, by Chan's formula.

    Both: rows of count, pivot, mean - pivot and m2, `pitch` apart.
    """
    each(n, None, _add_moments, moments, new, pitch)


@step
def _mean(i, mean, pivot, deviation, low):
    mean[i], lost = two_sum(pivot[i], deviation[i])
    if low is not None:
        low[i] = lost


@primitive
def taken(n, moments, pitch, mean, low, m2):
    """mean, what it lost by rounding, and m2 from n moments, rows as for `add_moments`.

    low may be None, and m2 may stand where it is.
    """
    each(n, None, _mean, mean, offset(moments, pitch), offset(moments, 2 * pitch), low)
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
    """mean, what it lost by rounding, and m2 of n columns together, which have one count.

    moments: as for `add_moments`.
    """
    pivot, mean, m2 = offset(moments, pitch), offset(moments, 2 * pitch), offset(moments, 3 * pitch)
    first = pivot[0]
    middle, low = two_sum(first, sums(1, n, _add_mean, pivot, mean, first)[0] / n)
    within, between = sums(2, n, _add_spread_of_means, m2, pivot, mean, middle)
    return middle, low, within + moments[0] * between


@step
def _add_dots(i, dot, dy, x, constants, s):
    hi, r, d = constants.first[i], constants.first[i + constants.pitch], dy[i]
    s[i] = s[i] + d
    dot[i] = fma((x[i] - hi) * r, d, dot[i])


@step
def _add_dots_of_rows(i, dot, dy, x, width, constants, s):
    hi, r, of_all, total = constants.first[i], constants.first[i + constants.pitch], dot[i], s[i]
    for k in range(ROWS_TOGETHER):
        j, following = i + k * width, i + (k + ROWS_TOGETHER) * width
        x.prefetch(following, 2)
        dy.prefetch(following, 2)
        of_all, total = fma((x[j] - hi) * r, dy[j], of_all), total + dy[j]
    dot[i], s[i] = of_all, total


@primitive
def add_dots(dy, x, rows, width, n, constants, dot, s):
    """dot += dy * (x - hi) * r and s += dy over the rows of a tile; constants: rows of hi and r"""
    whole = rows - rows % ROWS_TOGETHER
    for i in range(0, whole, ROWS_TOGETHER):
        k = i * width
        each(n, None, _add_dots_of_rows, dot, offset(dy, k), offset(x, k), width, constants, s)
    for i in range(whole, rows):
        k = i * width
        each(n, None, _add_dots, dot, offset(dy, k), offset(x, k), constants, s)
