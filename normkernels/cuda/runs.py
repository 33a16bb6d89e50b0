"""Kernels over an array seen as (outer, channels, inner): runs of `inner` elements, parameters per channel.

A *piece* is what a team takes: `width` elements at one place of the runs of a channel in `depth` samples, one
run after the other. Pieces are counted by samples, then channels, then places, `tiles` of them in a run.

A *statistic* belongs to the channel, or to a sample and a group of channels: run (o, c) has number
`o * apart + c // per_group`; apart is 0 or the number of groups, and where it is not 0 pieces are of one
sample. The partial results of a statistic are `spans` stretches of `stretch` pieces, those of a sample apart.

Every kernel reads its inputs once, and a team has one piece, or one statistic: a loop over them would take up
to twice the registers. Fused are, where they are not None, `residual`, which is added to the output, and the
activation of the form, which comes after it.
"""

import numpy as np

from .jit import kernel, primitive
from .primitives import (
    activated,
    added,
    as_element,
    as_scale,
    block,
    centring,
    inside,
    load,
    member,
    merge,
    move_running,
    number,
    offset,
    output_constants,
    pivot_of,
    plus,
    position,
    put,
    reciprocal_sd,
    relative_moments,
    renorm_constants,
    slope,
    squares,
    store,
    team_merged,
    team_of_grid,
    team_sums,
    thread,
    total,
)


@primitive
def _samples(depth):
    """depth; None is a 1 that the compiler knows, which saves the loop and half of the registers."""
    if depth is None:
        return 1
    return depth


