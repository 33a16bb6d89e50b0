"""From columns to channels: from the sums of tiles, as `column_primitives` form them, to the statistics and
constants of channels, and their gradients. How columns belong to channels is said in `columns`.
"""

import math

import numpy as np

from .channel_primitives import correction, forward_constants
from .column_primitives import ROWS, add_dots, add_moments, columns_slope, joined, moments_of_tile
from .extremes import group_statistics, usual
from .jit import primitive
from .pointers import as_element, offset, pointer
from .primitives import as_scale, centre


@primitive
def tile_count(size, width):
    """Tiles of an array of so many elements; the rest of a row is one."""
    return -(-(size // width) // ROWS) + (size % width > 0)


@primitive
def bounds_of_tile(t, size, width):
    """First row, rows, and columns of tile t."""
    rows = size // width
    first = min(t * ROWS, rows)
    return (first, min(ROWS, rows - first), width) if first < rows else (first, 1, size % width)


@primitive
def _merge_tiles(x, first, n, size, width, sums, pitch, good, moments, new):
    """count, pivot, mean - pivot and m2 of n columns from the sums of their tiles.

    x, sums: at the first of the columns. moments, new: 4 rows of n numbers, the result and room.
    """
    for t in range(tile_count(size, width)):
        row, rows, columns = bounds_of_tile(t, size, width)
        m, own = min(n, columns - first), offset(sums, 3 * t * pitch)
        if t == 0:
            moments_of_tile(offset(x, row * width), rows, width, m, own, pitch, good[t].all(), moments, n)
        elif m > 0:
            moments_of_tile(offset(x, row * width), rows, width, m, own, pitch, good[t].all(), new, n)
            add_moments(m, moments, new, n)


# Rows of the room for channels: moments of columns, of those of one more fold, and of one more tile; then
# those of channels.
ROOM = 14
_M2, _VAR = 12, 13


@primitive
def channel_statistics(
    x, start, end, size, fold, channels, inner, sums, origin, pitch, good, eps, room, mean, var, rstd
):  # fmt: skip
    """mean, var and rstd of the channels start..end, and their m2; room: (ROOM, columns of a fold).

    origin: the column with which the sums begin. mean, var, rstd: at the first of the channels.
    """
    n, count = (end - start) * inner, size // channels
    moments, m2 = pointer(room), offset(pointer(room), _M2 * n)
    for f in range(fold):
        first = (f * channels + start) * inner
        own = offset(moments, 4 * n) if f > 0 else moments
        _merge_tiles(
            offset(x, first), first, n, size, fold * channels * inner, offset(sums, first - origin), pitch,
            good, own, offset(moments, 8 * n),
        )  # fmt: skip
        if f > 0:
            add_moments(n, moments, own, n)
    if inner == 1:
        for c in range(n):
            mean[c], m2[c] = moments[n + c] + moments[2 * n + c], moments[3 * n + c]
    else:
        for c in range(end - start):
            mean[c], m2[c] = joined(offset(moments, c * inner), inner, n)
    unusual = 0
    for c in range(end - start):
        var[c] = m2[c] / count
        v = var[c] + eps
        rstd[c] = 1.0 / math.sqrt(v) if v != 0.0 else 0.0
        unusual += not usual(rstd[c])
    if unusual > 0:
        for c in range(end - start):
            run = offset(x, (start + c) * inner)
            mean[c], var[c], rstd[c] = group_statistics(
                run, count // inner, channels * inner, inner, eps, True, mean[c], var[c]
            )
    return m2


@primitive
def _renormalize(start, n, mean, rstd, running_mean, running_var, statistics, settings):
    """r and d of the channels from `start` into statistics, where it has room for them; whether it has."""
    if running_mean is None or len(statistics) == 2:
        return False
    for c in range(start, start + n):
        old_mean, old_var = np.float64(running_mean[c]), np.float64(running_var[c])
        statistics[2, c], statistics[3, c] = correction(
            mean[c - start], rstd[c - start], old_mean, old_var, settings[0], settings[2], settings[3]
        )
    return True


@primitive
def _move(start, n, count, factor, mean, var, m2, running_mean, running_var):
    """Move running statistics, if there are any, by `factor` towards those of the channels from `start`."""
    if running_mean is None:
        return
    running_mean, running_var = offset(pointer(running_mean), start), offset(pointer(running_var), start)
    for c in range(n):
        running_mean[c] = (1.0 - factor) * running_mean[c] + factor * mean[c]
    for c in range(n):
        unbiased = m2[c] / (count - 1) if var[c] == m2[c] / count else var[c] * (count / (count - 1))
        running_var[c] = (1.0 - factor) * running_var[c] + factor * unbiased


@primitive
def take_statistics(start, end, running_mean, running_var, eps, statistics):
    """mean and rstd of the channels start..end from running statistics, where these are not None."""
    if running_mean is not None:
        for c in range(start, end):
            statistics[0, c] = running_mean[c]
        for c in range(start, end):
            v = np.float64(running_var[c]) + eps
            statistics[1, c] = 1.0 / math.sqrt(v) if v != 0.0 else 0.0


@primitive
def output_constants(x, n, mean, rstd, weight, bias, constants, pitch):
    """hi, scale and shift of the outputs of n channels, rows `pitch` apart.

    As `forward_constants`, in loops that the compiler makes vectors of.
    """
    hi, scale, shift = constants, offset(constants, pitch), offset(constants, 2 * pitch)
    for c in range(n):
        hi[c] = centre(x, mean[c], rstd[c])
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        lo = as_element(x, (np.float64(hi[c]) - mean[c]) * np.float64(scale[c]))
        shift[c] = as_element(x, bias[c] + lo)


@primitive
def spread(rows, constants, pitch, c, fold, channels, inner):
    """The constants of a channel, which lie at its first column, to all its columns."""
    for r in range(rows):
        row = offset(constants, r * pitch)
        for f in range(fold):
            first = (f * channels + c) * inner
            for j in range(first, first + inner):
                row[j] = row[c * inner]


@primitive
def _spread_rows(rows, n, values, constants, pitch, fold, channels, inner):
    """Rows of n values, one for each channel, to all columns of these channels; constants: at their first."""
    for r in range(rows):
        row, value = offset(constants, r * pitch), offset(values, r * n)
        for f in range(fold):
            to = offset(row, f * channels * inner)
            if inner == 1:
                for c in range(n):
                    to[c] = value[c]
            else:
                for c in range(n):
                    for j in range(c * inner, (c + 1) * inner):
                        to[j] = value[c]


@primitive
def channel_constants(
    x, start, end, fold, channels, inner, mean, rstd, weight, bias, values, constants, pitch
):
    """The constants of the output of all columns of the channels start..end.

    All pointers but x: at the first of the channels. values: (3, channels), room.
    """
    n = end - start
    if fold * inner == 1:
        output_constants(x, n, mean, rstd, weight, bias, constants, pitch)
    else:
        output_constants(x, n, mean, rstd, weight, bias, values, n)
        _spread_rows(3, n, values, constants, pitch, fold, channels, inner)


@primitive
def finish_columns(
    x, start, end, size, fold, channels, inner, sums, origin, pitch, good, weight, bias, state,
    constants, room, values,
):  # fmt: skip
    """Statistics, and constants of the output, of the channels start..end; constants: from `origin` on."""
    n, count, width = end - start, size // channels, (end - start) * inner
    settings, statistics, running_mean, running_var = state
    mean = offset(pointer(statistics), start)
    rstd, var = offset(mean, channels), offset(pointer(room), _VAR * width)
    m2 = channel_statistics(
        pointer(x), start, end, size, fold, channels, inner, pointer(sums), origin, pitch, good, settings[0],
        room, mean, var, rstd,
    )  # fmt: skip
    w, b = offset(pointer(weight), start), offset(pointer(bias), start)
    own = offset(pointer(constants), start * inner - origin)
    if _renormalize(start, n, mean, rstd, running_mean, running_var, statistics, settings):
        for c in range(n):
            r, d = statistics[2, start + c], statistics[3, start + c]
            to = offset(own, c * inner)
            forward_constants(pointer(x), mean[c], rstd[c], w[c] * r, b[c] + w[c] * d, to, pitch)
            spread(3, offset(own, -start * inner), pitch, start + c, fold, channels, inner)
    else:
        channel_constants(
            pointer(x), start, end, fold, channels, inner, mean, rstd, w, b, pointer(values), own, pitch
        )
    if settings[1] != 0.0:  # the variance may be inf
        _move(start, n, count, settings[1], mean, var, m2, running_mean, running_var)


@primitive
def prepare_dots(
    x, start, end, fold, channels, inner, weight, bias, kind, mean, rstd, constants, affine, origin, pitch,
    values,
):  # fmt: skip
    """hi and r, for the dots, of the channels start..end; with an activation the constants of their output.

    values: (3, channels), room.
    """
    n, hi = end - start, pointer(values)
    r, own, first = offset(hi, n), offset(constants, start * inner - origin), offset(pointer(mean), start)
    sd = offset(pointer(rstd), start)
    for c in range(n):
        hi[c] = centre(x, first[c], sd[c])
    for c in range(n):
        r[c] = as_scale(x, sd[c])
    _spread_rows(2, n, hi, own, pitch, fold, channels, inner)
    if kind is not None:
        channel_constants(
            x, start, end, fold, channels, inner, first, sd, offset(pointer(weight), start),
            offset(pointer(bias), start), hi, offset(affine, start * inner - origin), pitch,
        )  # fmt: skip


@primitive
def dots_of_tile(dy, x, residual, rows, width, n, constants, affine, pitch, kind, dz, apart, sums):
    """The dots of n columns of a tile; sums: rows of them, `pitch` apart.

    With an activation dz, of which a row lies `apart` from the next, receives the gradient before it.
    """
    s, q = sums, offset(sums, pitch)
    for j in range(n):
        s[j] = q[j] = as_element(sums, 0.0)
    if kind is None:
        add_dots(dy, x, rows, width, n, constants, pitch, s, q)
    else:
        for i in range(rows):
            k, own = i * width, offset(dz, i * apart)
            columns_slope(offset(dy, k), offset(x, k), n, pitch, affine, offset(residual, k), kind, own)
            add_dots(own, offset(x, k), 1, width, n, constants, pitch, s, q)


@primitive
def _gradient_constants(
    x, n, count, mean, rstd, weight, training, constants, inner, pitch, dot, s, values
):  # fmt: skip
    """hi, scale, c2 and k of the gradients of n channels, rows of values; dot about hi becomes dweight.

    As `finish_dots`, in loops that the compiler makes vectors of.
    """
    hi, scale, c2, k = values, offset(values, n), offset(values, 2 * n), offset(values, 3 * n)
    r, part = offset(constants, pitch), 1.0 / count
    for c in range(n):
        hi[c] = constants[c * inner]
    for c in range(n):
        dot[c] += (hi[c] - mean[c]) * r[c * inner] * s[c]
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        k[c] = as_scale(x, rstd[c] * -(dot[c] * part))
    for c in range(n):
        lo = as_element(x, (np.float64(hi[c]) - mean[c]) * np.float64(k[c]))
        c2[c] = as_element(x, s[c] * part - lo)
    if not training:
        for c in range(n):
            hi[c] = c2[c] = as_element(x, 0.0)


@primitive
def finish_dots_of_columns(
    x, start, end, size, fold, channels, inner, weight, mean, rstd, training, sums, origin, pitch, dweight,
    dbias, constants, totals, values,
):  # fmt: skip
    """The sums of the channels start..end and the constants of their gradient.

    totals: (2, columns), values: (4, channels), room.
    """
    width, n, a = fold * channels * inner, (end - start) * inner, offset(pointer(constants), -origin)
    totals[:] = 0.0
    for f in range(fold):
        first = (f * channels + start) * inner
        for t in range(len(sums)):
            m = min(n, bounds_of_tile(t, size, width)[2] - first)
            own = offset(pointer(sums), 2 * t * pitch + first - origin)
            for j in range(m):
                totals[0, j] += np.float64(own[j])
                totals[1, j] += np.float64(own[pitch + j])
    m, own, count = end - start, offset(a, start * inner), size // channels
    s, dot = offset(pointer(dbias), start), offset(pointer(dweight), start)
    for c in range(m):
        s[c] = dot[c] = 0.0
        for j in range(c * inner, (c + 1) * inner):
            s[c] += totals[0, j]
            dot[c] += totals[1, j]
    _gradient_constants(
        pointer(x), m, count, offset(pointer(mean), start), offset(pointer(rstd), start),
        offset(pointer(weight), start), training, own, inner, pitch, dot, s, pointer(values),
    )  # fmt: skip
    _spread_rows(4, m, pointer(values), own, pitch, fold, channels, inner)
