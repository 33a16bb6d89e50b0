"""From columns to channels: from the sums of tiles, as `column_primitives` form them, to the statistics and
constants of channels, and their gradients. How columns belong to channels is said in `columns`.

What is done here is done for some channels at once, in loops of few arrays, which LLVM makes vectors of.
"""

from typing import NamedTuple

import numpy as np

from .channel_primitives import correction, unbiased_variance
from .column_primitives import add_dots, add_moments, columns_slope, joined, moments_of_tile
from .extremes import group_statistics, usual
from .fusion import tile_on_stack
from .jit import primitive
from .pointers import as_element, offset, pointer
from .primitives import as_scale, centre, moved, reciprocal_sd, shift_of
from .tuning import FINISHED, ROWS_SUMMED


class View(NamedTuple):
    """An array of `size` elements as rows of `width` = fold * channels * inner columns."""

    size: int
    width: int
    fold: int
    channels: int
    inner: int


class Part(NamedTuple):
    """Some channels. Sums and constants begin with the column `origin`, their rows lie `pitch` apart."""

    start: int
    end: int
    origin: int
    pitch: int


@primitive
def view_of(size, fold, channels, inner):
    """The array as rows of columns."""
    return View(size, fold * channels * inner, fold, channels, inner)


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
def _all_good(good, t):
    """Whether the sums of all columns of tile t are."""
    every = True
    for k in range(good.shape[1]):
        every &= good[t, k]
    return every


@primitive
def _merge_tiles(x, view, part, f, sums, good, moments, new):
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
            moments_of_tile(tile, rows, view.width, m, own, part.pitch, _all_good(good, t), to, n)
            if t > 0:
                add_moments(m, moments, new, n)


@primitive
def channel_statistics(x, view, part, sums, good, eps, mean, var, rstd, m2):
    """mean, var, rstd and m2 of channels; these four: at the first of them."""
    n, channels, count = (
        (part.end - part.start) * view.inner,
        part.end - part.start,
        view.size // view.channels,
    )
    moments = tile_on_stack(m2)
    for f in range(view.fold):
        own = offset(moments, 4 * n) if f > 0 else moments
        _merge_tiles(x, view, part, f, sums, good, own, offset(moments, 8 * n))
        if f > 0:
            add_moments(n, moments, own, n)
    if view.inner == 1:
        for c in range(channels):
            mean[c], m2[c] = moments[n + c] + moments[2 * n + c], moments[3 * n + c]
    else:
        for c in range(channels):
            mean[c], m2[c] = joined(offset(moments, c * view.inner), view.inner, n)
    unusual = 0
    for c in range(channels):
        var[c] = m2[c] / count
        rstd[c] = reciprocal_sd(var[c], eps)
        unusual += not usual(rstd[c])
    if unusual > 0:
        for c in range(channels):
            mean[c], var[c], rstd[c] = group_statistics(
                offset(x, (part.start + c) * view.inner), count // view.inner, view.channels * view.inner,
                view.inner, eps, True, mean[c], var[c],
            )  # fmt: skip


@primitive
def _with_running(
    start, n, count, settings, statistics, running_mean, running_var, mean, var, rstd, m2, weight, bias
):  # fmt: skip
    """Move the running statistics of n channels, where there are any.

    Before, if there are rows for r and d, these enter weight and bias.
    """
    if running_mean is None:
        return
    running_mean, running_var = offset(pointer(running_mean), start), offset(pointer(running_var), start)
    if len(statistics) > 2:
        for c in range(n):
            old_mean, old_var = np.float64(running_mean[c]), np.float64(running_var[c])
            r, d = correction(mean[c], rstd[c], old_mean, old_var, settings[0], settings[2], settings[3])
            statistics[2, start + c], statistics[3, start + c] = r, d
            weight[c], bias[c] = weight[c] * r, bias[c] + weight[c] * d
    if settings[1] != 0.0:  # the variance may be inf
        for c in range(n):
            running_mean[c] = moved(running_mean[c], mean[c], settings[1])
        for c in range(n):
            running_var[c] = moved(running_var[c], unbiased_variance(m2[c], var[c], count), settings[1])


@primitive
def take_statistics(start, end, running_mean, running_var, eps, statistics):
    """mean and rstd of the channels start..end from running statistics, where these are not None."""
    if running_mean is not None:
        for c in range(start, end):
            statistics[0, c] = running_mean[c]
        for c in range(start, end):
            statistics[1, c] = reciprocal_sd(np.float64(running_var[c]), eps)


@primitive
def _spread(rows, n, values, constants, view, pitch):
    """Rows of n values, one for each channel, to all columns of these channels; constants: at their first."""
    for r in range(rows):
        row, value = offset(constants, r * pitch), offset(values, r * n)
        for f in range(view.fold):
            to = offset(row, f * view.channels * view.inner)
            if view.inner == 1:
                for c in range(n):
                    to[c] = value[c]
            else:
                for c in range(n):
                    for j in range(c * view.inner, (c + 1) * view.inner):
                        to[j] = value[c]


