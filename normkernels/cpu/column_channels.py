"""From columns to channels: from the sums of tiles, as `column_primitives` form them, to the statistics and
constants of channels, and their gradients. How columns belong to channels is said in `columns`.
"""

from typing import NamedTuple

from .channel_constants import (
    finish_statistics,
    rows_of_dot_constants,
    rows_of_gradient_constants,
    rows_of_output_constants,
    with_running,
)
from .column_primitives import add_dots, add_moments, columns_slope, joined, moments_of_tile, taken
from .fusion import copy_run, tile_on_stack
from .jit import primitive
from .pointers import offset
from .primitives import add, zero
from .tuning import FINISHED, ROWS_SUMMED


class Part(NamedTuple):
    """Some channels. Sums and constants begin with the column `origin`, their rows lie `pitch` apart."""

    start: int
    end: int
    origin: int
    pitch: int


@primitive
def channels_together(inner):
    """How many channels are finished together."""
    return max(1, FINISHED // inner)


@primitive
def tile_count(size, width):
    """Tiles of an array of so many elements; the rest of a row is one."""
    return -(-(size // width) // ROWS_SUMMED) + (size % width > 0)


@primitive
def bounds_of_tile(t, size, width):
    """First row, rows, and columns of tile t."""
    rows = size // width
    first = min(t * ROWS_SUMMED, rows)
    return (first, min(ROWS_SUMMED, rows - first), width) if first < rows else (first, 1, size % width)


@primitive
def _all_good(good, blocks):
    """Whether the sums of all blocks of columns of a tile are."""
    poor = 0
    for k in range(blocks):
        poor += good[k] == 0
    return poor == 0


@primitive
def _merge_tiles(x, view, part, f, sums, good, blocks, moments, new):
    """count, pivot, mean - pivot and m2 of the columns of channels in fold f, from the sums of their tiles.

    moments, new: 4 rows of numbers, the result and room.
    """
    first, n = (f * view.channels + part.start) * view.inner, (part.end - part.start) * view.inner
    for t in range(tile_count(view.size, view.width)):
        row, rows, columns = bounds_of_tile(t, view.size, view.width)
        m, tile = min(n, columns - first), offset(x, row * view.width + first)
        own = offset(sums, 3 * t * part.pitch + first - part.origin)
        if m > 0:
            to = moments if t == 0 else new
            whole = _all_good(offset(good, t * blocks), blocks)
            moments_of_tile(tile, rows, view.width, m, own, part.pitch, whole, to, n)
            if t > 0:
                add_moments(m, moments, new, n)


@primitive
def channel_statistics(x, view, part, sums, good, blocks, eps, mean, var, rstd, m2):
    """mean, var, rstd and m2 of channels; these four: at the first of them."""
    n, channels, moments = (part.end - part.start) * view.inner, part.end - part.start, tile_on_stack(m2)
    for f in range(view.fold):
        own = offset(moments, 4 * n) if f > 0 else moments
        _merge_tiles(x, view, part, f, sums, good, blocks, own, offset(moments, 8 * n))
        if f > 0:
            add_moments(n, moments, own, n)
    if view.inner == 1:
        taken(n, moments, n, mean, m2)
    else:
        for c in range(channels):
            mean[c], m2[c] = joined(offset(moments, c * view.inner), view.inner, n)
    finish_statistics(x, view, part.start, channels, eps, True, mean, var, rstd, m2)


@primitive
def _spread(rows, n, values, constants, view, pitch):
    """Rows of n values, one for each channel, to all columns of these channels; constants: at their first."""
    for r in range(rows):
        row, value = offset(constants, r * pitch), offset(values, r * n)
        for f in range(view.fold):
            to = offset(row, f * view.channels * view.inner)
            if view.inner == 1:
                copy_run(value, n, to, None)
            else:
                for c in range(n):
                    for j in range(c * view.inner, (c + 1) * view.inner):
                        to[j] = value[c]


@primitive
def channel_constants(x, view, part, mean, rstd, weight, bias, constants):
    """hi, scale and shift of the outputs of all columns of channels.

    mean, rstd, weight, bias: at the first of the channels.
    """
    n, own = part.end - part.start, offset(constants, part.start * view.inner - part.origin)
    alone = view.fold * view.inner == 1  # a column is a channel
    values, pitch = (own, part.pitch) if alone else (tile_on_stack(constants), n)
    rows_of_output_constants(x, n, mean, rstd, weight, bias, values, pitch)
    if not alone:
        _spread(3, n, values, own, view, part.pitch)


@primitive
def finish_columns(
    x, view, part, sums, good, blocks, weight, bias, state, running_mean, running_var, constants
):  # fmt: skip
    """Statistics, and constants of the output, of channels."""
    start, n = part.start, part.end - part.start
    mean, rstd, var = offset(state.mean, start), offset(state.rstd, start), tile_on_stack(state.mean)
    m2, w, b = offset(var, n), offset(var, 2 * n), offset(var, 3 * n)
    channel_statistics(x, view, part, sums, good, blocks, state.eps, mean, var, rstd, m2)
    for c in range(n):
        w[c], b[c] = weight[start + c], bias[start + c]
    with_running(start, n, view.size // view.channels, state, running_mean, running_var, var, m2, w, b)
    channel_constants(x, view, part, mean, rstd, w, b, constants)


@primitive
def prepare_dots(x, view, part, weight, bias, kind, mean, rstd, constants, affine):
    """hi and r, for the dots, of channels; with an activation the constants of their output."""
    n, start, values = part.end - part.start, part.start, tile_on_stack(constants)
    rows_of_dot_constants(x, n, offset(mean, start), offset(rstd, start), values, n)
    _spread(2, n, values, offset(constants, start * view.inner - part.origin), view, part.pitch)
    if kind is not None:
        channel_constants(
            x, view, part, offset(mean, start), offset(rstd, start), offset(weight, start),
            offset(bias, start), affine,
        )  # fmt: skip


@primitive
def dots_of_tile(dy, x, residual, rows, width, n, constants, affine, pitch, kind, dz, apart, sums):
    """The dots of n columns of a tile; sums: rows of them, `pitch` apart.

    With an activation dz, of which a row lies `apart` from the next, receives the gradient before it.
    """
    s, q = sums, offset(sums, pitch)
    zero(s, n)
    zero(q, n)
    if kind is None:
        add_dots(dy, x, rows, width, n, constants, pitch, s, q)
    else:
        for i in range(rows):
            k, own = i * width, offset(dz, i * apart)
            columns_slope(offset(dy, k), offset(x, k), n, pitch, affine, offset(residual, k), kind, own)
            add_dots(own, offset(x, k), 1, width, n, constants, pitch, s, q)


@primitive
def finish_dots_of_columns(
    x, view, part, weight, mean, rstd, training, sums, tiles, dweight, dbias, constants
):  # fmt: skip
    """The sums of channels and the constants of their gradient; sums: (tiles, 2, columns)."""
    start, n, columns = part.start, part.end - part.start, (part.end - part.start) * view.inner
    s, dot, s_total = offset(dbias, start), offset(dweight, start), tile_on_stack(dbias)
    dot_total = offset(s_total, columns)
    zero(s_total, 2 * columns)
    for f in range(view.fold):
        first = (f * view.channels + start) * view.inner
        for t in range(tiles):
            own = offset(sums, 2 * t * part.pitch + first - part.origin)
            m = min(columns, bounds_of_tile(t, view.size, view.width)[2] - first)
            add(s_total, own, m)
            add(dot_total, offset(own, part.pitch), m)
    for c in range(n):
        s[c] = dot[c] = 0.0
        for j in range(c * view.inner, (c + 1) * view.inner):
            s[c] += s_total[j]
            dot[c] += dot_total[j]
    own, values = offset(constants, start * view.inner - part.origin), tile_on_stack(constants)
    for c in range(n):
        values[c], values[n + c] = own[c * view.inner], own[part.pitch + c * view.inner]
    rows_of_gradient_constants(
        x, n, view.size // view.channels, offset(mean, start), offset(rstd, start), offset(weight, start),
        training, dot, s, values, n,
    )  # fmt: skip
    _spread(4, n, values, own, view, part.pitch)
