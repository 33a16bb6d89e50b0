"""Primitives over channels: all elements of a channel share mean, weight and bias.

The *constants* of a channel are hi, scale, shift of its output, y = (x - hi) * scale + shift, or hi,
scale, c2, k of its gradient, dx = (dy - c2 + (x - hi) * k) * scale, in the dtype of x. A run of elements has
them as numbers, or as `Rows`, where each element has its own.

What is fused is None where it is absent: `residual`, added to the output before the activation `kind`.
The dots then begin with the gradient of the activation, for which they need `affine`, the constants of the
output, and leave it in `dz`, where the gradient finds it.
"""

from typing import NamedTuple

import numpy as np

from .activations import slope
from .fusion import activated, copy_run, plus, where_given
from .jit import inlined, primitive
from .loops import each, sums
from .pointers import dtype_of, offset
from .primitives import as_scale, centre, centring
from .tracing import formula, step
from .vectors import fma


class Rows(NamedTuple):
    """Rows of numbers, one for every channel or column, `pitch` apart."""

    first: object
    pitch: int


@primitive
def room_for_constants(width, weight, kind):
    """Rows over so many channels or columns: 4, and with an activation 4 for the output in a backward."""
    return Rows(np.empty((4 if kind is None else 8, width), dtype_of(weight)), width)


class Forward(NamedTuple):
    """The arrays of a forward pass, and what is done with their elements; `stream` as for `loops.each`."""

    x: object
    residual: object
    kind: object
    y: object
    stream: bool


class Backward(NamedTuple):
    """The same of a backward pass; dresidual, where there is one, receives the gradient before `kind`."""

    dy: object
    x: object
    residual: object
    kind: object
    dx: object
    dresidual: object
    stream: bool


@formula
def output_constants(x, mean, rstd, weight, bias):
    """hi, scale and shift of the output of a channel"""
    hi, lo, scale = centring(x, mean, rstd, weight)
    return hi, scale, x.rounded(bias + lo)


@formula
def dot_constants(x, mean, rstd):
    """hi and r: dy * (x - hi) * r is about dy * x_hat and stays in the range of the dtype as that does"""
    return centre(x, mean, rstd), as_scale(x, rstd)


@formula
def gradient_constants(x, mean, rstd, weight, c1, c2):
    """hi, scale, c2 and k of the gradient of a channel; c1 = mean(dy * x_hat), c2 = mean(dy)"""
    hi, lo, k = centring(x, mean, rstd, -c1)
    return hi, as_scale(x, rstd * weight), x.rounded(c2 - lo), k


def _at(constants, i, count):
    """The first constants of element i."""
    if isinstance(constants, Rows):
        return [constants.first[i + k * constants.pitch] for k in range(count)]
    return constants[:count]


def _fetch_next(i, constants, *arrays):
    """Fetch what is read next: of columns the next row, or the next block of them.

    Only where the output goes past the caches: 10 % faster there, up to 5 % slower where all is in them.
    """
    if isinstance(constants, Rows) and i.streaming:
        for array in arrays:
            array.prefetch(i + constants.pitch, 2)


def _affine(i, x, constants, residual):
    """(x - hi) * scale + shift + residual"""
    hi, scale, shift = _at(constants, i, 3)
    return plus(fma(x[i] - hi, scale, shift), residual, i)


@step
def _normalize(i, y, x, constants, residual, kind):
    _fetch_next(i, constants, x)
    y[i] = activated(_affine(i, x, constants, residual), kind)


@primitive
def normalize_run(x, n, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual)"""
    each(n, stream, _normalize, y, x, constants, residual, kind)


@step
def _gradient(i, dx, dy, x, constants, weight):
    _fetch_next(i, constants, dy, x)
    hi, scale, c2, k = _at(constants, i, 4)
    d = dy[i] - c2 if weight is None else fma(dy[i], weight, -c2)
    dx[i] = fma(x[i] - hi, k, d) * scale


@primitive
def run_gradient(dy, x, n, constants, weight, dx, stream):
    """dx = (dy * weight - c2 + (x - hi) * k) * scale; a weight of None is 1"""
    each(n, stream, _gradient, dx, dy, x, constants, weight)


@inlined
def write_gradient(dz, a, n, constants, training):
    """dx and dresidual of n elements from dz, the gradient before the activation; a: Backward, at the first.

    In evaluation dx = dz * scale.
    """
    copy_run(dz, n, a.dresidual, a.stream)
    if training:
        run_gradient(dz, a.x, n, constants, None, a.dx, a.stream)
    else:
        normalize_run(dz, n, constants, None, None, a.dx, a.stream)


@step
def _slope(i, dz, a, affine):
    dz[i] = slope(_affine(i, a.x, affine, a.residual), a.dy[i], a.kind)


@primitive
def write_slope(a, n, affine, dz):
    """dz = dy * act'(z) of n elements, where there is an activation; a: a Backward, at the first."""
    if dz is not None:
        each(n, None, _slope, dz, a, affine)


@step
def _add_dots(i, sums, x, dy, centre, fused):
    """The sums of dy * (x - hi) * r and of dy; with an activation of dz = dy * act'(z)."""
    d, (hi, r), (affine, residual, kind, dz) = dy[i], centre, fused
    if kind is not None:
        d = slope(_affine(i, x, affine, residual), d, kind)
        dz[i] = d
    return fma((x[i] - hi) * r, d, sums[0]), sums[1] + d


@primitive
def run_dots(dy, x, n, centre, affine, residual, kind, dz):
    """The sums of dy * (x - hi) * r and of dy over a run; centre: hi and r"""
    run = sums(2, n, _add_dots, x, dy, centre, (affine, residual, kind, dz))
    return np.float64(run[0]), np.float64(run[1])


@formula
def constants_at(constants, c):
    """Those of channel c, from rows of them."""
    first, pitch = constants
    return first.at(c), first.at(pitch + c), first.at(2 * pitch + c), first.at(3 * pitch + c)


@primitive
def affine_rows(constants, kind):
    """The constants of the output: with an activation they follow on the four rows of the gradient's."""
    return constants if kind is None else offset(constants, 4 * constants.pitch)


@primitive
def affine_at(constants, c, kind):
    """Those of channel c; None where there is no activation."""
    return where_given(constants_at(affine_rows(constants, kind), c), kind)
