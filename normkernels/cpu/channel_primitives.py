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
from .jit import primitive, step
from .primitives import (
    add_run,
    as_scale,
    centre,
    centring,
    corrected,
    fetch,
    merged,
    pivot_of,
    put,
    reciprocal_sd,
    streamed_head,
    tile_bounds,
)
from .vectors import as_element, fma, lanes, load, offset, pointer, store, total, zeros


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
def finish_moments(
    x, c, outer, channels, inner, weight, bias, settings, statistics, partials, tiles, constants, stride
):  # fmt: skip
    """From the moments of its tiles to the statistics of channel c and the constants of its output.

    settings: eps, the weight of this batch in the running statistics, r_max, d_max. statistics: rows of
    mean, rstd, running mean, running (unbiased) variance, and the r and d that the two before decide.
    """
    eps, factor, r_max, d_max = settings[0], settings[1], settings[2], settings[3]
    running_mean, running_var = offset(statistics, 2 * channels), offset(statistics, 3 * channels)
    mean, m2 = merged(offset(partials, 4 * tiles * c), tiles)
    count = outer * inner
    own, apart = offset(x, c * inner), channels * inner
    mean, var, rstd = group_statistics(own, outer, apart, inner, eps, True, mean, m2 / count)
    unbiased = m2 / (count - 1) if var == m2 / count else var * (count / (count - 1))
    r, d = correction(mean, rstd, running_mean[c], running_var[c], eps, r_max, d_max)
    if factor != 0.0:  # the variance may be inf
        running_mean[c] = (1.0 - factor) * running_mean[c] + factor * mean
        running_var[c] = (1.0 - factor) * running_var[c] + factor * unbiased
    statistics[c], statistics[channels + c] = mean, rstd
    statistics[4 * channels + c], statistics[5 * channels + c] = r, d
    forward_constants(x, mean, rstd, weight[c] * r, bias[c] + weight[c] * d, constants, stride)


@primitive
def dot_constants(x, mean, rstd, weight, bias, constants, affine, stride):
    """hi and r: dy * (x - hi) * r is about dy * x_hat and stays in the range of the dtype as that does"""
    constants[0], constants[stride] = centre(x, mean, rstd), as_scale(x, rstd)
    if affine is not None:
        forward_constants(x, mean, rstd, weight, bias, affine, stride)


@primitive
def finish_dots(
    x, c, count, weight, mean, rstd, training, partials, tiles, dweight, dbias, constants, stride
):  # fmt: skip
    """From the dots of its tiles to the sums and the gradient of channel c.

    The dots are sums of dy * (x - hi) * r, where the constants begin with hi and r.
    """
    dot = dbias[c] = 0.0
    for k in range(2 * tiles * c, 2 * tiles * (c + 1), 2):
        dot += partials[k]
        dbias[c] += partials[k + 1]
    dweight[c] = dot + (constants[0] - mean[c]) * constants[stride] * dbias[c]
    c1, c2 = dweight[c] / count, dbias[c] / count
    gradient_constants(x, mean[c], rstd[c], weight[c], c1, c2, training, constants, stride)


@step
def _affine(x, i, n, constants, residual):
    """(x - hi) * scale + shift + residual"""
    z = fma(fetch(x, i, n, constants[0]) - constants[0], constants[1], constants[2])
    return plus(z, residual, i, n)


@primitive
def normalize_run(x, n, constants, residual, kind, y, stream):
    """y = act((x - hi) * scale + shift + residual)"""
    i = streamed_head(y, n, stream)
    if i > 0:
        put(y, 0, i, activated(_affine(x, 0, i, constants, residual), kind), stream)
    while i + lanes(x) <= n:
        put(y, i, None, activated(_affine(x, i, None, constants, residual), kind), stream)
        i += lanes(x)
    if i < n:
        put(y, i, n - i, activated(_affine(x, i, n - i, constants, residual), kind), stream)


@step
def _run_gradient(dy, x, i, n, a, weight, dx, stream):
    d = fetch(dy, i, n, a[0])
    d = d - a[2] if weight is None else fma(d, weight, -a[2])
    d = fma(fetch(x, i, n, a[0]) - a[0], a[3], d)
    put(dx, i, n, d * a[1], stream)


