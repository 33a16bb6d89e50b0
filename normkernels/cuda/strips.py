"""Kernels over an array seen as (rows, channels), statistics per column, that a team has in its registers:
batch norm of (N, C) and of channels-last arrays, read once.

A team takes one of the `strips`, `across` vectors of columns, with all of their rows: `slots` of them side
by side in each of its blocks, and so on below. Every row begins at the begin of a vector. Strips that no team
can hold go through `columns`. Fused are, where they are not None, `residual`, which is added to the output,
and the activation of the form, which comes after it.

exchange, (teams, 2, blocks, 2, columns of a strip) in float64, and flags are what the blocks of a team meet
through. One half of exchange is written while the other may still be read.
"""

import numpy as np

from .column_primitives import (
    as_elements,
    give,
    inside_rows,
    load_rows,
    over_rows,
    plus,
    repeated,
    share_moments,
    store_rows,
    strip_room,
    take,
    wide,
)
from .form import WIDEST
from .jit import kernel, primitive
from .primitives import (
    activated,
    as_element,
    as_scale,
    barrier,
    block_of_team,
    first_row,
    meet,
    move_running,
    number,
    offset,
    output_constants,
    put,
    reciprocal_sd,
    renorm_constants,
    rows_at_once,
    slope,
    thread,
)