@primitive
def channel_constants(x, view, part, mean, rstd, weight, bias, constants):
    """hi, scale and shift of the outputs of all columns of channels, as `channel_primitives` has them.

    mean, rstd, weight, bias: at the first of the channels.
    """
    n, hi = part.end - part.start, tile_on_stack(constants)
    scale, shift = offset(hi, n), offset(hi, 2 * n)
    for c in range(n):
        hi[c] = centre(x, mean[c], rstd[c])
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        shift[c] = as_element(x, bias[c] + shift_of(x, hi[c], mean[c], scale[c]))
    _spread(3, n, hi, offset(constants, part.start * view.inner - part.origin), view, part.pitch)


@primitive
def finish_columns(x, view, part, sums, good, weight, bias, state, constants):
    """Statistics, and constants of the output, of channels; state: as for `finish_moments`."""
    start, n, count = part.start, part.end - part.start, view.size // view.channels
    settings, statistics, running_mean, running_var = state
    mean = offset(pointer(statistics), start)
    rstd, var = offset(mean, view.channels), tile_on_stack(mean)
    m2, w, b = offset(var, n), offset(var, 2 * n), offset(var, 3 * n)
    channel_statistics(x, view, part, sums, good, settings[0], mean, var, rstd, m2)
    for c in range(n):
        w[c], b[c] = weight[start + c], bias[start + c]
    _with_running(start, n, count, settings, statistics, running_mean, running_var, mean, var, rstd, m2, w, b)
    channel_constants(x, view, part, mean, rstd, w, b, constants)


@primitive
def prepare_dots(x, view, part, weight, bias, kind, mean, rstd, constants, affine):
    """hi and r, for the dots, of channels; with an activation the constants of their output."""
    n, hi = part.end - part.start, tile_on_stack(constants)
    r, mean, rstd = offset(hi, n), offset(pointer(mean), part.start), offset(pointer(rstd), part.start)
    for c in range(n):
        hi[c] = centre(x, mean[c], rstd[c])
    for c in range(n):
        r[c] = as_scale(x, rstd[c])
    _spread(2, n, hi, offset(constants, part.start * view.inner - part.origin), view, part.pitch)
    if kind is not None:
        weight, bias = offset(pointer(weight), part.start), offset(pointer(bias), part.start)
        channel_constants(x, view, part, mean, rstd, weight, bias, affine)


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
def _gradient_constants(x, n, count, mean, rstd, weight, training, hi, r, dot, s, scale):
    """scale, c2 and k of the gradients of n channels, rows of n from scale on; dot about hi becomes dweight.

    As `finish_dots`. In evaluation hi and c2 are 0.
    """
    c2, k, part = offset(scale, n), offset(scale, 2 * n), 1.0 / count
    for c in range(n):
        dot[c] += (hi[c] - mean[c]) * r[c] * s[c]
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        k[c] = as_scale(x, rstd[c] * -(dot[c] * part))
    for c in range(n):
        c2[c] = as_element(x, s[c] * part - shift_of(x, hi[c], mean[c], k[c]))
    if not training:
        for c in range(n):
            hi[c] = c2[c] = as_element(x, 0.0)


@primitive
def finish_dots_of_columns(x, view, part, weight, mean, rstd, training, sums, dweight, dbias, constants):
    """The sums of channels and the constants of their gradient; sums: (tiles, 2, columns)."""
    start, n, columns = part.start, part.end - part.start, (part.end - part.start) * view.inner
    s, dot = offset(pointer(dbias), start), offset(pointer(dweight), start)
    s_total = tile_on_stack(s)
    dot_total = offset(s_total, columns)
    for j in range(2 * columns):
        s_total[j] = 0.0
    for f in range(view.fold):
        first = (f * view.channels + start) * view.inner
        for t in range(len(sums)):
            own = offset(pointer(sums), 2 * t * part.pitch + first - part.origin)
            for j in range(min(columns, bounds_of_tile(t, view.size, view.width)[2] - first)):
                s_total[j] += np.float64(own[j])
                dot_total[j] += np.float64(own[part.pitch + j])
    for c in range(n):
        s[c] = dot[c] = 0.0
        for j in range(c * view.inner, (c + 1) * view.inner):
            s[c] += s_total[j]
            dot[c] += dot_total[j]
    own, hi = offset(constants, start * view.inner - part.origin), tile_on_stack(constants)
    scale, r = offset(hi, n), offset(hi, 4 * n)
    for c in range(n):
        hi[c], r[c] = own[c * view.inner], own[part.pitch + c * view.inner]
    _gradient_constants(
        x, n, view.size // view.channels, offset(pointer(mean), start), offset(pointer(rstd), start),
        offset(pointer(weight), start), training, hi, r, dot, s, scale,
    )  # fmt: skip
    _spread(4, n, hi, own, view, part.pitch)
