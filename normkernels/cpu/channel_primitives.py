"""Primitives over channels: all elements of a channel share mean, weight and bias.

The *constants* of a channel are hi, scale, shift of its output, y = (x - hi) * scale + shift, or hi,
scale, c2, k of its gradient, dx = (dy - c2 + (x - hi) * k) * scale, in the dtype of x.

What is fused is None where it is absent: `residual`, added to the output before the activation `kind`.
The dots then begin with the gradient of the activation, for which they need `affine`, the constants of the
output, and leave it in `dz`, where the gradient finds it.
"""

import numpy as np

from .activations import slope
from .fusion import activated, first_of, plus, where_given
from .jit import primitive
from .loops import each, sums
from .pointers import offset
from .primitives import (
    as_scale,
    centre,
    centring,
    corrected,
    pivot_of,
    run_sums,
    tile_bounds,
)
from .tracing import formula, step
from .vectors import fma


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


def _affine(i, x, hi, scale, shift, residual):
    """(x - hi) * scale + shift + residual"""
    return plus(fma(x[i] - hi, scale, shift), residual, i)


@step
def _normalize(i, y, x, hi, scale, shift, residual, kind):
    y[i] = activated(_affine(i, x, hi, scale, shift, residual), kind)


@primitive
def normalize_run(x, n, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual)"""
    hi, scale, shift = constants
    each(n, stream, _normalize, y, x, hi, scale, shift, residual, kind)


@step
def _gradient(i, dx, dy, x, hi, scale, c2, k, weight):
    d = dy[i] - c2 if weight is None else fma(dy[i], weight, -c2)
    dx[i] = fma(x[i] - hi, k, d) * scale


@primitive
def run_gradient(dy, x, n, a, weight, dx, stream):
    """dx = (dy * weight - c2 + (x - hi) * k) * scale; a: hi, scale, c2, k; a weight of None is 1"""
    hi, scale, c2, k = a
    each(n, stream, _gradient, dx, dy, x, hi, scale, c2, k, weight)


@step
def _add_dots(i, sums, x, dy, hi, r):
    """The sums of dy * (x - hi) * r and of dy."""
    d = dy[i]
    return fma((x[i] - hi) * r, d, sums[0]), sums[1] + d


@step
def _add_dots_before(i, sums, x, dy, hi, r, affine, residual, kind, dz):
    """As `_add_dots` with dz = dy * act'(z) for dy."""
    d = slope(_affine(i, x, *affine, residual), dy[i], kind)
    dz[i] = d
    return fma((x[i] - hi) * r, d, sums[0]), sums[1] + d


@primitive
def run_dots(dy, x, n, hi, r, affine, residual, kind, dz):
    """The sums of dy * (x - hi) * r and of dy over a run."""
    if kind is None:
        run = sums(2, n, _add_dots, x, dy, hi, r)
    else:
        run = sums(2, n, _add_dots_before, x, dy, hi, r, affine, residual, kind, dz)
    return np.float64(run[0]), np.float64(run[1])


@primitive
def tile_dots(dy, x, outer, stride, n, hi, r, affine, residual, kind, dz):
    """The sums of dy * (x - hi) * r and of dy over a tile."""
    dot = s = 0.0
    for g in range(outer):
        k = g * stride
        run = run_dots(
            offset(dy, k), offset(x, k), n, hi, r, affine, offset(residual, k), kind, offset(dz, k)
        )
        dot += run[0]
        s += run[1]
    return dot, s


@formula
def output_constants_at(constants, c, pitch):
    """hi, scale and shift of channel c from rows of them, `pitch` apart."""
    return constants.at(c), constants.at(pitch + c), constants.at(2 * pitch + c)


@primitive
def affine_at(affine, constants, c, pitch):
    """hi, scale and shift of channel c; None where `affine` is. constants: others of the same type."""
    return where_given(output_constants_at(first_of(affine, constants), c, pitch), affine)


@formula
def gradient_constants_at(constants, c, pitch):
    """hi, scale, c2 and k of channel c from rows of them, `pitch` apart."""
    hi, scale, shift = output_constants_at(constants, c, pitch)
    return hi, scale, shift, constants.at(3 * pitch + c)


@primitive
def block_moments(x, t, start, end, outer, channels, inner, pivots, partials):
    """count, pivot, mean - pivot and m2 of tile t of the channels start..end; partials: (tiles, 4, channels).

    Run after run as they lie in memory: from memory a core reads runs of 3 KB that lie far apart at half
    the speed of a stream (measured). pivots: room for one of each channel.
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    x, count = offset(x, run * channels * inner + first), offset(partials, 4 * t * channels)
    pivot, s, q = offset(count, channels), offset(count, 2 * channels), offset(count, 3 * channels)
    for c in range(start, end):
        s[c] = q[c] = 0.0
        pivots[c] = pivot_of(offset(x, c * inner), n)
    for g in range(runs):
        for c in range(start, end):
            run_s, run_q = run_sums(offset(x, (g * channels + c) * inner), n, pivots[c])
            s[c] += np.float64(run_s)
            q[c] += np.float64(run_q)
    for c in range(start, end):
        count[c], pivot[c], s[c], q[c] = corrected(
            offset(x, c * inner), runs, channels * inner, n, pivots[c], s[c], q[c]
        )


@primitive
def block_dots(
    dy, x, residual, t, start, end, outer, channels, inner, kind, dz, constants, affine, partials
):  # fmt: skip
    """Sums of dy * (x - hi) * r and of dy of tile t of channels start..end; partials: (tiles, 2, channels).

    dz: room for the runs of these channels, one after the other as they lie in memory.
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    dots, sums = offset(partials, 2 * t * channels), offset(partials, (2 * t + 1) * channels)
    for c in range(start, end):
        dots[c] = sums[c] = 0.0
    for g in range(run, run + runs):
        for c in range(start, end):
            k = (g * channels + c) * inner + first
            z = (g * (end - start) + c - start) * inner + first
            dot, s = run_dots(
                offset(dy, k), offset(x, k), n, constants[c], constants[channels + c],
                affine_at(affine, constants, c, channels), offset(residual, k), kind, offset(dz, z),
            )  # fmt: skip
            dots[c] += dot
            sums[c] += s
