"""Activations and their slopes on vectors; the form says which one follows a norm."""

import math

from .._layout import ACTIVATIONS
from .jit import SIMULATED, primitive

if SIMULATED:
    from .emulated import exp, filled, normal, where_negative, where_positive_or_nan
else:
    from .vectors import exp, filled, normal, where_negative, where_positive_or_nan

RELU, SIGMOID, SILU, GELU = (ACTIVATIONS.index(a) for a in ("relu", "sigmoid", "silu", "gelu"))
# Beyond this exp(-z) and the tail of the normal distribution are 0 in float64 too.
FARTHEST = 1e4
DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)


@primitive
def _not_below(z):
    """z, held where exp vanishes: there 0 * z is 0 as the limit is, also at -inf."""
    return where_negative(z + FARTHEST, filled(z, -FARTHEST), z)


@primitive
def _not_beyond(z):
    """The same on both sides"""
    return _not_below(_not_below(z) * -1.0) * -1.0


@primitive
def _sigmoids(z):
    """sigmoid(z) and sigmoid(-z)"""
    e = exp(where_negative(z, z, z * -1.0))
    r = 1.0 / (e + 1.0)
    small = e * r
    return where_negative(z, small, r), where_negative(z, r, small)


@primitive
def activated(z, form):
    """The activation at z; z itself where there is none."""
    if form.kind == RELU:
        return where_negative(z, filled(z, 0.0), z)
    if form.kind == SIGMOID:
        return _sigmoids(z)[0]
    if form.kind == SILU:
        return _not_below(z) * _sigmoids(z)[0]
    if form.kind == GELU:
        return _not_below(z) * normal(z)
    return z


@primitive
def slope(z, dy, form):
    """dy times the derivative of the activation at z; dy itself where there is none."""
    if form.kind == RELU:
        return where_positive_or_nan(z, dy, filled(z, 0.0))
    if form.kind == SIGMOID:
        s, t = _sigmoids(z)
        return dy * s * t
    if form.kind == SILU:
        s, t = _sigmoids(z)
        return dy * (s * _not_beyond(z) * t + s)
    if form.kind == GELU:
        held = _not_beyond(z)
        return dy * (held * (exp(held * held * -0.5) * DENSITY_AT_ZERO) + normal(z))
    return dy