@primitive
def _count(outer, channels, tiles, depth):
    """How many pieces there are."""
    return -(-outer // _samples(depth)) * channels * tiles


@primitive
def _piece(j, outer, channels, inner, width, tiles, depth):
    """Of piece j: its first sample, the one past the last, channel, first element, number of elements."""
    sample, first = j // (channels * tiles) * _samples(depth), j % tiles * width
    end = min(sample + _samples(depth), outer) if depth is not None else sample + 1
    return sample, end, j // tiles % channels, first, min(width, inner - first)


@primitive
def _partial(k, s, groups, stretch, pieces):
    """The k-th piece of statistic s; pieces: of a sample."""
    return (s // groups + k // stretch) * pieces + s % groups * stretch + k % stretch


@primitive
def _affine(h, hi, scale, shift, residual, dy):
    """What the activation is applied to; without h, where it is not needed, anything."""
    if h is None:
        return dy
    return plus((h - hi) * scale + shift, residual)


@primitive
def _projection_constants(x, mean, rstd, c1, c2, s):
    """k, shift such that (x - hi) * k - shift = -x_hat * c1 - c2."""
    if c1 is None:
        return as_element(x, 0.0), as_element(x, 0.0)
    _, lo, k = centring(x, mean, -rstd * c1[s])
    return k, as_element(x, c2[s] - np.float64(lo))


@primitive
def _projected(d, h, hi, k, shift, c1):
    """d - x_hat * c1 - c2; d in evaluation, where the statistics are constants."""
    if c1 is None:
        return d
    return d - shift + (h - hi) * k


@primitive
def _composed(dot, s, r, d, c):
    """The gradient of the weight: y = (x_hat * r + d) * weight + bias."""
    if r is None:
        return dot
    return dot * r[c] + s * d[c]


@kernel
def moments(x, residual, outer, channels, inner, width, tiles, depth, summed, partials, form):
    """partials: count, pivot, mean - pivot, m2 of every piece of x + residual, which `summed` receives.

    Not centred pivot and mean are 0.

    The pivot of the first run is no further than two standard deviations from its mean, and so good enough
    to add up sums of squares about it in float64.
    """
    t, team, pieces = member(form), team_of_grid(form), _count(outer, channels, tiles, depth)
    # Teams beyond the last piece take it too and write nothing: no thread misses a barrier.
    j = min(team, pieces - 1)
    sample, end, c, first, n = _piece(j, outer, channels, inner, width, tiles, depth)
    origin = s = q = 0.0
    for o in range(sample, sample + _samples(depth)):
        k = (min(o, end - 1) * channels + c) * inner + first
        piece, other = offset(x, k), offset(residual, k)
        p = position(piece, t, form)
        h = added(x, load(piece, p, n, form), other, p, n, form)
        if form.centred:
            pivot, mean_o, m2_o = relative_moments(h, pivot_of(piece, other, n), p, n, form, None, None, 1)
        else:
            pivot, mean_o, m2_o = 0.0, 0.0, squares(h, form, None, None, 1)
        # Not before all have read x and residual: it may be either.
        store(offset(summed, k), p, n if team < pieces else 0, form, h)
        if o == sample:
            origin = pivot
        if o < end:
            delta = (pivot - origin) + mean_o
            s += delta
            q += m2_o + delta * delta * n
    if t == 0 and team < pieces:
        runs = np.float64(end - sample)
        partials[4 * j], partials[4 * j + 1] = runs * n, origin
        partials[4 * j + 2], partials[4 * j + 3] = s / runs, q - s * (s / runs) * n


@kernel
def merged(
    partials, statistics, groups, stretch, spans, pieces, eps, factor, r_max, d_max, mean, var, rstd,
    running_mean, running_var, r, d, form,
):  # fmt: skip
    """mean, var and rstd of every statistic; running statistics, with the unbiased variance, in place.

    r and d of batch renormalization, y = (x_hat * r + d) * weight + bias, come of the running statistics
    before. Between pieces the mean is kept relative to the first pivot: at mean/sd = 1e8 a float64 mean is
    good to 1e-8 sd only, which would show in m2.
    """
    t, team = member(form), team_of_grid(form)
    s = min(team, statistics - 1)
    origin = partials[4 * _partial(0, s, groups, stretch, pieces) + 1]
    count = mean_s = m2 = 0.0
    for k in range(t, spans * stretch, form.threads):
        j = 4 * _partial(k, s, groups, stretch, pieces)
        n_k, pivot = partials[j], partials[j + 1]
        mean_s, m2 = merge(count, mean_s, m2, n_k, (pivot - origin) + partials[j + 2], partials[j + 3])
        count += n_k
    count, mean_s, m2 = team_merged(count, mean_s, m2, form)
    if t == 0 and team < statistics:
        mean_s += origin
        rstd_s = reciprocal_sd(m2 / count, eps)
        r_s, d_s = renorm_constants(s, mean_s, rstd_s, eps, r_max, d_max, running_mean, running_var)
        put(r, s, r_s)
        put(d, s, d_s)
        move_running(s, mean_s, m2, count, factor, running_mean, running_var)
        put(mean, s, mean_s)
        put(var, s, m2 / count)
        put(rstd, s, rstd_s)


@kernel
def normalize(
    x, residual, outer, channels, inner, width, tiles, depth, apart, per_group, mean, rstd, weight, bias, y,
    form,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual).

    From the back: what `moments` read last may still be in the cache.
    """
    t, pieces = member(form), _count(outer, channels, tiles, depth)
    j = pieces - 1 - team_of_grid(form)
    if j < 0:
        return
    sample, end, c, first, n = _piece(j, outer, channels, inner, width, tiles, depth)
    s = sample * apart + c // per_group
    hi, scale, shift = output_constants(
        x, number(mean, s, 0.0), number(rstd, s, 0.0), number(weight, c, 1.0), number(bias, c, 0.0)
    )
    for o in range(sample, end):
        k = (o * channels + c) * inner + first
        p = position(offset(x, k), t, form)
        h = load(offset(x, k), p, n, form)
        z = plus((h - hi) * scale + shift, load(offset(residual, k), p, n, form))
        store(offset(y, k), p, n, form, activated(z, form))


@kernel
def dots(
    dy, x, residual, outer, channels, inner, width, tiles, depth, apart, per_group, mean, rstd, weight, bias,
    dresidual, dx, partials, form,
):  # fmt: skip
    """partials: the sums of dz * x_hat and of dz of every piece; dresidual = dz, dy before the activation.

    dx = dz * weight * rstd is that of statistics which are constants, else None.
    """
    t, team, pieces = member(form), team_of_grid(form), _count(outer, channels, tiles, depth)
    j = min(team, pieces - 1)
    sample, end, c, first, n = _piece(j, outer, channels, inner, width, tiles, depth)
    s = sample * apart + c // per_group
    hi, lo, scale = centring(x, number(mean, s, 0.0), number(rstd, s, 0.0))
    w, b = as_element(x, number(weight, c, 1.0)), as_element(x, number(bias, c, 0.0))
    r, own = as_scale(x, number(rstd, s, 0.0)), n if team < pieces else 0
    dot = sum_ = as_element(x, 0.0)
    for o in range(sample, end):
        k = (o * channels + c) * inner + first
        p = position(offset(x, k), t, form)
        x_hat = inside((load(offset(x, k), p, n, form) - hi) * scale + lo, p, n, form)
        z = plus(x_hat * w + b, load(offset(residual, k), p, n, form))
        dz = inside(slope(z, load(offset(dy, k), p, n, form), form), p, n, form)
        store(offset(dresidual, k), p, own, form, dz)
        store(offset(dx, k), p, own, form, dz * w * r)
        dot += total(dz * x_hat)
        sum_ += total(dz)
    dot, sum_ = team_sums(dot, sum_, form, None, None, 1)
    if t == 0 and team < pieces:
        partials[2 * j], partials[2 * j + 1] = dot, sum_


@kernel
def merged_dots(
    partials, statistics, groups, stretch, spans, pieces, tiles, weight, divisor, c1, c2, r, d, dweight,
    dbias, form,
):  # fmt: skip
    """c1 and c2, the sums of weight * dz * x_hat and of weight * dz of every statistic over divisor.

    dweight and dbias, without the weight, are for statistics of single channels.
    """
    t, team = member(form), team_of_grid(form)
    s = min(team, statistics - 1)
    dot = sum_ = weighted_dot = weighted_sum = 0.0
    for k in range(t, spans * stretch, form.threads):
        j = 2 * _partial(k, s, groups, stretch, pieces)
        w = number(weight, (s % groups * stretch + k % stretch) // tiles, 1.0)
        dot += partials[j]
        sum_ += partials[j + 1]
        weighted_dot += w * partials[j]
        weighted_sum += w * partials[j + 1]
    dot, sum_ = team_sums(dot, sum_, form, None, None, 1)
    weighted_dot, weighted_sum = team_sums(weighted_dot, weighted_sum, form, None, None, 2)
    if t == 0 and team < statistics:
        put(c1, s, weighted_dot / divisor)
        put(c2, s, weighted_sum / divisor)
        put(dweight, s, _composed(dot, sum_, r, d, s))
        put(dbias, s, sum_)


@kernel
def gradient(
    dy, x, residual, outer, channels, inner, width, tiles, depth, apart, per_group, mean, rstd, weight, bias,
    c1, c2, dx, form,
):  # fmt: skip
    """dx = (wdy - x_hat * c1 - c2) * rstd; without c1 dx = wdy * rstd.

    Without either that or an activation x may be None. From the back, as `normalize`.
    """
    t, pieces = member(form), _count(outer, channels, tiles, depth)
    j = pieces - 1 - team_of_grid(form)
    if j < 0:
        return
    sample, end, c, first, n = _piece(j, outer, channels, inner, width, tiles, depth)
    s = sample * apart + c // per_group
    mean_s, rstd_s, weight_c = number(mean, s, 0.0), number(rstd, s, 0.0), number(weight, c, 1.0)
    hi, scale, shift = output_constants(dx, mean_s, rstd_s, weight_c, number(bias, c, 0.0))
    slant, level = _projection_constants(dx, mean_s, rstd_s, c1, c2, s)
    w, r = as_element(dx, weight_c), as_scale(dx, rstd_s)
    for o in range(sample, end):
        k = (o * channels + c) * inner + first
        p = position(offset(dx, k), t, form)
        h, d = load(offset(x, k), p, n, form), load(offset(dy, k), p, n, form)
        dz = slope(_affine(h, hi, scale, shift, load(offset(residual, k), p, n, form), d), d, form)
        store(offset(dx, k), p, n, form, _projected(dz * w, h, hi, slant, level, c1) * r)


@kernel
def composed(weight, bias, r, d, channels, composed_weight, composed_bias, form):
    """weight and bias with r and d in them: (x_hat * r + d) * weight + bias."""
    c = block() * form.block + thread()
    if c < channels:
        w = number(weight, c, 1.0)
        composed_weight[c], composed_bias[c] = w * r[c], w * d[c] + number(bias, c, 0.0)


@kernel
def running(mean, var, samples, channels, unbiased, factor, running_mean, running_var, form):
    """Running statistics of instance norm: the means over samples of mean and of var * unbiased."""
    t, team = member(form), team_of_grid(form)
    c = min(team, channels - 1)
    a = b = 0.0
    for o in range(t, samples, form.threads):
        a += mean[o * channels + c]
        b += var[o * channels + c] * unbiased
    a, b = team_sums(a, b, form, None, None, 1)
    if t == 0 and team < channels:
        old_mean, old_var = number(running_mean, c, 0.0), number(running_var, c, 0.0)
        put(running_mean, c, (1.0 - factor) * old_mean + factor * (a / samples))
        put(running_var, c, (1.0 - factor) * old_var + factor * (b / samples))
