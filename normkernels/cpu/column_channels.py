"""From sums of columns to channels: their statistics, constants, and gradients.

Rows of sums and constants begin with the first column of all, even where a part of them is in memory only:
pointers may lie before it. How columns belong to channels is said in `columns`.

What is finished together is a part of the channels start..end: part b of `parts`.
"""

from typing import NamedTuple

import numpy as np

from .channel_constants import (
    finish_dots,
    finish_output,
    prepare_dots,
    take_statistics,
    write_output_constants,
)
from .channel_primitives import Rows, affine_rows, normalize_run, write_slope
from .column_primitives import add_dots, add_moments, joined, moments_of_tile, taken, tile_sums
from .fusion import copy_run, tile_on_stack
from .jit import primitive
from .pointers import offset
from .primitives import add, zero
from .tuning import FINISHED, ROWS_SUMMED


class Sums(NamedTuple):
    """Of each tile, rows of sums, one for every column, `pitch` apart."""

    first: object
    pitch: int
    tiles: int


@primitive
def room_for_sums(tiles, numbers, width, dtype):
    """Rows of so many numbers of every tile, of so many columns or channels."""
    return Sums(np.empty((tiles, numbers, width), dtype), width, tiles)


@primitive
def parts(view, channels):
    """Parts of so many channels."""
    return -(-channels // max(1, FINISHED // view.inner))


@primitive
def part(b, start, end, view):
    """The first channel of part b, and how many they are."""
    together = max(1, FINISHED // view.inner)
    first = start + b * together
    return first, min(together, end - first)


@primitive
def row_tiles(size, width):
    """Tiles of rows of an array of so many elements; the rest of a row is one."""
    return -(-(size // width) // ROWS_SUMMED) + (size % width > 0)


@primitive
def tile_of_rows(t, view):
    """Of tile t its first element, its rows, and its columns."""
    rows = view.size // view.width
    first = min(t * ROWS_SUMMED, rows)
    if first < rows:
        return first * view.width, min(ROWS_SUMMED, rows - first), view.width
    return first * view.width, 1, view.size % view.width


@primitive
def sum_columns(k, n, x, view, sums):
    """Sums of n columns of one tile: piece k of the tiles cut into so many columns."""
    t, first = k // -(-view.width // n), k % -(-view.width // n) * n
    start, rows, columns = tile_of_rows(t, view)
    own = offset(sums.first, 3 * t * sums.pitch + first)
    tile_sums(offset(x, start + first), rows, view.width, min(n, columns - first), own, sums.pitch)


@primitive
def normalize_columns(first, n, begin, end, a, view, constants):
    """y of the n columns from `first`, or fewer, of the rows that are the elements begin..end."""
    own = offset(constants, first)
    for k in range(begin + first, end, view.width):
        here, m = offset(a, k), min(n, view.size - k)
        normalize_run(here.x, m, own, here.residual, here.kind, here.y, here.stream)


@primitive
def _merge_tiles(x, view, first, n, sums, moments):
    """count, pivot, mean - pivot and m2 of the n columns from `first`: 4 rows of n, with room for as many."""
    new = offset(moments, 4 * n)
    for t in range(sums.tiles):
        start, rows, columns = tile_of_rows(t, view)
        tile, own = offset(x, start + first), offset(sums.first, 3 * t * sums.pitch + first)
        m = min(n, columns - first)
        moments_of_tile(tile, rows, view.width, m, own, sums.pitch, moments if t == 0 else new, n)
        if t > 0:
            add_moments(m, moments, new, n)


@primitive
def _write(low, c, value):
    if low is None:
        return
    low[c] = value


@primitive
def channel_moments(x, view, start, n, sums, mean, low, m2):
    """mean, low and m2 of the n channels from `start`, from the sums of their columns.

    low: what the mean lost by rounding; it may be None.
    """
    columns, moments = n * view.inner, tile_on_stack(m2)
    for f in range(view.fold):
        own = moments if f == 0 else offset(moments, 4 * columns)
        _merge_tiles(x, view, (f * view.channels + start) * view.inner, columns, sums, own)
        if f > 0:
            add_moments(columns, moments, own, columns)
    if view.inner == 1:
        taken(n, moments, n, mean, low, m2)
    else:
        for c in range(n):
            mean[c], lost, m2[c] = joined(offset(moments, c * view.inner), view.inner, columns)
            _write(low, c, lost)


@primitive
def _alone(view):
    """Whether a column is a channel."""
    return view.fold * view.inner == 1


@primitive
def _spread(rows, n, values, constants, view):
    """Rows of n values, one for each channel, to all columns of these channels; constants: at their first."""
    if _alone(view):
        return
    for r in range(rows):
        row, value = offset(constants.first, r * constants.pitch), offset(values.first, r * values.pitch)
        for f in range(view.fold):
            to = offset(row, f * view.channels * view.inner)
            if view.inner == 1:
                copy_run(value, n, to, None)
            else:
                for c in range(n):
                    for j in range(c * view.inner, (c + 1) * view.inner):
                        to[j] = value[c]


@primitive
def finish_columns(b, start, end, x, view, state, sums, constants):
    """Statistics, and constants of the output, of a part of channels, from the sums of their columns."""
    (c, n), m2 = part(b, start, end, view), tile_on_stack(state.mean)
    own, to = offset(state, c), offset(constants, c * view.inner)
    values = to if _alone(view) else Rows(tile_on_stack(to.first), n)
    channel_moments(x, view, c, n, sums, own.mean, None, m2)
    finish_output(x, view, c, n, own, m2, values)
    _spread(3, n, values, to, view)


@primitive
def take_columns(b, view, state, constants):
    """Constants of the output of a part of all channels; statistics from running ones, if there are any."""
    c, n = part(b, 0, view.channels, view)
    own, to = offset(state, c), offset(constants, c * view.inner)
    values = to if _alone(view) else Rows(tile_on_stack(to.first), n)
    take_statistics(own.running_mean, n, own)
    write_output_constants(n, own, values)
    _spread(3, n, values, to, view)


@primitive
def prepare_columns(b, start, end, view, given, constants, kind):
    """What the dots of a part of channels need, as of `prepare_dots`."""
    c, n = part(b, start, end, view)
    to = offset(constants, c * view.inner)
    values = to if _alone(view) else Rows(tile_on_stack(to.first), n)
    prepare_dots(n, offset(given, c), values, kind)
    _spread(2, n, values, to, view)
    if kind is not None:
        _spread(3, n, affine_rows(values, kind), affine_rows(to, kind), view)


@primitive
def dots_of_columns(k, n, a, view, constants, dz, sums):
    """Sums of dy * (x - hi) * r and of dy of n columns of one tile: piece k, as of `sum_columns`.

    With an activation dz, rows as those of sums, receives the gradient before it.
    """
    t, first = k // -(-view.width // n), k % -(-view.width // n) * n
    start, rows, columns = tile_of_rows(t, view)
    a, constants, n = offset(a, start + first), offset(constants, first), min(n, columns - first)
    dot = offset(sums.first, 2 * t * sums.pitch + first)
    s = offset(dot, sums.pitch)
    zero(dot, n)
    zero(s, n)
    if dz is None:
        add_dots(a.dy, a.x, rows, view.width, n, constants, dot, s)
    else:
        affine = affine_rows(constants, a.kind)
        for i in range(rows):
            row = offset(a, i * view.width)
            own = offset(dz.first, (start // view.width + i) * dz.pitch + first)
            write_slope(row, n, affine, own)
            add_dots(own, row.x, 1, view.width, n, constants, dot, s)


@primitive
def _add_tiles(view, start, n, sums, dot, s):
    """dot and s of n columns: the sums over all tiles, and over what is folded."""
    zero(dot, n)
    zero(s, n)
    for f in range(view.fold):
        first = (f * view.channels + start) * view.inner
        for t in range(sums.tiles):
            own, m = offset(sums.first, 2 * t * sums.pitch + first), min(n, tile_of_rows(t, view)[2] - first)
            add(dot, own, m)
            add(s, offset(own, sums.pitch), m)


@primitive
def _sums_of_channels(view, start, n, sums, dot, s):
    """The same of the n channels from `start`."""
    if view.inner == 1:
        _add_tiles(view, start, n, sums, dot, s)
        return
    columns, dots = n * view.inner, tile_on_stack(dot)
    totals = offset(dots, columns)
    _add_tiles(view, start, columns, sums, dots, totals)
    for c in range(n):
        dot[c] = s[c] = 0.0
        for j in range(c * view.inner, (c + 1) * view.inner):
            dot[c] += dots[j]
            s[c] += totals[j]


@primitive
def finish_dots_of_columns(b, start, end, view, given, sums, constants):
    """The sums of a part of channels, and the constants of their gradient."""
    c, n = part(b, start, end, view)
    own, to = offset(given, c), offset(constants, c * view.inner)
    _sums_of_channels(view, c, n, sums, own.dot, own.s)
    values = to if _alone(view) else Rows(tile_on_stack(to.first), n)
    if not _alone(view):
        for k in range(n):
            hi = k * view.inner
            values.first[k], values.first[n + k] = to.first[hi], to.first[to.pitch + hi]
    finish_dots(n, view, own, values)
    _spread(4, n, values, to, view)
