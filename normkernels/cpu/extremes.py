"""Statistics of groups that the kernels cannot square: they are read again and scaled before squaring.

The kernels keep m2, a sum of squares, in float64, which holds those of every float32. The squares of float64
data above about 1e150 overflow there, those below 1e-150 vanish, and a difference of two numbers of either
dtype can overflow before it is squared. All of this shows in rstd, so one comparison for a group finds it.
"""

import math

import numpy as np

from .fusion import add_residual, tile_on_stack
from .jit import primitive
from .pointers import element, largest, offset
from .primitives import reciprocal_sd
from .tracing import formula
from .tuning import TILE

# Within this range of rstd no square that counts in it has left the range of float64.
LEAST, MOST = 1e-140, 1e140
# By this any float64 can be scaled, and so many of them be added, without overflow.
TINY = 2.0**-100


@formula
def usual(rstd):
    """Whether the squares behind this rstd were in range; rstd is 0 or NaN where they overflowed."""
    return (rstd > LEAST) & (rstd < MOST)


@primitive
def _sums(x, residual, outer, stride, n, scale, origin):
    """The largest absolute value of h = x + residual, and the sums of d = h * scale - origin and of d * d."""
    top = s = q = 0.0
    room = tile_on_stack(residual)
    for g in range(outer):
        for t in range(0, n, TILE):
            k, count = g * stride + t, min(TILE, n - t)
            h = add_residual(offset(x, k), offset(residual, k), count, room, None, None)
            s_tile = q_tile = 0.0
            for i in range(count):
                value = np.float64(element(h, i))
                top = max(top, abs(value))
                d = value * scale - origin
                s_tile += d
                q_tile += d * d
            s += s_tile
            q += q_tile
    return top, s, q


@primitive
def _all_are(x, outer, stride, n, value):
    """Whether every element is this value; it ends at the first that is not."""
    for g in range(outer):
        for i in range(n):
            if np.float64(element(x, g * stride + i)) != value:
                return False
    return True


@primitive
def statistics_again(x, residual, outer, stride, n, divisor, eps, centred, mean, var, rstd):
    """mean, var = m2 / divisor and rstd of a group, taken in a unit of its own, a power of two.

    The group is x + residual, which may be None, `outer` runs of n elements, `stride` apart. mean, var and
    rstd are those found before, which a group keeps that is constant, or has a NaN or an infinity.
    """
    if centred and residual is None and var == eps == 0.0 and _all_are(x, outer, stride, n, mean):
        return mean, var, rstd  # as below, in a third of the time
    count = np.float64(outer) * n
    top, s, _ = _sums(x, residual, outer, stride, n, TINY, 0.0)
    if s - s != 0.0:
        return mean, var, rstd
    exponent = math.frexp(max(top, math.sqrt(eps)))[1]
    scale = math.ldexp(1.0, min(max(-exponent, -1000), 1000))
    unit, origin = 1.0 / scale, 0.0
    if centred:
        first = add_residual(x, residual, 1, tile_on_stack(residual), None, None)
        origin = np.float64(element(first, 0)) * scale
        _, s, _ = _sums(x, residual, outer, stride, n, scale, origin)
        origin += s / count
    _, s, q = _sums(x, residual, outer, stride, n, scale, origin)
    if centred:
        origin += s / count
        q -= s * (s / count)
    var = q / divisor
    rstd = reciprocal_sd(var + eps * scale * scale, 0.0) * scale
    return origin * unit, var * unit * unit, rstd


@primitive
def group_statistics(x, outer, stride, n, eps, centred, mean, var):
    """mean, var and rstd of a group from its mean and var, or from its elements where these are no use."""
    rstd = reciprocal_sd(var, eps)
    constant = var == 0.0 and largest(x) < MOST  # in float64 a square may vanish
    if constant or usual(rstd):
        return mean, var, rstd
    return statistics_again(x, None, outer, stride, n, outer * n, eps, centred, mean, var, rstd)
