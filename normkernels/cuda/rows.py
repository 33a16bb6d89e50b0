"""Kernels over an array seen as (rows, cols): a team of threads has a whole row in its registers.

Row i takes parameters from place `place(i, period, width)` on: one for every element, or with `magic` one
for every run of a length that `magic` stands for (`config.magic`). Fused are, where they are not None,
`residual`, which is added to x before the norm (`summed` receives the sum), and the activation of the form;
in the backward the activation, and `dsum`, which is added to dx.

exchange and flags, not None where a team has several blocks, are what these meet through.
"""

from .form import STEPS
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
    member,
    moments,
    offset,
    parameters,
    pivot_of,
    place,
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

# Rows summed in float32 before float64 takes over.
FLUSH = 128


@kernel
def forward(
    x, residual, rows, cols, weight, bias, period, width, magic, divisor, eps, summed, y, mean, rstd, var,
    exchange, flags, form,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias); var = m2 / divisor, which may be None."""
    t, step = member(form), 1
    for first in range(first_row(form), rows, rows_at_once(form)):
        # Teams beyond the last row take it too, for all threads of a block have to meet; they write nothing.
        i = min(first + slot(form), rows - 1)
        n = cols if first + slot(form) < rows else 0
        row = offset(x, i * cols)
        p, k = position(row, t, form), place(i, period, width)
        h = added(x, load(row, p, cols, form), offset(residual, i * cols), 0, p, cols, form)
        store(offset(summed, i * cols), p, n, form, h)
        if form.centred:
            pivot = pivot_of(row, offset(residual, i * cols), cols)
            mean_i, m2 = moments(h, pivot, p, cols, form, exchange, flags, step)
        else:
            mean_i, m2 = 0.0, squares(h, form, exchange, flags, step)
        step += STEPS
        var_i = m2 / divisor
        rstd_i = reciprocal_sd(var_i, eps)
        hi, lo, scale = centring(x, mean_i, rstd_i)
        w = parameters(weight, k, p, cols, magic, form)
        b = parameters(bias, k, p, cols, magic, form)
        z = affine((h - hi) * scale + lo, w, b)
        store(offset(y, i * cols), p, n, form, activated(z, form))
        if t == 0 and n > 0:
            put(mean, i, mean_i)
            put(rstd, i, rstd_i)
            put(var, i, var_i)


@kernel
def backward(
    dy, x, rows, cols, weight, bias, period, width, magic, divisor, mean, rstd, dsum, dx, partials, dots,
    exchange, flags, form,
):  # fmt: skip
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum, and the sums of dy * x_hat and of dy.

    With `columns`, a form without edges, they go to partials, (2, teams of the grid, cols) in float64, as
    sums over the rows of a team; else to dots, (2, rows) in float64, as sums over a row.
    """
    t, step, own = member(form), 1, team_of_grid(form)
    dw, db = zeros(x, form), zeros(x, form)
    held, anew = 0, True
    for first in range(first_row(form), rows, rows_at_once(form)):
        i = min(first + slot(form), rows - 1)
        n = cols if first + slot(form) < rows else 0
        row = offset(x, i * cols)
        p, k = position(row, t, form), place(i, period, width)
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        rstd_i = rstd[i] if cols > 1 or not form.centred else 0.0
        hi, lo, scale = centring(x, mean[i], rstd_i)
        x_hat = inside((load(row, p, cols, form) - hi) * scale + lo, p, cols, form)
        w = parameters(weight, k, p, cols, magic, form)
        z = affine(x_hat, w, parameters(bias, k, p, cols, magic, form))
        dz = slope(z, load(offset(dy, i * cols), p, cols, form), form)
        wdy = affine(dz, w, None)
        if not form.columns:
            dot, s = team_sums(
                total(dz * x_hat), total(inside(dz, p, cols, form)), form, exchange, flags, step
            )
            if t == 0 and n > 0:
                put(dots, i, dot)
                put(dots, rows + i, s)
        c1, c2 = team_sums(
            total(wdy * x_hat), total(inside(wdy, p, cols, form)), form, exchange, flags, step + 1
        )
        step += STEPS
        c1, c2 = as_element(x, c1 / divisor), as_element(x, c2 / divisor)
        if form.centred:
            d = wdy - x_hat * c1 - c2
        else:
            d = wdy - x_hat * c1
        d = d * scale
        if dsum is not None:
            d = d + load(offset(dsum, i * cols), p, cols, form)
        store(offset(dx, i * cols), p, n, form, d)
        if form.columns:
            if n > 0:
                dw = dw + dz * x_hat
                db = db + dz
                held += 1
            if held == FLUSH:
                accumulate(offset(partials, own * cols), p, cols, form, dw, anew)
                if form.centred:
                    accumulate(offset(partials, (rows_at_once(form) + own) * cols), p, cols, form, db, anew)
                dw, db = zeros(x, form), zeros(x, form)
                held, anew = 0, False
    if form.columns:
        p = position(x, t, form)
        accumulate(offset(partials, own * cols), p, cols, form, dw, anew)
        if form.centred:
            accumulate(offset(partials, (rows_at_once(form) + own) * cols), p, cols, form, db, anew)
