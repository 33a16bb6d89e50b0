"""What the row and channel kernels are made of: moments, and the equations of centring.

All take pointers. A *run* is `n` contiguous elements; a *group* is `outer` runs that lie `stride`
elements apart and share their statistics. A row is a group of one run.
"""

import numpy as np

from .. import _formulas
from .jit import inlined, primitive
from .loops import each, sums
from .pointers import as_element, offset
from .tracing import formula, step
from .tuning import TILE
from .vectors import fma, sqrt, where

# s * s / (q * count) = d² / (d² + var) for a pivot that is d from the mean: above this it is poor.
FAR = 0.8

# Outside this range a sum of squares of a tile may have lost terms to under- or overflow.
SMALL, LARGE = 1e-25, 1e35
RESCALE = 2.0**96

# The largest number in standard deviations: below this two elements may lie further apart than that number,
# and the mean cannot be further from 0 than this, so that centring about 0 costs 10 bits at most.
WIDEST = 1024.0

merge = formula(_formulas.merge)
two_sum = formula(_formulas.two_sum)


@formula
def reciprocal_sd(var, eps):
    """1/sqrt(var + eps), and 0 where both vanish, so that a constant group gives x_hat = 0, not NaN."""
    v = var + eps
    return where(v.equals(0.0), 0.0, 1.0 / sqrt(v))


@step
def _add_deviations(i, sums, x, pivot):
    """The sums of d = x - pivot and of d * d."""
    d = x[i] - pivot
    return sums[0] + d, fma(d, d, sums[1])


@step
def _add_scaled_deviations(i, sums, x, pivot, scale):
    """The sums of d = (x - pivot) * scale and of d * d."""
    d = (x[i] - pivot) * scale
    return sums[0] + d, fma(d, d, sums[1])


@step
def _add_squares(i, sums, x):
    value = x[i]
    return (fma(value, value, sums[0]),)


@inlined
def run_sums(x, n, pivot):
    """The sums of x - pivot and of its square over a run, in the dtype of x."""
    return sums(2, n, _add_deviations, x, pivot)


@inlined
def run_squares(x, n):
    """The sum of squares of a run, in the dtype of x."""
    return sums(1, n, _add_squares, x)[0]


@primitive
def _group_sums(x, outer, stride, n, pivot, scale):
    """The sums of (x - pivot) * scale and of its square over a group."""
    s = q = 0.0
    for g in range(outer):
        run = sums(2, n, _add_scaled_deviations, offset(x, g * stride), pivot, scale)
        s += np.float64(run[0])
        q += np.float64(run[1])
    return s, q


@formula
def pivot_of(x, n):
    """About the mean of the first elements; exactly the first where they are all equal."""
    first, last = x.at(0), n - 1
    pivot = first
    for i in range(1, 4):
        pivot = pivot + (x.at(where(last < i, last, i)) - first) * 0.25
    return pivot


@formula
def are_good(s, q, count):
    """Whether the sums about a pivot have lost no digits to a poor pivot or to the range of the dtype."""
    return (s * s <= FAR * q * count) & (q > SMALL) & (q < LARGE)


@primitive
def corrected(x, outer, stride, n, pivot, s, q):
    """count, pivot, mean - pivot and m2 of a tile from its sums about the pivot.

    The sum corrects both mean and m2. Where the pivot was poor or a square left the range of the
    dtype, the sums are taken again about the mean and in a better unit.
    """
    count = np.float64(outer * n)
    inverse = 1.0 / count
    unit = 1.0
    if not are_good(s, q, count):
        if not q < LARGE:
            unit = RESCALE
        elif q <= SMALL:
            unit = 1.0 / RESCALE
        scale = as_element(x, 1.0 / unit)
        s, q = _group_sums(x, outer, stride, n, pivot, scale)
        if s != 0.0:
            pivot = as_element(x, pivot + s * unit * inverse)
            s, q = _group_sums(x, outer, stride, n, pivot, scale)
    mean = s * inverse
    return count, np.float64(pivot), mean * unit, (q - s * mean) * unit * unit


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
def tile_squares(x, n):
    """The sum of squares of a tile; again in a better unit where one left the range of the dtype."""
    q, unit = np.float64(run_squares(x, n)), 1.0
    if not SMALL < q < LARGE:
        unit = RESCALE if not q < LARGE else 1.0 / RESCALE
        q = _group_sums(x, 1, n, n, as_element(x, 0.0), as_element(x, 1.0 / unit))[1]
    return q * unit * unit


