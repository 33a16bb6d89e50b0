"""Kernels over an array seen as (rows, channels of a group, inner): a team has a whole row in its registers.

Row i is group i % groups of a sample; its channels are runs of `inner` elements, each with a weight and a
bias of its own, and `per_run` vectors meet a run (magic = `config.magic(per_run)`). Group norm; with one
channel to a group instance norm; not centred and with a divisor of 1 weight norm.

exchange and flags, not None where a team has several blocks, are what these meet through.
"""

from .form import STEPS
from .jit import kernel, primitive
from .primitives import (
    activated,
    affine,
    afresh,
    as_element,
    block_of_team,
    centring,
    first_row,
    inside,
    load,
    member,
    moments,
    of_runs,
    offset,
    pivot_of,
    positions,
    put,
    reciprocal_sd,
    rows_at_once,
    run_sums,
    slope,
    slot,
    squares,
    store,
    team_sums,
    total,
)


@kernel
def forward(
    x, rows, groups, channels, inner, per_run, magic, divisor, weight, bias, eps, y, mean, rstd, var,
    exchange, flags, form,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias); var = m2 / divisor, which may be None."""
    t, step = member(form), 1
    for first in range(first_row(form), rows, rows_at_once(form)):
        # Teams beyond the last row take it too and write nothing: no thread misses a barrier.
        i = min(first + slot(form), rows - 1)
        n = inner if first + slot(form) < rows else 0
        row, c = offset(x, i * channels * inner), i % groups * channels
        p = positions(row, t, per_run, magic, channels, inner, form)
        h = load(row, p, inner, form)
        if form.centred:
            pivot = pivot_of(row, None, inner)
            mean_i, m2 = moments(h, pivot, p, inner, form, exchange, flags, step)
        else:
            mean_i, m2 = 0.0, squares(h, form, exchange, flags, step)
        step += STEPS
        rstd_i = reciprocal_sd(m2 / divisor, eps)
        hi, lo, scale = centring(x, mean_i, rstd_i)
        z = affine(
            (h - hi) * scale + lo, of_runs(offset(weight, c), p, form), of_runs(offset(bias, c), p, form)
        )
        store(offset(y, i * channels * inner), p, n, form, activated(z, form))
        if t == 0 and n > 0:
            put(mean, i, mean_i)
            put(rstd, i, rstd_i)
            put(var, i, m2 / divisor)


@primitive
def _add_runs(a, b, p, partials, at, apart, own, anew, form):
    """As `run_sums`, from `at` on; nothing to None."""
    if partials is None:
        return
    run_sums(a, b, p, offset(partials, at), apart, own, anew, form)


@kernel
def backward(
    dy, x, samples, groups, parts, channels, inner, per_run, magic, divisor, weight, bias, mean, rstd, dx,
    partials, exchange, flags, form,
):  # fmt: skip
    """dx = (wdz - x_hat * c1 - c2) * rstd, with dz for dy before the activation.

    A team takes a group in every `parts`-th sample, from one of the first `parts` on: so it adds up over
    samples. partials: (2, parts, blocks of a team, groups, channels) in float64, the sums of dz * x_hat and
    of dz over what a block has of a run in all of these; None where nobody wants them.
    """
    t, step = member(form), 1
    for first in range(first_row(form), parts * groups, rows_at_once(form)):
        # Teams beyond the last group or sample take it too and write nothing: no thread misses a barrier.
        line = min(first + slot(form), parts * groups - 1)
        part, g = line // groups, line % groups
        at = ((part * form.blocks + block_of_team(form)) * groups + g) * channels
        for front in range(0, samples, parts):
            i = min(front + part, samples - 1) * groups + g
            n = inner if front + part < samples and first + slot(form) < parts * groups else 0
            row, c = offset(x, i * channels * inner), g * channels
            p = positions(row, t, per_run, magic, channels, inner, form)
            # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
            rstd_i = rstd[i] if channels * inner > 1 or not form.centred else 0.0
            hi, lo, scale = centring(x, mean[i], rstd_i)
            x_hat = inside((load(row, p, inner, form) - hi) * scale + lo, p, inner, form)
            w = of_runs(offset(weight, c), p, form)
            z = affine(x_hat, w, of_runs(offset(bias, c), p, form))
            dy_i = load(offset(dy, i * channels * inner), p, inner, form)
            dz = inside(slope(z, dy_i, form), p, inner, form)
            wdz = affine(dz, w, None)
            c1, c2 = team_sums(total(wdz * x_hat), total(wdz), form, exchange, flags, step)
            step += STEPS
            apart = parts * form.blocks * groups * channels
            _add_runs(dz * x_hat, dz, p, partials, at, apart, n > 0, front == 0, form)
            c1, c2 = as_element(x, c1 / divisor), as_element(x, c2 / divisor)
            if form.centred:
                d = wdz - x_hat * c1 - c2
            else:
                d = wdz - x_hat * c1
            p = positions(row, afresh(t), per_run, magic, channels, inner, form)
            store(offset(dx, i * channels * inner), p, n, form, d * scale)
