"""Kernels over an array seen as (rows, cols): a team of threads has a whole row in its registers.

Every element of a row has a weight and a bias of its own: layer norm; not centred RMS norm. Fused are, where
they are not None, `residual`, which is added to x before the norm (`summed` receives the sum), and the
activation of the form; in the backward the activation, and `dsum`, which is added to dx.

exchange and flags, not None where a team has several blocks, are what these meet through.
"""

from .form import FLUSH, STEPS
from .jit import kernel
from .primitives import (
    accumulate,
    activated,
    added,
    affine,
    as_element,
    centring,
    first_row,
    inside,
    load,
    load_parameters,
    member,
    moments,
    offset,
    pivot_of,
    plus,
    position,
    put,
    reciprocal_sd,
    rows_at_once,
    slope,
    slot,
    squares,
    store,
    team_of_grid,
    team_sums,
    total,
    zeros,
)


@kernel
def forward(
    x, residual, rows, cols, weight, bias, eps, summed, y, mean, rstd, exchange, flags, form,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias)"""
    t, step = member(form), 1
    for first in range(first_row(form), rows, rows_at_once(form)):
        # Teams beyond the last row take it too and write nothing: no thread misses a barrier.
        i = min(first + slot(form), rows - 1)
        n, k = cols if first + slot(form) < rows else 0, i * cols
        row = offset(x, k)
        p = position(row, t, form)
        h = added(x, load(row, p, cols, form), offset(residual, k), p, cols, form)
        if form.centred:
            pivot = pivot_of(row, offset(residual, k), cols)
            mean_i, m2 = moments(h, pivot, p, cols, form, exchange, flags, step)
        else:
            mean_i, m2 = 0.0, squares(h, form, exchange, flags, step)
        step += STEPS
        # Not before all have read x and residual: it may be either.
        store(offset(summed, k), p, n, form, h)
        rstd_i = reciprocal_sd(m2 / cols, eps)
        hi, lo, scale = centring(x, mean_i, rstd_i)
        w, b = load_parameters(weight, p, cols, form), load_parameters(bias, p, cols, form)
        store(offset(y, k), p, n, form, activated(affine((h - hi) * scale + lo, w, b), form))
        if t == 0 and n > 0:
            put(mean, i, mean_i)
            put(rstd, i, rstd_i)


@kernel
def backward(
    dy, x, rows, cols, weight, bias, mean, rstd, dsum, dx, partials, exchange, flags, form,
):  # fmt: skip
    """dx = (wdz - x_hat * c1 - c2) * rstd + dsum, with dz for dy before the activation, in one sweep.

    partials: (2, teams of the grid, cols) in float64, the sums of dz * x_hat and of dz over the rows of a
    team, or 1 if not centred; None where there is no parameter. The rows of a team begin alike within a
    vector, so that columns stay with their threads.
    """
    t, step, own, teams = member(form), 1, team_of_grid(form), rows_at_once(form)
    # Teams beyond the last row take one again and write nothing: no thread misses a barrier.
    again = min(own, rows - 1)
    p = position(offset(x, again * cols), t, form)
    dw, db = zeros(x, form), zeros(x, form)
    held, anew = 0, True
    for first in range(first_row(form), rows, teams):
        i = first + slot(form) if first + slot(form) < rows else again
        n, k = cols if first + slot(form) < rows else 0, i * cols
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        rstd_i = rstd[i] if cols > 1 or not form.centred else 0.0
        hi, lo, scale = centring(x, mean[i], rstd_i)
        x_hat = inside((load(offset(x, k), p, cols, form) - hi) * scale + lo, p, cols, form)
        # Again for every row: from the cache, where registers are all taken.
        w, b = load_parameters(weight, p, cols, form), load_parameters(bias, p, cols, form)
        dz = slope(affine(x_hat, w, b), load(offset(dy, k), p, cols, form), form)
        if n > 0:  # Here, so that dz is not kept until the team has met.
            dw = dw + dz * x_hat
            db = db + dz
            held += 1
        wdz = affine(dz, w, None)
        c1, c2 = team_sums(total(wdz * x_hat), total(wdz), form, exchange, flags, step)
        step += STEPS
        c1, c2 = as_element(x, c1 / cols), as_element(x, c2 / cols)
        if form.centred:
            d = wdz - x_hat * c1 - c2
        else:
            d = wdz - x_hat * c1
        store(offset(dx, k), p, n, form, plus(d * scale, load(offset(dsum, k), p, cols, form)))
        if held == FLUSH or first + teams >= rows:
            accumulate(offset(partials, own * cols), p, cols, form, dw, anew)
            if form.centred:
                accumulate(offset(partials, (teams + own) * cols), p, cols, form, db, anew)
            dw, db = zeros(x, form), zeros(x, form)
            held, anew = 0, False
