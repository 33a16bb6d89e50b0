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
    constants_of_sums,
    load_channels,
    load_rows,
    merged_over_slots,
    inside_rows,
    over_rows,
    plus,
    put_columns,
    repeated,
    rest_of,
    room,
    share_moments,
    store_rows,
    summed_over_slots,
    unit_of,
    wide,
    zero_columns,
)
from .column_primitives import output_constants as constants_of_columns
from .jit import kernel, primitive
from .primitives import (
    activated,
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
    """The share of this thread: its first column, its first element, the way to the next, how many there are.

    There are none where a strip is wider than what is left of the columns.
    """
    t = thread() % form.block
    column = (strip * across + t % across) * form.lanes
    p = (block_of_team(form) * slots + t // across) * channels + column
    n = rows * channels if column < channels else 0
    return min(column, channels - form.lanes), p, form.blocks * slots * channels, n


@primitive
def _rows_of(b, rows, slots, form):
    """How many rows block b of a team has."""
    all_slots = form.blocks * slots
    rest = rows % all_slots - b * slots
    return np.float64(rows // all_slots * slots + min(max(rest, 0), slots))


@primitive
def _half(exchange, across, step, form):
    """The half of exchange that a team meets through in this step."""
    return offset(exchange, (first_row(form) * 2 + step % 2) * form.blocks * 2 * across * form.lanes)


@primitive
def _given(place, across, b, k, form):
    """Number k, 0 or 1, of block b for the columns of this thread."""
    columns = across * form.lanes
    return load_channels(offset(place, (b * 2 + k) * columns), thread() % across * form.lanes, columns, form)


@primitive
def _give(place, across, b, a0, a1, form):
    """The numbers 0 and 1 of block b, which its first slot has."""
    t, columns = thread() % form.block, across * form.lanes
    if t < across:
        put_columns(place, b * 2 * columns + t * form.lanes, a0)
        put_columns(place, (b * 2 + 1) * columns + t * form.lanes, a1)


@primitive
def _merged_over_blocks(mean, m2, rows, across, slots, form, exchange, flags, step):
    """mean and m2 of the rows of all blocks of a team, in the first slot of every one.

    Sums in float64 about the mean of block 0: of k blocks, that is so near to the mean of all that the
    difference of squares is at most k times larger than m2.
    """
    if exchange is None:
        return mean, m2
    place = _half(exchange, across, step, form)
    _give(place, across, block_of_team(form), mean, m2, form)
    meet(form, flags, step)
    pivot = _given(place, across, 0, 0, form)
    s = q = zero_columns(mean, form)
    for b in range(thread() % form.block // across, form.blocks, slots):
        n, d = _rows_of(b, rows, slots, form), _given(place, across, b, 0, form) - pivot
        s, q = s + d * n, q + d * d * n + _given(place, across, b, 1, form)
    s, q = summed_over_slots(s, q, across, slots, form)
    d = s / np.float64(rows)
    return pivot + d, q - s * d


@primitive
def _summed_over_blocks(a, b, across, slots, form, exchange, flags, step):
    """The sums of a and b of all blocks of a team, in the first slot of every one."""
    if exchange is None:
        return a, b
    place = _half(exchange, across, step, form)
    _give(place, across, block_of_team(form), a, b, form)
    meet(form, flags, step)
    a = b = zero_columns(a, form)
    for k in range(thread() % form.block // across, form.blocks, slots):
        a, b = a + _given(place, across, k, 0, form), b + _given(place, across, k, 1, form)
    return summed_over_slots(a, b, across, slots, form)


@primitive
def _for_all_slots(a, b, across, form):
    """What the first slot of a block has, by column, in shared memory."""
    shared = room(form)
    _give(shared, across, 0, a, b, form)
    barrier()
    return shared


@primitive
def _of_columns(x, shared, across, k, form):
    """Number k of each column, for all rows of a share of x."""
    columns = across * form.lanes
    value = load_channels(offset(shared, k * columns), thread() % across * form.lanes, columns, form)
    return repeated(as_elements(x, value), form)


@kernel
def forward(
    x, residual, rows, channels, strips, across, slots, weight, bias, eps, factor, r_max, d_max, y, mean,
    rstd, running_mean, running_var, r, d, exchange, flags, form,
):  # fmt: skip
    """y = act((x_hat * r + d) * weight + bias + residual) with x_hat = (x - mean) * rstd.

    r and d are 1 and 0 but for batch renormalization, where they come of what the running statistics were
    before these move in place.
    """
    t, columns, step = thread() % form.block, across * form.lanes, 1
    for strip in range(first_row(form), strips, rows_at_once(form)):
        _, p, below, n = _place(strip, rows, channels, across, slots, form)
        h = load_rows(x, p, below, n, form)
        count, mean_s, m2_s = share_moments(h, p, below, n, form)
        count, mean_s, m2_s = merged_over_slots(count, mean_s, m2_s, across, slots, form)
        mean_s, m2_s = _merged_over_blocks(mean_s, m2_s, rows, across, slots, form, exchange, flags, step)
        found = _for_all_slots(mean_s, m2_s, across, form)
        c = strip * columns + t  # from here on a column to a thread
        own, first = t < columns and c < channels, block_of_team(form) == 0
        mean_c = m2 = rstd_c = d_c = 0.0
        r_c = 1.0
        if own:
            mean_c, m2 = found[t], found[columns + t]
            rstd_c = reciprocal_sd(m2 / rows, eps)
            if form.renorm:
                r_c, d_c = renorm_constants(c, mean_c, rstd_c, eps, r_max, d_max, running_mean, running_var)
            w = number(weight, c, 1.0)
            shift = w * d_c + number(bias, c, 0.0)
            found[t], found[columns + t], found[2 * columns + t] = output_constants(
                x, mean_c, rstd_c * r_c, w, shift
            )
        if form.renorm:
            step += 1
            meet(form, flags, step)  # nobody moves the running statistics before all have seen them
        barrier()
        hi, scale = _of_columns(x, found, across, 0, form), _of_columns(x, found, across, 1, form)
        z = (h - hi) * scale + _of_columns(x, found, across, 2, form)
        barrier()  # the next strip comes through the same shared memory
        z = plus(z, residual, p, below, n, form)
        store_rows(y, p, below, n, form, activated(z, form))
        step += 1
        if own and first:
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
    t, columns, step = thread() % form.block, across * form.lanes, 1
    for strip in range(first_row(form), strips, rows_at_once(form)):
        column, p, below, n = _place(strip, rows, channels, across, slots, form)
        hi, scale, shift = constants_of_columns(x, column, channels, mean, rstd, weight, bias, r, d, form)
        scale, unit = repeated(scale, form), repeated(unit_of(x, column, channels, rstd, form), form)
        dev = load_rows(x, p, below, n, form) - repeated(hi, form)
        z = plus(dev * scale + repeated(shift, form), residual, p, below, n, form)
        dz = inside_rows(slope(z, load_rows(dy, p, below, n, form), form), p, below, n, form)
        store_rows(dresidual, p, below, n, form, dz)
        dot, s = inside_rows(dz * (dev * unit), p, below, n, form), wide(over_rows(dz, form))
        dot = wide(over_rows(dot, form)) + rest_of(x, column, channels, mean, rstd, form) * s
        dot, s = summed_over_slots(dot, s, across, slots, form)
        dot, s = _summed_over_blocks(dot, s, across, slots, form, exchange, flags, step)
        sums = _for_all_slots(dot, s, across, form)
        c = strip * columns + t
        if t < columns and c < channels and block_of_team(form) == 0:
            put(dweight, c, sums[t] * number(r, c, 1.0) + sums[columns + t] * number(d, c, 0.0))
            put(dbias, c, sums[columns + t])
        dot, s = _given(sums, across, 0, 0, form), _given(sums, across, 0, 1, form)
        barrier()
        k, c2 = constants_of_sums(x, column, channels, np.float64(rows), mean, rstd, dot, s, form)
        store_rows(dx, p, below, n, form, (dz - repeated(c2, form) + dev * repeated(k, form)) * scale)
        step += 1