@primitive
def _place(strip, rows, channels, across, slots, form):
    """The share of this thread: its first element, the way to the next row, how many elements there are.

    There are none where a strip is wider than what is left of the columns.
    """
    t = thread() % form.block
    column = (strip * across + t % across) * form.lanes
    p = (block_of_team(form) * slots + t // across) * channels + column
    return p, form.blocks * slots * channels, rows * channels if column < channels else 0


@primitive
def _channel(strip, across, form):
    """The channel that this thread works at between load and store; other threads may have the same one.

    Neighbouring threads first take the first lanes of all vectors, then the second ones.
    """
    u = thread() % form.block % (across * form.lanes)
    return (strip * across + u % across) * form.lanes + u // across


@primitive
def _given(a, b, shared, across, form):
    """Where in shared memory those of one channel are that all slots give of a; those of b lie apart."""
    t, apart = thread() % form.block, form.block + across
    give(shared, t, apart, form, a)
    give(shared, form.lanes * apart + t, apart, form, b)
    barrier()
    u = t % (across * form.lanes)
    return offset(shared, u // across * apart + u % across), form.lanes * apart


@primitive
def _published(a, b, across, form, exchange, flags, step):
    """The same of what the blocks of a team have of a channel."""
    t, columns = thread() % form.block, across * form.lanes
    half = offset(exchange, (first_row(form) * 2 + step % 2) * form.blocks * 2 * columns)
    if t < columns:
        mine = offset(half, block_of_team(form) * 2 * columns + t)
        mine[0], mine[columns] = a, b
    meet(form, flags, step)
    return offset(half, t % columns), columns


@primitive
def _over_parts(a, b, shared, columns, form):
    """The sums of a and b over the threads that work at one channel."""
    t, parts = thread() % form.block, offset(shared, 2 * form.lanes * (form.block + WIDEST))
    parts[t], parts[form.block + t] = a, b
    barrier()
    a = b = 0.0
    for i in range(t % columns, form.block, columns):
        a, b = a + parts[i], b + parts[form.block + i]
    return a, b


@primitive
def _count(full, rest, width):
    """How many rows `width` slots have: `full` each, the first `rest` of them one more."""
    return np.float64(full * width + min(max(rest, 0), width))


@primitive
def _merged(place, apart, stride, sets, full, rest, width, shared, columns, form):
    """mean and m2 of so many sets of `width` slots, from those of each.

    Sums in float64 about the mean of the first set, which has most rows: that is so near to the mean of all
    that what is subtracted is at most as many times m2 as there are sets.
    """
    t, pivot, s, q = thread() % form.block, place[0], 0.0, 0.0
    for i in range(t // columns, sets, form.block // columns):
        n, d = _count(full, rest - i * width, width), place[i * stride] - pivot
        s, q = s + d * n, q + (d * d * n + place[i * stride + apart])
    s, q = _over_parts(s, q, shared, columns, form)
    d = s / max(_count(full, rest, sets * width), 1.0)
    return pivot + d, q - s * d


@primitive
def _summed(place, apart, stride, sets, shared, columns, form):
    """The sums of two numbers over so many sets."""
    a = b = 0.0
    for i in range(thread() % form.block // columns, sets, form.block // columns):
        a, b = a + place[i * stride], b + place[i * stride + apart]
    return _over_parts(a, b, shared, columns, form)


@primitive
def _merged_over_blocks(mean, m2, full, rest, across, slots, shared, form, exchange, flags, step):
    if exchange is None:
        return mean, m2
    columns = across * form.lanes
    place, apart = _published(mean, m2, across, form, exchange, flags, step)
    return _merged(place, apart, 2 * columns, form.blocks, full, rest, slots, shared, columns, form)


@primitive
def _team_moments(mean, m2, rows, across, slots, shared, form, exchange, flags, step):
    """mean and m2 of a channel from those of all shares that a team has."""
    columns, all_slots = across * form.lanes, form.blocks * slots
    full, rest = rows // all_slots, rows % all_slots
    place, apart = _given(mean, m2, shared, across, form)
    mean_c, m2_c = _merged(
        place, apart, across, slots, full, rest - block_of_team(form) * slots, 1, shared, columns, form
    )
    return _merged_over_blocks(mean_c, m2_c, full, rest, across, slots, shared, form, exchange, flags, step)


@primitive
def _summed_over_blocks(a, b, across, shared, form, exchange, flags, step):
    if exchange is None:
        return a, b
    columns = across * form.lanes
    place, apart = _published(a, b, across, form, exchange, flags, step)
    return _summed(place, apart, 2 * columns, form.blocks, shared, columns, form)


@primitive
def _column_sums(a, b, across, slots, shared, form, exchange, flags, step):
    """The sums of a and of b of a channel over all shares that a team has."""
    place, apart = _given(wide(a), wide(b), shared, across, form)
    a_c, b_c = _summed(place, apart, across, slots, shared, across * form.lanes, form)
    return _summed_over_blocks(a_c, b_c, across, shared, form, exchange, flags, step)


@primitive
def _handed(shared, form):
    """Where constants of channels are handed out."""
    return offset(shared, 2 * form.lanes * (form.block + WIDEST) + 2 * form.block)


@primitive
def _taken(x, handed, k, across, form):
    """Constant k of channels, for all rows of a share of x."""
    columns, t = across * form.lanes, thread() % form.block
    return repeated(as_elements(x, take(handed, k * columns + t % across, across, form)), form)


@kernel
def forward(
    x, residual, rows, channels, strips, across, slots, weight, bias, eps, factor, r_max, d_max, y, mean,
    rstd, running_mean, running_var, r, d, exchange, flags, form,
):  # fmt: skip
    """y = act((x_hat * r + d) * weight + bias + residual) with x_hat = (x - mean) * rstd.

    r and d are 1 and 0 but for batch renormalization, where they come of what the running statistics were
    before these move in place.
    """
    shared, t, columns, step = strip_room(form), thread() % form.block, across * form.lanes, 1
    handed = _handed(shared, form)
    for strip in range(first_row(form), strips, rows_at_once(form)):
        c = _channel(strip, across, form)
        p, below, n = _place(strip, rows, channels, across, slots, form)
        h = load_rows(x, p, below, n, form)
        _, mean_p, m2_p = share_moments(h, p, below, n, form)
        mean_c, m2 = _team_moments(mean_p, m2_p, rows, across, slots, shared, form, exchange, flags, step)
        rstd_c, r_c, d_c = reciprocal_sd(m2 / rows, eps), 1.0, 0.0
        own = t < columns and c < channels
        if own:
            if form.renorm:
                r_c, d_c = renorm_constants(c, mean_c, rstd_c, eps, r_max, d_max, running_mean, running_var)
            w = number(weight, c, 1.0)
            hi, scale, shift = output_constants(x, mean_c, rstd_c * r_c, w, w * d_c + number(bias, c, 0.0))
            handed[t], handed[columns + t], handed[2 * columns + t] = hi, scale, shift
        if form.renorm:
            step += 1
            meet(form, flags, step)  # nobody moves the running statistics before all have seen them
        barrier()
        z = (h - _taken(x, handed, 0, across, form)) * _taken(x, handed, 1, across, form)
        z = plus(z + _taken(x, handed, 2, across, form), residual, p, below, n, form)
        store_rows(y, p, below, n, form, activated(z, form))
        step += 1
        if own and block_of_team(form) == 0:
            put(mean, c, mean_c)
            put(rstd, c, rstd_c)
            put(r, c, r_c)
            put(d, c, d_c)
            move_running(c, mean_c, m2, np.float64(rows), factor, running_mean, running_var)


@kernel
def backward(
    dy, x, residual, rows, channels, strips, across, slots, weight, bias, r, d, mean, rstd, dx, dresidual,
    dweight, dbias, exchange, flags, form,
):  # fmt: skip
    """dx = (dz - x_hat * c1 - c2) * rstd * weight * r, dresidual = dz; the sums are dweight and dbias.

    dz is the gradient that arrives at the activation's argument.
    """
    shared, t, columns, step = strip_room(form), thread() % form.block, across * form.lanes, 1
    handed = _handed(shared, form)
    for strip in range(first_row(form), strips, rows_at_once(form)):
        c = _channel(strip, across, form)
        p, below, n = _place(strip, rows, channels, across, slots, form)
        h, dy_p = load_rows(x, p, below, n, form), load_rows(dy, p, below, n, form)
        own, c = t < columns and c < channels, min(c, channels - 1)
        mean_c, rstd_c = mean[c], rstd[c]
        unit, w, r_c, d_c = as_scale(x, rstd_c), number(weight, c, 1.0), number(r, c, 1.0), number(d, c, 0.0)
        hi, scale, shift = output_constants(x, mean_c, rstd_c, w * r_c, w * d_c + number(bias, c, 0.0))
        if own:
            handed[t], handed[columns + t] = hi, unit
            handed[2 * columns + t], handed[3 * columns + t] = scale, shift
        barrier()
        dev, scale_p = h - _taken(x, handed, 0, across, form), _taken(x, handed, 2, across, form)
        z = plus(dev * scale_p + _taken(x, handed, 3, across, form), residual, p, below, n, form)
        dz = inside_rows(slope(z, dy_p, form), p, below, n, form)
        store_rows(dresidual, p, below, n, form, dz)
        dot_p = inside_rows(dz * (dev * _taken(x, handed, 1, across, form)), p, below, n, form)
        dot, s = _column_sums(
            over_rows(dot_p, form), over_rows(dz, form), across, slots, shared, form, exchange, flags, step
        )
        rest = np.float64(hi) - mean_c
        dot += rest * np.float64(unit) * s
        if own:
            k = as_scale(x, dot / rows * rstd_c)
            handed[4 * columns + t] = k
            handed[5 * columns + t] = as_element(x, s / rows + rest * np.float64(k))
        barrier()
        dx_p = dz - _taken(x, handed, 5, across, form) - dev * _taken(x, handed, 4, across, form)
        store_rows(dx, p, below, n, form, dx_p * _taken(x, handed, 2, across, form))
        barrier()  # the constants of the next strip come to the same place
        step += 1
        if own and block_of_team(form) == 0:
            put(dweight, c, dot * r_c + s * d_c)
            put(dbias, c, s)
