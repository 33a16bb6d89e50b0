"""What the kernels over columns are made of: places, moments and sums of columns, constants of channels."""

import numpy as np

from .jit import SIMULATED, primitive
from .primitives import RESCALE, barrier, block, grid, largest, merge, offset, thread

if SIMULATED:
    from .emulated_columns import (
        absolute,
        as_elements,
        by_range,
        element,
        first_of_rows,
        give,
        inside_rows,
        load_channels,
        load_rows,
        over_rows,
        power,
        put_columns,
        repeated,
        room,
        square_root,
        store_rows,
        strip_room,
        take,
        unusual,
        whole_rows,
        wide,
        within_range,
        zero_columns,
    )  # fmt: skip
else:
    from .column_shares import (
        absolute,
        as_elements,
        by_range,
        element,
        first_of_rows,
        give,
        inside_rows,
        load_channels,
        load_rows,
        over_rows,
        power,
        put_columns,
        repeated,
        room,
        square_root,
        store_rows,
        strip_room,
        take,
        unusual,
        whole_rows,
        wide,
        within_range,
        zero_columns,
    )  # fmt: skip

__all__ = [
    "added_product", "as_elements", "bounds", "channel_values", "column_moments",
    "element", "give", "gradient_constants", "inside_rows", "load_channels", "load_rows", "merged_over_slots",
    "only_inside", "output_constants", "over_rows", "past", "place", "plus", "power", "put_columns",
    "repeated", "rest_of", "share_moments", "square_root", "store_rows", "strip_room",
    "summed_over_slots", "take", "times", "unit_of", "wide", "without_sums", "zero_columns",
]  # fmt: skip

# The count of nothing, which can be divided by.
NONE = 1e-300


@primitive
def place(strips, across, form, backwards):
    """Where this thread is: its first column, its slot among the rows, the piece of rows of its block."""
    b = grid() - 1 - block() if backwards else block()
    column = (b % strips * across + thread() % across) * form.lanes
    return column, thread() // across, b // strips


@primitive
def bounds(column, slot, piece, start, total, width, slots, length):
    """The rows that a thread takes: the first, and the one after the last; their step are the slots.

    Rows of `width` elements begin at `start`, which may be below 0; a column has those with an element
    below total.
    """
    rows = (total - start - column + width - 1) // width
    last = min((piece + 1) * length, rows)
    if column >= width or slot >= slots:
        last = 0
    return piece * length + slot, last


@primitive
def past(start, last, width, form):
    """Where the vector at `start` of row last - 1 ends"""
    return start + (last - 1) * width + form.lanes


@primitive
def only_inside(value, p, step, n, form):
    """value, and 0 where a share is beyond the n elements, which few shares are"""
    if whole_rows(p, step, n, form):
        return value
    return inside_rows(value, p, step, n, form)


@primitive
def plus(value, residual, p, step, n, form):
    """value + residual, which may be None"""
    if residual is None:
        return value
    return value + load_rows(residual, p, step, n, form)


@primitive
def _pivot(h, p, step, n, rows, form):
    """About the mean of the rows of a share; exactly the first one where they are all equal."""
    first = first_of_rows(h, form)
    d = inside_rows(h - repeated(first, form), p, step, n, form)
    return first + over_rows(d, form) * (1.0 / min(rows, form.vectors))


@primitive
def _scaled(d, factor, form):
    if factor is None:
        return d
    return d * repeated(factor, form)


@primitive
def _sums_of(d, form):
    """The sums of d, d * d and abs(d) over the rows of a share."""
    return over_rows(d, form), over_rows(d * d, form), over_rows(absolute(d), form)


@primitive
def _sums(x, p, step, n, pivot, factor, form):
    """The same of d = (x - pivot) * factor, over all shares one below the other up to n."""
    s, q, spread = zero_columns(x, form), zero_columns(x, form), zero_columns(x, form)
    pivots = repeated(pivot, form)
    while p < n:
        d = _scaled(load_rows(x, p, step, n, form) - pivots, factor, form)
        s_p, q_p, spread_p = _sums_of(only_inside(d, p, step, n, form), form)
        s, q, spread = s + s_p, q + q_p, spread + spread_p
        p += step * form.vectors
    return s, q, spread


@primitive
def _about(pivot, s, q, unit, rows):
    """count, mean and m2 of what has the sums s and q of deviations from a pivot in a unit."""
    d = wide(s) * (1.0 / rows)
    m2 = wide(q) - wide(s) * d
    if unit is None:
        return np.float64(rows), wide(pivot) + d, m2
    return np.float64(rows), wide(pivot) + d * wide(unit), m2 * wide(unit) * wide(unit)


@primitive
def share_moments(h, p, step, n, form):
    """count, mean and m2, in float64, of the columns of a share."""
    zero = wide(zero_columns(h, form))
    if n <= p:
        return 0.0, zero, zero
    rows = (n - p + step - 1) // step
    pivot = _pivot(h, p, step, n, rows, form)
    d = h - repeated(pivot, form)
    s, q, spread = _sums_of(inside_rows(d, p, step, n, form), form)
    if not unusual(q, spread):
        return _about(pivot, s, q, None, rows)
    factor, unit = by_range(q, RESCALE, 1.0 / RESCALE), by_range(q, 1.0 / RESCALE, RESCALE)
    # Not written as above, or the compiler would keep d in registers from there to here.
    d = _scaled(repeated(pivot, form) - h, factor * -1.0, form)
    s, q, spread = _sums_of(inside_rows(d, p, step, n, form), form)
    return _about(pivot, s, q, unit, rows)


