"""Primitives over channels: all elements of a channel share mean, weight and bias.

The *constants* of a channel are hi, scale, shift of its output, y = (x - hi) * scale + shift, or hi,
scale, c2, k of its gradient, dx = (dy - c2 + (x - hi) * k) * scale, in the dtype of x.

What is fused is None where it is absent: `residual`, added to the output before the activation `kind`.
The dots then begin with the gradient of the activation, for which they need `affine`, the constants of the
output, and leave it in `dz`, where the gradient finds it.
"""

import numpy as np

from .activations import slope
from .extremes import group_statistics
from .fusion import activated, plus
from .jit import primitive
from .loops import each, step, sums
from .pointers import as_element, offset
from .primitives import (
    as_scale,
    centre,
    centring,
    corrected,
    moved,
    pivot_of,
    reciprocal_sd,
    run_sums,
    tile_bounds,
)
from .vectors import fma


@primitive
def forward_constants(x, mean, rstd, weight, bias, constants, stride):
    """hi, scale, shift, `stride` elements apart"""
    hi, lo, scale = centring(x, mean, rstd, weight)
    constants[0], constants[stride], constants[2 * stride] = hi, scale, as_element(x, bias + lo)


@primitive
def gradient_constants(x, mean, rstd, weight, c1, c2, training, constants, stride):
    """hi, scale, c2, k, `stride` elements apart; c1 = mean(dy * x_hat), c2 = mean(dy)

    In evaluation dx = dy * scale: then they are hi = 0, scale, shift = 0.
    """
    constants[stride] = as_scale(x, rstd * weight)
    if training:
        hi, lo, k = centring(x, mean, rstd, -c1)
        constants[0], constants[2 * stride], constants[3 * stride] = hi, as_element(x, c2 - lo), k
    else:
        constants[0] = constants[2 * stride] = as_element(x, 0.0)


@primitive
def correction(mean, rstd, running_mean, running_var, eps, r_max, d_max):
    """r and d of batch renormalization, (1, 0) where they must be: y = (x_hat * r + d) * weight + bias"""
    if r_max == 1.0 and d_max == 0.0:
        return 1.0, 0.0
    running_rstd = reciprocal_sd(running_var, eps)
    r = running_rstd / rstd if rstd != 0.0 else 1.0
    d = (mean - running_mean) * running_rstd
    return min(max(r, 1.0 / r_max), r_max), min(max(d, -d_max), d_max)


@primitive
def unbiased_variance(m2, var, count):
    """m2 / (count - 1); from var where that was not m2 / count, whose squares were out of range."""
    return m2 / (count - 1) if var == m2 / count else var * (count / (count - 1))


@primitive
def _with_running(c, mean, rstd, unbiased, settings, statistics, running_mean, running_var):
    """Move the running statistics of channel c, where there are any; r and d, which they decide before."""
    if running_mean is None:
        return 1.0, 0.0
    r, d, factor = 1.0, 0.0, settings[1]
    old_mean, old_var = np.float64(running_mean[c]), np.float64(running_var[c])
    if len(statistics) > 2:
        r, d = correction(mean, rstd, old_mean, old_var, settings[0], settings[2], settings[3])
        statistics[2, c], statistics[3, c] = r, d
    if factor != 0.0:  # the variance may be inf
        running_mean[c], running_var[c] = moved(old_mean, mean, factor), moved(old_var, unbiased, factor)
    return r, d


@primitive
def finish_moments(
    x, c, outer, channels, inner, mean, m2, weight, bias, state, constants, stride
):  # fmt: skip
    """From mean and m2 to the statistics of channel c and the constants of its output.

    state: settings, which are eps, the weight of this batch in the running statistics, r_max and d_max;
    statistics, rows of mean and rstd, and in batch renormalization of r and d, which the running ones decide;
    and running mean and (unbiased) variance, or None.
    """
    settings, statistics, running_mean, running_var = state
    count = outer * inner
    own, apart = offset(x, c * inner), channels * inner
    mean, var, rstd = group_statistics(own, outer, apart, inner, settings[0], True, mean, m2 / count)
    statistics[0, c], statistics[1, c] = mean, rstd
    unbiased = unbiased_variance(m2, var, count)
    r, d = _with_running(c, mean, rstd, unbiased, settings, statistics, running_mean, running_var)
    forward_constants(x, mean, rstd, weight[c] * r, bias[c] + weight[c] * d, constants, stride)


@primitive
def dot_constants(x, mean, rstd, weight, bias, constants, affine, stride):
    """hi and r: dy * (x - hi) * r is about dy * x_hat and stays in the range of the dtype as that does"""
    constants[0], constants[stride] = centre(x, mean, rstd), as_scale(x, rstd)
    if affine is not None:
        forward_constants(x, mean, rstd, weight, bias, affine, stride)