@primitive
def tile_moments(x, outer, stride, n):
    """count, pivot, mean - pivot and m2 of a tile: one pass about a mean of its first elements."""
    pivot, s, q = pivot_of(x, n), 0.0, 0.0
    for g in range(outer):
        run = run_sums(offset(x, g * stride), n, pivot)
        s += np.float64(run[0])
        q += np.float64(run[1])
    return corrected(x, outer, stride, n, pivot, s, q)


@formula
def with_tile(moments, tile):
    """count, pivot, mean - pivot and m2 of a group and its next tile together, from those of both.

    Between tiles the mean is kept relative to the first pivot: at mean/sd = 1e8 a float64 mean
    is good to 1e-8 sd only, which would show in m2.
    """
    count, origin, mean, m2 = moments
    n, pivot, mean_of_tile, m2_of_tile = tile
    mean, m2 = merge(count, mean, m2, n, (pivot - origin) + mean_of_tile, m2_of_tile)
    return count + n, origin, mean, m2


@primitive
def merged(tiles, count):
    """mean and m2 of a group from (count, pivot, mean - pivot, m2) of each of its tiles."""
    moments = tiles[0], tiles[1], tiles[2], tiles[3]
    for t in range(4, 4 * count, 4):
        moments = with_tile(moments, (tiles[t], tiles[t + 1], tiles[t + 2], tiles[t + 3]))
    return moments[1] + moments[2], moments[3]


@formula
def as_scale(x, value):
    """A factor in the dtype of x; one beyond its range stays finite, so that 0 * factor = 0."""
    return x.rounded(where(value > x.largest, x.largest, where(value < -x.largest, -x.largest, value)))


@formula
def centre(x, mean, rstd):
    """hi of `centring`: mean in the dtype of x; 0 where sd is so large that x - mean could overflow."""
    narrowest = rstd * x.largest
    return where((narrowest > 0.0) & (narrowest < WIDEST), 0.0, x.rounded(mean))


@formula
def shift_of(x, hi, mean, scale):
    """lo of `centring`: what hi leaves of the mean times -scale, in the dtype of x."""
    return x.rounded((hi - mean) * scale)


@formula
def centring(x, mean, rstd, factor):
    """hi, lo, scale in the dtype of x such that (x - hi) * scale + lo = (x - mean) * rstd * factor.

    lo keeps what the rounding of hi lost.
    """
    hi, scale = centre(x, mean, rstd), as_scale(x, rstd * factor)
    return hi, shift_of(x, hi, mean, scale), scale


@formula
def moved(running, new, factor):
    """A running statistic, moved by `factor` towards a new one."""
    return (1.0 - factor) * running + factor * new


@step
def _zero(i, sums):
    sums[i] = 0.0


@primitive
def zero(sums, n):
    """sums = 0"""
    if sums is None:
        return
    each(n, None, _zero, sums)


@step
def _flush(i, partials, sums):
    partials[i] = partials[i] + sums[i]
    sums[i] = 0.0


@primitive
def flush(sums, partials, n):
    """partials += sums, sums = 0"""
    each(n, None, _flush, partials, sums)


@step
def _add(i, total, partial):
    total[i] = total[i] + partial[i]


@primitive
def add(total, partial, n):
    """total += partial"""
    each(n, None, _add, total, partial)