@primitive
def column_moments(x, start, width, first, last, slots, form):
    """count, mean and m2, in float64, of the rows first..last of the columns at start, `slots` apart.

    They are few enough for sums in the dtype of x, about a pivot that is the mean of the first of them: as
    these are in the result too, what the squares lose is small beside m2 in any case.
    """
    zero = wide(zero_columns(x, form))
    if last <= first:
        return 0.0, zero, zero
    p, n, step = start + first * width, past(start, last, width, form), slots * width
    rows = (last - first + slots - 1) // slots
    pivot = _pivot(load_rows(x, p, step, n, form), p, step, n, rows, form)
    s, q, spread = _sums(x, p, step, n, pivot, None, form)
    if not unusual(q, spread):
        return _about(pivot, s, q, None, rows)
    factor, unit = by_range(q, RESCALE, 1.0 / RESCALE), by_range(q, 1.0 / RESCALE, RESCALE)
    s, q, spread = _sums(x, p, step, n, pivot, factor, form)
    return _about(pivot, s, q, unit, rows)


@primitive
def _half(n):
    """The power of two that is at least n / 2 and below n; 0 for 1."""
    k = 0
    while max(1, 2 * k) < n:
        k = max(1, 2 * k)
    return k


@primitive
def merged_over_slots(count, mean, m2, across, slots, form):
    """count, mean and m2 of all slots of a block, in the first of them."""
    shared, t, apart = room(form), thread(), form.block // 2
    slot, k, second, counts = t // across, _half(slots), form.lanes * apart, 2 * form.lanes * apart
    count = max(count, NONE)
    while k > 0:
        if k <= slot < min(2 * k, slots):
            shared[counts + t - k * across] = count
            give(shared, t - k * across, apart, form, mean)
            give(shared, second + t - k * across, apart, form, m2)
        barrier()
        if slot < k and slot + k < slots:
            count_b = shared[counts + t]
            mean_b, m2_b = take(shared, t, apart, form), take(shared, second + t, apart, form)
            mean, m2 = merge(count, mean, m2, count_b, mean_b, m2_b)
            count += count_b
        barrier()
        k //= 2
    return count, mean, m2


@primitive
def summed_over_slots(a, b, across, slots, form):
    """The sums of a and of b over all slots of a block, in the first of them."""
    shared, t, apart = room(form), thread(), form.block // 2
    slot, k, second = t // across, _half(slots), form.lanes * apart
    while k > 0:
        if k <= slot < min(2 * k, slots):
            give(shared, t - k * across, apart, form, a)
            give(shared, second + t - k * across, apart, form, b)
        barrier()
        if slot < k and slot + k < slots:
            a = a + take(shared, t, apart, form)
            b = b + take(shared, second + t, apart, form)
        barrier()
        k //= 2
    return a, b


@primitive
def channel_values(a, c, channels, form):
    """What lanes take from an array over channels, in float64; None for None"""
    return wide(load_channels(a, c, channels, form))


@primitive
def times(value, factor):
    """value * factor, which may be None"""
    if factor is None:
        return value
    return value * factor


@primitive
def added_product(value, term, factor):
    """value + term * factor, which may be None"""
    if term is None:
        return value
    return value + times(term, factor)


@primitive
def unit_of(x, c, channels, rstd, form):
    """rstd in the dtype of x"""
    return as_elements(x, within_range(load_channels(rstd, c, channels, form), largest(x)))


@primitive
def rest_of(x, c, channels, mean, rstd, form):
    """(x - mean) * rstd less (x - hi) * unit, in float64"""
    m = load_channels(mean, c, channels, form)
    return (wide(as_elements(x, m)) - m) * wide(unit_of(x, c, channels, rstd, form))


@primitive
def _scale(x, c, channels, rstd, weight, r, form):
    scale = times(channel_values(rstd, c, channels, form), channel_values(r, c, channels, form))
    scale = times(scale, channel_values(weight, c, channels, form))
    return as_elements(x, within_range(scale, largest(x)))


@primitive
def output_constants(x, c, channels, mean, rstd, weight, bias, r, d, form):
    """hi, scale, shift: y = (x - hi) * scale + shift"""
    m = channel_values(mean, c, channels, form)
    hi, scale = as_elements(x, m), _scale(x, c, channels, rstd, weight, r, form)
    shift = (wide(hi) - m) * wide(scale)
    shift = added_product(shift, channel_values(bias, c, channels, form), None)
    shift = added_product(
        shift, channel_values(d, c, channels, form), channel_values(weight, c, channels, form)
    )
    return hi, scale, as_elements(x, shift)


@primitive
def gradient_constants(x, c, channels, divisor, mean, rstd, sums, form):
    """k, c2: dx = (dz - c2 + (x - hi) * k) * scale"""
    zero = zero_columns(x, form)
    if sums is None:
        return zero, zero
    m = wide(load_channels(mean, c, channels, form))
    c1 = load_channels(sums, c, channels, form) / divisor
    k = within_range(c1 * load_channels(rstd, c, channels, form) * -1.0, largest(x))
    c2 = load_channels(offset(sums, channels), c, channels, form) / divisor
    return as_elements(x, k), as_elements(x, c2 - (wide(as_elements(x, m)) - m) * k)


@primitive
def without_sums(dz, dev, k, c2, sums):
    """dz without its parts along 1 and along x; all of it where there are no sums"""
    if sums is None:
        return dz
    return dz - c2 + dev * k
