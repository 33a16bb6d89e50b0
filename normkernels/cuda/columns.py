"""Kernels over an array seen as (outer, channels), statistics per column: batch norm of (N, C) and of
channels-last arrays.

The flat array is cut into rows of `width` elements, a multiple of the channels, so that every row begins as
the first one does within a vector; row 0 begins at element `start`, which may be below 0, and a column is
that of a row. A block takes one of the `strips`, `across` vectors of columns, in a piece of `length` rows;
its threads walk down their columns, `slots` of them side by side: at most `config.FLUSH` rows each where
they sum in the dtype of x. Sums of a piece go to `partials`, (2, pieces, width) in float64, the second half
from `plane` on, which another kernel merges for every channel in a fixed order.

Fused are, where they are not None, `residual`, which is added to the output, and the activation of the form
that follows. r and d are those of batch renormalization: y = (x_hat * r + d) * weight + bias.
"""

import numpy as np

from .column_primitives import (
    added_product,
    bounds,
    channel_values,
    column_moments,
    element,
    gradient_constants,
    load_channels,
    load_rows,
    merged_over_slots,
    only_inside,
    output_constants,
    over_rows,
    past,
    place,
    plus,
    put_columns,
    repeated,
    rest_of,
    store_rows,
    summed_over_slots,
    times,
    unit_of,
    wide,
    without_sums,
    zero_columns,
)
from .jit import kernel, primitive
from .primitives import (
    activated,
    block,
    lane,
    merge,
    move_running,
    offset,
    put,
    reciprocal_sd,
    renorm_constants,
    slope,
    thread,
)


@kernel
def moments(x, start, total, width, strips, across, slots, length, plane, partials, form):
    """mean and m2 of the columns of every piece; total - start is a multiple of the lanes."""
    column, slot, piece = place(strips, across, form, False)
    first, last = bounds(column, slot, piece, start, total, width, slots, length)
    at = piece * width + column
    count, mean, m2 = column_moments(x, start + column, width, first, last, slots, form)
    count, mean, m2 = merged_over_slots(count, mean, m2, across, slots, form)
    if slot == 0 and column < width:
        put_columns(partials, at, mean)
        put_columns(partials, plane + at, m2)


@primitive
def _merged_pieces(partials, slot, stop, slots, j, channels, start, total, width, length, form):
    """count, mean and m2 of the pieces of columns j, j + channels, ...: every one of `slots` from slot on."""
    groups, pieces = width // channels, (total - start + width * length - 1) // (width * length)
    count = 0.0
    mean = m2 = zero_columns(partials, form)
    for e in range(slot, min(stop, pieces * groups), slots):
        piece, column = e // groups, j + e % groups * channels
        rows = (total - start - column + width - 1) // width
        n = np.float64(min((piece + 1) * length, rows) - piece * length)
        if n > 0.0:
            at = piece * width + column
            mean_b = load_channels(offset(partials, at), 0, 1, form)
            m2_b = load_channels(offset(partials, pieces * width + at), 0, 1, form)
            if count == 0.0:
                mean, m2 = mean_b, m2_b
            else:
                mean, m2 = merge(count, mean, m2, n, mean_b, m2_b)
            count += n
    return count, mean, m2


@primitive
def _with_elements(x, first, last, c, channels, count, mean, m2):
    """count, mean and m2 with the elements first..last of x that are of channel c"""
    for e in range(first, last):
        if e % channels == c:
            mean, m2 = merge(count, mean, m2, 1.0, element(x, e), 0.0)
            count += 1.0
    return count, mean, m2


@kernel
def finish_moments(
    partials, x, size, channels, across, start, total, width, length, eps, factor, r_max, d_max,
    running_mean, running_var, mean, var, rstd, r, d, form,
):  # fmt: skip
    """The statistics of every channel, and what follows from them where it is not None.

    x: of `size` elements, of which those before start and from total on are in no piece.
    """
    c, slot, slots = block() * across + thread() % across, thread() // across, form.block // across
    stop = total if c < channels and slot < slots else 0
    j = (min(c, channels - 1) - start) % channels
    count, mean_c, m2 = _merged_pieces(
        partials, slot, stop, slots, j, channels, start, total, width, length, form
    )
    count, mean_c, m2 = merged_over_slots(count, mean_c, m2, across, slots, form)
    if slot == 0 and c < channels:
        n, mean_c, m2_c = _with_elements(x, 0, start, c, channels, count, lane(mean_c, 0), lane(m2, 0))
        n, mean_c, m2_c = _with_elements(x, total, size, c, channels, n, mean_c, m2_c)
        rstd_c = reciprocal_sd(m2_c / n, eps)
        put(mean, c, mean_c)
        put(var, c, m2_c / n)
        put(rstd, c, rstd_c)
        r_c, d_c = renorm_constants(c, mean_c, rstd_c, eps, r_max, d_max, running_mean, running_var)
        put(r, c, r_c)
        put(d, c, d_c)
        move_running(c, mean_c, m2_c, n, factor, running_mean, running_var)