@primitive
def finish_dots(x, c, count, dot, s, weight, mean, rstd, training, dweight, dbias, constants, stride):
    """From its dots to the sums and the gradient of channel c.

    The dots are the sums of dy * (x - hi) * r, where the constants begin with hi and r, and of dy.
    """
    dweight[c], dbias[c] = dot + (constants[0] - mean[c]) * constants[stride] * s, s
    c1, c2 = dweight[c] / count, dbias[c] / count
    gradient_constants(x, mean[c], rstd[c], weight[c], c1, c2, training, constants, stride)


def _affine(i, x, hi, scale, shift, residual):
    """(x - hi) * scale + shift + residual"""
    return plus(fma(x[i] - hi, scale, shift), residual, i)


@step
def _normalize(i, y, x, hi, scale, shift, residual, kind):
    y[i] = activated(_affine(i, x, hi, scale, shift, residual), kind)


@primitive
def normalize_run(x, n, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual)"""
    each(n, stream, _normalize, y, x, constants[0], constants[1], constants[2], residual, kind)


@step
def _gradient(i, dx, dy, x, hi, scale, c2, k, weight):
    d = dy[i] - c2 if weight is None else fma(dy[i], weight, -c2)
    dx[i] = fma(x[i] - hi, k, d) * scale


@primitive
def run_gradient(dy, x, n, a, weight, dx, stream):
    """dx = (dy * weight - c2 + (x - hi) * k) * scale; a: hi, scale, c2, k; a weight of None is 1"""
    each(n, stream, _gradient, dx, dy, x, a[0], a[1], a[2], a[3], weight)


@step
def _add_dots(i, sums, x, dy, hi, r):
    """The sums of dy * (x - hi) * r and of dy."""
    d = dy[i]
    return fma((x[i] - hi) * r, d, sums[0]), sums[1] + d


@step
def _add_dots_before(i, sums, x, dy, hi, r, z_hi, z_scale, z_shift, residual, kind, dz):
    """As `_add_dots` with dz = dy * act'(z) for dy."""
    d = slope(_affine(i, x, z_hi, z_scale, z_shift, residual), dy[i], kind)
    dz[i] = d
    return fma((x[i] - hi) * r, d, sums[0]), sums[1] + d


@primitive
def run_dots(dy, x, n, hi, r, affine, residual, kind, dz):
    """The sums of dy * (x - hi) * r and of dy over a run."""
    if kind is None:
        run = sums(2, n, _add_dots, x, dy, hi, r)
    else:
        run = sums(2, n, _add_dots_before, x, dy, hi, r, affine[0], affine[1], affine[2], residual, kind, dz)
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


@primitive
def block_moments(x, t, start, end, outer, channels, inner, constants, partials):
    """count, pivot, mean - pivot and m2 of tile t of the channels start..end.

    Run after run as they lie in memory: from memory a core reads runs of 3 KB that lie far apart at half
    the speed of a stream (measured).
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    x = offset(x, run * channels * inner + first)
    for c in range(start, end):
        partials[c, t, 0] = partials[c, t, 1] = 0.0
        constants[c, 0] = pivot_of(offset(x, c * inner), n)
    for g in range(runs):
        for c in range(start, end):
            s, q = run_sums(offset(x, (g * channels + c) * inner), n, constants[c, 0])
            partials[c, t, 0] += np.float64(s)
            partials[c, t, 1] += np.float64(q)
    for c in range(start, end):
        moments = corrected(
            offset(x, c * inner), runs, channels * inner, n, constants[c, 0], partials[c, t, 0],
            partials[c, t, 1],
        )  # fmt: skip
        for j in range(4):
            partials[c, t, j] = moments[j]


@primitive
def block_dots(
    dy, x, residual, t, start, end, outer, channels, inner, kind, dz, constants, affine, partials
):  # fmt: skip
    """Sums of dy * (x - hi) * r and of dy of tile t of the channels start..end, as `block_moments`.

    dz: room for the runs of these channels, one after the other as they lie in memory.
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    for c in range(start, end):
        partials[c, t, 0] = partials[c, t, 1] = 0.0
    for g in range(run, run + runs):
        for c in range(start, end):
            k = (g * channels + c) * inner + first
            own = (g * (end - start) + c - start) * inner + first
            dots = run_dots(
                offset(dy, k), offset(x, k), n, constants[c, 0], constants[c, 1], offset(affine, 4 * c),
                offset(residual, k), kind, offset(dz, own),
            )  # fmt: skip
            partials[c, t, 0] += dots[0]
            partials[c, t, 1] += dots[1]
