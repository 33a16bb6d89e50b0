"""Kernels over an array seen as (outer, channels, inner): a team has a whole channel in its registers.

A channel is `outer` runs of `inner` elements, `channels * inner` apart, so that work is shared out by samples
as well as by channels; `per_run` vectors meet a run, and magic = `config.magic(per_run)`. Channels that no
team can hold go through `runs`. Fused are, where they are not None, `residual`, which is added to the output,
and the activation of the form, which comes after it.

exchange and flags, not None where a team has several blocks, are what these meet through.
"""

import numpy as np

from .form import STEPS
from .jit import kernel
from .primitives import (
    activated,
    afresh,
    as_element,
    as_scale,
    centring,
    first_row,
    inside,
    load,
    member,
    moments,
    move_running,
    number,
    offset,
    output_constants,
    pivot_of,
    plus,
    positions,
    put,
    reciprocal_sd,
    renorm_constants,
    rows_at_once,
    slope,
    slot,
    store,
    team_sums,
    total,
)


@kernel
def forward(
    x, residual, outer, channels, inner, per_run, magic, weight, bias, eps, factor, r_max, d_max, y, mean,
    rstd, running_mean, running_var, r, d, exchange, flags, form,
):  # fmt: skip
    """y = act((x_hat * r + d) * weight + bias + residual) with x_hat = (x - mean) * rstd.

    r and d are 1 and 0 but for batch renormalization, where they come of what the running statistics were
    before these move in place.
    """
    t, step = member(form), 1
    for first in range(first_row(form), channels, rows_at_once(form)):
        # Teams beyond the last channel take it too and write nothing: no thread misses a barrier.
        c = min(first + slot(form), channels - 1)
        own = first + slot(form) < channels
        k = c * inner
        p = positions(offset(x, k), t, per_run, magic, outer, channels * inner, form)
        h = load(offset(x, k), p, inner, form)
        mean_c, m2 = moments(h, pivot_of(offset(x, k), None, inner), p, inner, form, exchange, flags, step)
        rstd_c, count = reciprocal_sd(m2 / (outer * inner), eps), np.float64(outer * inner)
        r_c, d_c = 1.0, 0.0
        if form.renorm:
            r_c, d_c = renorm_constants(c, mean_c, rstd_c, eps, r_max, d_max, running_mean, running_var)
            # Nobody moves the running statistics before all have seen them.
            team_sums(r_c, d_c, form, exchange, flags, step + 3)
        step += STEPS
        w = number(weight, c, 1.0)
        hi, scale, shift = output_constants(x, mean_c, rstd_c * r_c, w, w * d_c + number(bias, c, 0.0))
        p = positions(offset(x, k), afresh(t), per_run, magic, outer, channels * inner, form)
        z = plus((h - hi) * scale + shift, load(offset(residual, k), p, inner, form))
        store(offset(y, k), p, inner if own else 0, form, activated(z, form))
        if t == 0 and own:
            put(mean, c, mean_c)
            put(rstd, c, rstd_c)
            put(r, c, r_c)
            put(d, c, d_c)
            move_running(c, mean_c, m2, count, factor, running_mean, running_var)


@kernel
def backward(
    dy, x, residual, outer, channels, inner, per_run, magic, weight, bias, r, d, mean, rstd, dx, dresidual,
    dweight, dbias, exchange, flags, form,
):  # fmt: skip
    """dx = (wdz - x_hat * c1 - c2) * rstd, dresidual = dz, and the sums that are dweight and dbias.

    dz is dy before the activation, and wdz the same times weight * r.
    """
    t, step = member(form), 1
    for first in range(first_row(form), channels, rows_at_once(form)):
        c = min(first + slot(form), channels - 1)
        n = inner if first + slot(form) < channels else 0
        k = c * inner
        p = positions(offset(x, k), t, per_run, magic, outer, channels * inner, form)
        hi, lo, scale = centring(x, mean[c], rstd[c])
        x_hat = inside((load(offset(x, k), p, inner, form) - hi) * scale + lo, p, inner, form)
        weight_c, r_c, d_c = number(weight, c, 1.0), number(r, c, 1.0), number(d, c, 0.0)
        w, b = as_element(x, weight_c * r_c), as_element(x, weight_c * d_c + number(bias, c, 0.0))
        z = plus(x_hat * w + b, load(offset(residual, k), p, inner, form))
        dz = inside(slope(z, load(offset(dy, k), p, inner, form), form), p, inner, form)
        store(offset(dresidual, k), p, n, form, dz)
        dot, s = team_sums(total(dz * x_hat), total(dz), form, exchange, flags, step)
        step += STEPS
        dot, s, count = np.float64(dot), np.float64(s), outer * inner
        if t == 0 and n > 0:
            put(dweight, c, dot * r_c + s * d_c)
            put(dbias, c, s)
        mean_dot, mean_s = as_element(x, dot / count), as_element(x, s / count)
        dx_c = (dz - x_hat * mean_dot - mean_s) * as_scale(x, weight_c * r_c * rstd[c])
        p = positions(offset(x, k), afresh(t), per_run, magic, outer, channels * inner, form)
        store(offset(dx, k), p, n, form, dx_c)