@kernel
def normalize(
    x, residual, start, total, width, strips, across, slots, length, channels, mean, rstd, weight, bias, r, d,
    y, form,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual)

    From the last row to the first: the statistics have read the last ones last, and these may still be in
    the cache.
    """
    column, slot, piece = place(strips, across, form, True)
    first, last = bounds(column, slot, piece, start, total, width, slots, length)
    c, step, own = (start + column) % channels, slots * width, start + column
    hi, scale, shift = output_constants(x, c, channels, mean, rstd, weight, bias, r, d, form)
    hi, scale, shift = repeated(hi, form), repeated(scale, form), repeated(shift, form)
    rows, n = slots * form.vectors, min(past(own, last, width, form), total)
    i = first + (last - first - 1) // rows * rows
    while first <= i < last:
        p = own + i * width
        z = (load_rows(x, p, step, n, form) - hi) * scale + shift
        z = plus(z, residual, p, step, n, form)
        store_rows(y, p, step, n, form, activated(z, form))
        i -= rows


@kernel
def dots(
    dy, x, residual, start, total, width, strips, across, slots, length, channels, mean, rstd, weight, bias,
    r, d, dresidual, dx, plane, partials, form,
):  # fmt: skip
    """The sums of dz * x_hat and of dz over the columns of every piece; dresidual = dz.

    dz is the gradient that arrives at the activation's argument. dx = dz * rstd * weight * r is that of
    statistics which are constants, else None.
    """
    column, slot, piece = place(strips, across, form, True)
    first, last = bounds(column, slot, piece, start, total, width, slots, length)
    c, step, own = (start + column) % channels, slots * width, start + column
    at = piece * width + column
    hi, scale, shift = output_constants(x, c, channels, mean, rstd, weight, bias, r, d, form)
    hi, scale, shift = repeated(hi, form), repeated(scale, form), repeated(shift, form)
    unit = repeated(unit_of(x, c, channels, rstd, form), form)
    dot, s = zero_columns(x, form), zero_columns(x, form)
    p, n = own + first * width, min(past(own, last, width, form), total)
    while first < last and p < n:
        dev = load_rows(x, p, step, n, form) - hi
        z = plus(dev * scale + shift, residual, p, step, n, form)
        dz = slope(z, load_rows(dy, p, step, n, form), form)
        store_rows(dresidual, p, step, n, form, dz)
        store_rows(dx, p, step, n, form, dz * scale)
        s = s + over_rows(only_inside(dz, p, step, n, form), form)
        dot = dot + over_rows(only_inside(dz * (dev * unit), p, step, n, form), form)
        p += step * form.vectors
    dot_x = wide(dot) + rest_of(x, c, channels, mean, rstd, form) * wide(s)
    dot_x, s_x = summed_over_slots(dot_x, wide(s), across, slots, form)
    if slot == 0 and column < width:
        put_columns(partials, at, dot_x)
        put_columns(partials, plane + at, s_x)


@primitive
def _of_second(partials, plane, at, form):
    """An element of the second plane of partials; 0 where there is none."""
    if plane is None:
        return zero_columns(partials, form)
    return load_channels(offset(partials, plane + at), 0, 1, form)


@kernel
def finish_sums(partials, plane, pieces, groups, start, channels, across, r, d, sums, a, b, form):
    """a = Σ partials * r + b * d, b = Σ of the second plane, over the pieces and groups of every channel.

    plane: where the second one begins, or None. sums, (2, channels) in float64, are those without r and d.
    """
    c, slot, slots = block() * across + thread() % across, thread() // across, form.block // across
    entries = pieces * groups if c < channels else 0
    j = (min(c, channels - 1) - start) % channels
    sum_a = sum_b = zero_columns(partials, form)
    for e in range(slot, entries if slot < slots else 0, slots):
        at = e * channels + j
        sum_a = sum_a + load_channels(offset(partials, at), 0, 1, form)
        sum_b = sum_b + _of_second(partials, plane, at, form)
    sum_a, sum_b = summed_over_slots(sum_a, sum_b, across, slots, form)
    if slot == 0 and c < channels:
        put(sums, c, lane(sum_a, 0))
        put(sums, channels + c, lane(sum_b, 0))
        total = times(sum_a, channel_values(r, c, channels, form))
        total = added_product(total, channel_values(d, c, channels, form), sum_b)
        put(a, c, lane(total, 0))
        put(b, c, lane(sum_b, 0))


@kernel
def gradient(
    dy, x, residual, start, total, width, strips, across, slots, length, channels, divisor, mean, rstd,
    weight, bias, r, d, sums, dx, form,
):  # fmt: skip
    """dx = (dz - x_hat * c1 - c2) * rstd * weight * r; without sums dx = dz * rstd * weight * r

    From the last row to the first, as `normalize`.
    """
    column, slot, piece = place(strips, across, form, True)
    first, last = bounds(column, slot, piece, start, total, width, slots, length)
    c, step, own = (start + column) % channels, slots * width, start + column
    hi, scale, shift = output_constants(x, c, channels, mean, rstd, weight, bias, r, d, form)
    k, c2 = gradient_constants(x, c, channels, divisor, mean, rstd, sums, form)
    hi, scale, shift = repeated(hi, form), repeated(scale, form), repeated(shift, form)
    k, c2 = repeated(k, form), repeated(c2, form)
    rows, n = slots * form.vectors, min(past(own, last, width, form), total)
    i = first + (last - first - 1) // rows * rows
    while first <= i < last:
        p = own + i * width
        dev = load_rows(x, p, step, n, form) - hi
        z = plus(dev * scale + shift, residual, p, step, n, form)
        dz = slope(z, load_rows(dy, p, step, n, form), form)
        store_rows(dx, p, step, n, form, without_sums(dz, dev, k, c2, sums) * scale)
        i -= rows