@primitive
def run_gradient(dy, x, n, a, weight, dx, stream):
    """dx = (dy * weight - c2 + (x - hi) * k) * scale; a: hi, scale, c2, k; a weight of None is 1"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        _run_gradient(dy, x, 0, i, a, weight, dx, stream)
    while i + lanes(x) <= n:
        _run_gradient(dy, x, i, None, a, weight, dx, stream)
        i += lanes(x)
    if i < n:
        _run_gradient(dy, x, i, n - i, a, weight, dx, stream)


@step
def _add_dot(dy, x, i, n, hi, r, affine, residual, kind, dz, s, q):
    d = fetch(dy, i, n, as_element(x, 0.0))
    if kind is not None:
        d = slope(_affine(x, i, n, affine, residual), d, kind)
        put(dz, i, n, d, False)
    return s + d, fma((fetch(x, i, n, hi) - hi) * r, d, q)


@primitive
def _add_dots(dy, x, n, hi, r, affine, residual, kind, dz, s, q):
    """The vectors s and q plus dy and dy * (x - hi) * r of a run."""
    whole = n - n % lanes(x)
    for i in range(0, whole, lanes(x)):
        s, q = _add_dot(dy, x, i, None, hi, r, affine, residual, kind, dz, s, q)
    if whole < n:
        s, q = _add_dot(dy, x, whole, n - whole, hi, r, affine, residual, kind, dz, s, q)
    return s, q


@primitive
def tile_dots(dy, x, outer, stride, n, hi, r, affine, residual, kind, dz):
    """Sums of dy * (x - hi) * r and of dy over a tile."""
    s = zeros(x)
    q = zeros(x)
    for k in range(0, outer * stride, stride):
        s, q = _add_dots(
            offset(dy, k), offset(x, k), n, hi, r, affine, offset(residual, k), kind, offset(dz, k), s, q
        )
    return np.float64(total(q)), np.float64(total(s))


@primitive
def room(scratch, c):
    """Where channel c keeps two vectors of sums."""
    return offset(pointer(scratch), c * scratch.shape[1])


@primitive
def block_moments(x, t, start, end, outer, channels, inner, scratch, constants, partials):
    """count, pivot, mean - pivot and m2 of tile t of the channels start..end.

    Run after run as they lie in memory, with the sums of every channel in `scratch`: from memory a
    core reads runs of 3 KB that lie far apart at half the speed of a stream (measured).
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    one = as_element(x, 1.0)
    x = offset(x, run * channels * inner + first)
    for c in range(start, end):
        s = room(scratch, c)
        store(s, 0, zeros(x))
        store(s, lanes(x), zeros(x))
        constants[c, 0] = pivot_of(offset(x, c * inner), n)
    for g in range(runs):
        for c in range(start, end):
            s = room(scratch, c)
            tile = offset(x, (g * channels + c) * inner)
            v, w = add_run(tile, n, constants[c, 0], one, load(s, 0), load(s, lanes(x)))
            store(s, 0, v)
            store(s, lanes(x), w)
    for c in range(start, end):
        s = room(scratch, c)
        v, w = np.float64(total(load(s, 0))), np.float64(total(load(s, lanes(x))))
        moments = corrected(offset(x, c * inner), runs, channels * inner, n, constants[c, 0], v, w)
        for j in range(4):
            partials[c, t, j] = moments[j]


@primitive
def block_dots(
    dy, x, residual, t, start, end, outer, channels, inner, kind, dz, scratch, constants, affine, partials
):  # fmt: skip
    """Sums of dy * (x - hi) * r and of dy of tile t of the channels start..end, as `block_moments`.

    dz: room for the runs of these channels, one after the other as they lie in memory.
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    for c in range(start, end):
        s = room(scratch, c)
        store(s, 0, zeros(x))
        store(s, lanes(x), zeros(x))
    for g in range(run, run + runs):
        for c in range(start, end):
            s, k = room(scratch, c), (g * channels + c) * inner + first
            own = (g * (end - start) + c - start) * inner + first
            v, w = _add_dots(
                offset(dy, k), offset(x, k), n, constants[c, 0], constants[c, 1], offset(affine, 4 * c),
                offset(residual, k), kind, offset(dz, own), load(s, 0), load(s, lanes(x)),
            )  # fmt: skip
            store(s, 0, v)
            store(s, lanes(x), w)
    for c in range(start, end):
        s = room(scratch, c)
        partials[c, t, 0] = total(load(s, lanes(x)))
        partials[c, t, 1] = total(load(s, 0))
