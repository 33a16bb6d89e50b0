"""Kernels over an array seen as (rows, cols), as in `rows`, for rows that no team can hold: read twice.

First for statistics, by `runs.moments`, or for sums of a row, by `dots`: a team has a piece, of which a row
has `tiles`, of `width` elements. Then a thread has a vector of columns, with their weight and bias, and walks
up the rows. Of these `phases` in turn may begin at different places within a vector: a block walks over every
phases-th, which begin alike.
"""

from .form import FLUSH
from .jit import kernel, primitive
from .primitives import (
    activated,
    added,
    affine,
    as_element,
    as_elements,
    block,
    centring,
    inside,
    load,
    load_parameters,
    member,
    offset,
    plus,
    position,
    slope,
    store,
    team_of_grid,
    team_sums,
    thread,
    total,
    zeros,
)


@primitive
def _columns(x, cols, phases, form):
    """Where in the rows of this block the first vector of this thread begins."""
    return block() // phases * form.capacity + position(offset(x, block() % phases * cols), thread(), form)


@primitive
def _steps(rows, phases):
    """How many rows this block walks over, block() % phases the first of them."""
    return (rows - 1 - block() % phases) // phases + 1


@kernel
def normalize(x, residual, rows, cols, phases, weight, bias, mean, rstd, y, form):
    """y = act((x + residual - mean) * rstd * weight + bias)

    From the last row to the first: what was read last for the statistics may still be in the cache.
    """
    p = _columns(x, cols, phases, form)
    w, b = load_parameters(weight, p, cols, form), load_parameters(bias, p, cols, form)
    for j in range(_steps(rows, phases) - 1, -1, -1):
        i = j * phases + block() % phases
        k = i * cols
        h = added(x, load(offset(x, k), p, cols, form), offset(residual, k), p, cols, form)
        hi, lo, scale = centring(x, mean[i], rstd[i])
        store(offset(y, k), p, cols, form, activated(affine((h - hi) * scale + lo, w, b), form))


@kernel
def dots(dy, x, rows, cols, width, tiles, weight, bias, mean, rstd, partials, form):
    """partials: the sums of wdz * x_hat and of wdz of every piece, with dz for dy before the activation."""
    t, team, pieces = member(form), team_of_grid(form), rows * tiles
    # Teams beyond the last piece take it too and write nothing: no thread misses a barrier.
    j = min(team, pieces - 1)
    i, first = j // tiles, j % tiles * width
    n, k = min(width, cols - first), i * cols + first
    p = position(offset(x, k), t, form)
    hi, lo, scale = centring(x, mean[i], rstd[i])
    x_hat = inside((load(offset(x, k), p, n, form) - hi) * scale + lo, p, n, form)
    w = load_parameters(offset(weight, first), p, n, form)
    b = load_parameters(offset(bias, first), p, n, form)
    dz = slope(affine(x_hat, w, b), load(offset(dy, k), p, n, form), form)
    wdz = affine(dz, w, None)
    dot, sum_ = team_sums(total(wdz * x_hat), total(wdz), form, None, None, 1)
    if t == 0 and team < pieces:
        partials[2 * j], partials[2 * j + 1] = dot, sum_


@kernel
def gradient(
    dy, x, rows, cols, phases, weight, bias, mean, rstd, c1, c2, dsum, dx, dweight, dbias, form,
):  # fmt: skip
    """dx = (wdz - x_hat * c1 - c2) * rstd + dsum; dweight and dbias, the sums of dz * x_hat and of dz.

    These are (phases, cols), and begin where x does within a vector. From the last row to the first, as
    `normalize`.
    """
    p = _columns(x, cols, phases, form)
    w, b = load_parameters(weight, p, cols, form), load_parameters(bias, p, cols, form)
    dw, db = zeros(rstd, form), zeros(rstd, form)
    for top in range(_steps(rows, phases) - 1, -1, -FLUSH):
        some_dw, some_db = zeros(x, form), zeros(x, form)
        for j in range(top, max(top - FLUSH, -1), -1):
            i = j * phases + block() % phases
            k = i * cols
            hi, lo, scale = centring(x, mean[i], rstd[i])
            x_hat = (load(offset(x, k), p, cols, form) - hi) * scale + lo
            dz = slope(affine(x_hat, w, b), load(offset(dy, k), p, cols, form), form)
            some_dw = some_dw + dz * x_hat
            some_db = some_db + dz
            d = affine(dz, w, None) - x_hat * as_element(x, c1[i])
            if form.centred:
                d = d - as_element(x, c2[i])
            store(offset(dx, k), p, cols, form, plus(d * scale, load(offset(dsum, k), p, cols, form)))
        dw = dw + as_elements(rstd, some_dw)
        db = db + as_elements(rstd, some_db)
    own = block() % phases * cols
    store(offset(dweight, own), p, cols, form, as_elements(dweight, dw))
    store(offset(dbias, own), p, cols, form, as_elements(dbias, db))
