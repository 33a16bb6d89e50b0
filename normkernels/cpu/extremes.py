"""Statistics of groups that the kernels cannot square: they are read again and scaled before squaring.

The kernels keep m2, a sum of squares, in float64, which holds those of every float32. The squares of float64
data above about 1e150 overflow there, those below 1e-150 vanish, and a difference of two numbers of either
dtype can overflow before it is squared. All of this shows in rstd, so one comparison for a group finds it.
"""

import math
from typing import NamedTuple

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


class Group(NamedTuple):
    """x + residual, which may be None, in `outer` runs of n elements that lie `stride` apart."""

    x: object
    residual: object
    outer: int
    stride: int
    n: int


@primitive
def _sums(group, scale, origin):
    """The largest absolute value of h = x + residual, and the sums of d = h * scale - origin and of d * d."""
    top = s = q = 0.0
    room = tile_on_stack(group.residual)
    for g in range(group.outer):
        for t in range(0, group.n, TILE):
            own, count = offset(group, g * group.stride + t), min(TILE, group.n - t)
            h = add_residual(own.x, own.residual, count, room, None, None)
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
def _all_are(group, value):
    """Whether every element of x is this value; it ends at the first that is not."""
    for g in range(group.outer):
        for i in range(group.n):
            if np.float64(element(group.x, g * group.stride + i)) != value:
                return False
    return True


@primitive
def _statistics_again(group, divisor, eps, centred, mean, var):
    """mean, var = m2 / divisor and rstd of a group, taken in a unit of its own, a power of two.

    mean and var are those found before, which a group keeps that is constant, or has a NaN or an infinity.
    """
    if centred and group.residual is None and var == eps == 0.0 and _all_are(group, mean):
        return mean, var, reciprocal_sd(var, eps)  # as below, in a third of the time
    count = np.float64(group.outer) * group.n
    top, s, _ = _sums(group, TINY, 0.0)
    if s - s != 0.0:
        return mean, var, reciprocal_sd(var, eps)
    exponent = math.frexp(max(top, math.sqrt(eps)))[1]
    scale = math.ldexp(1.0, min(max(-exponent, -1000), 1000))
    unit, origin = 1.0 / scale, 0.0
    if centred:
        first = add_residual(group.x, group.residual, 1, tile_on_stack(group.residual), None, None)
        origin = np.float64(element(first, 0)) * scale
        _, s, _ = _sums(group, scale, origin)
        origin += s / count
    _, s, q = _sums(group, scale, origin)
    if centred:
        origin += s / count
        q -= s * (s / count)
    var = q / divisor
    rstd = reciprocal_sd(var + eps * scale * scale, 0.0) * scale
    return origin * unit, var * unit * unit, rstd


@primitive
def statistics_of(group, divisor, eps, centred, mean, var):
    """mean, var = m2 / divisor and rstd of a group from its mean and var, or its elements if these fail."""
    rstd = reciprocal_sd(var, eps)
    constant = var == 0.0 and largest(group.x) < MOST  # in float64 a square may vanish
    if constant or usual(rstd):
        return mean, var, rstd
    return _statistics_again(group, divisor, eps, centred, mean, var)


@primitive
def group_statistics(x, outer, stride, n, eps, centred, mean, var):
    """As `statistics_of`, of a group without a residual, whose m2 is divided by its elements."""
    return statistics_of(Group(x, None, outer, stride, n), outer * n, eps, centred, mean, var)
