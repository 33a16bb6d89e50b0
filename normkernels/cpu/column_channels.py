"""From columns to channels: from the sums of tiles, as `column_primitives` form them, to the statistics and
constants of channels, and their gradients. How columns belong to channels is said in `columns`.
"""

import numpy as np

from .channel_primitives import dot_constants, finish_dots, finish_moments
from .column_primitives import ROWS, add_dots, add_moments, columns_slope, moments_of_tile
from .jit import primitive
from .primitives import merged
from .vectors import as_element, offset, pointer


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
def _merge_tiles(x, first, n, size, width, sums, pitch, good, moments, partials, apart):
    """count, pivot, mean - pivot and m2 of n columns from the sums of their tiles.

    x, sums: at the first of the columns. moments: (8, n), room. partials: those of a column lie `apart` from
    the next.
    """
    count, pivot, mean, m2 = moments[0], moments[1], moments[2], moments[3]
    for t in range(tile_count(size, width)):
        row, rows, columns = bounds_of_tile(t, size, width)
        m, new = min(n, columns - first), 4 * (t > 0)
        if m > 0:
            moments_of_tile(
                offset(x, row * width), rows, width, m, offset(sums, 3 * t * pitch), pitch, good[t].all(),
                moments[new], moments[new + 1], moments[new + 2], moments[new + 3],
            )  # fmt: skip
            if new:
                add_moments(m, count, pivot, mean, m2, moments[4], moments[5], moments[6], moments[7])
    for j in range(n):
        a = offset(partials, j * apart)
        a[0], a[1], a[2], a[3] = count[j], pivot[j], mean[j], m2[j]


@primitive
def channel_moments(x, start, end, size, fold, channels, inner, sums, origin, pitch, good, moments, partials):
    """partials: (channels, fold * inner, 4), the moments of all columns of the channels start..end.

    origin: the column with which the sums begin.
    """
    n = (end - start) * inner
    for f in range(fold):
        first = (f * channels + start) * inner
        _merge_tiles(
            offset(x, first), first, n, size, fold * channels * inner, offset(sums, first - origin), pitch,
            good, moments, offset(pointer(partials), 4 * f * inner), 4 * (fold if inner == 1 else 1),
        )  # fmt: skip


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
def finish_columns(
    x, start, end, size, fold, channels, inner, sums, origin, pitch, good, weight, bias, settings, statistics,
    constants, moments, partials,
):  # fmt: skip
    """Statistics, and constants of the output, of the channels start..end; constants: from `origin` on."""
    channel_moments(
        pointer(x), start, end, size, fold, channels, inner, pointer(sums), origin, pitch, good, moments,
        partials,
    )  # fmt: skip
    own = offset(pointer(constants), -origin)
    for c in range(start, end):
        mean, m2 = merged(offset(pointer(partials), 4 * fold * inner * (c - start)), fold * inner)
        finish_moments(
            pointer(x), c, size // (channels * inner), channels, inner, mean, m2, weight, bias, settings,
            statistics, offset(own, c * inner), pitch,
        )  # fmt: skip
        spread(3, own, pitch, c, fold, channels, inner)


@primitive
def prepare_dots(
    x, start, end, fold, channels, inner, weight, bias, kind, mean, rstd, constants, affine, origin, pitch
):  # fmt: skip
    """The constants of the dots of the channels start..end, and with an activation those of their output."""
    a, z = offset(constants, -origin), offset(affine, -origin)
    for c in range(start, end):
        k = c * inner
        dot_constants(x, mean[c], rstd[c], weight[c], bias[c], offset(a, k), offset(z, k), pitch)
        spread(2, a, pitch, c, fold, channels, inner)
        if kind is not None:
            spread(3, z, pitch, c, fold, channels, inner)


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
def finish_dots_of_columns(
    x, start, end, size, fold, channels, inner, weight, mean, rstd, training, sums, origin, pitch, dweight,
    dbias, constants, totals,
):  # fmt: skip
    """The sums of the channels start..end and the constants of their gradient; totals: (2, columns), room."""
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
    for c in range(start, end):
        s = dot = 0.0
        for j in range((c - start) * inner, (c - start + 1) * inner):
            s += totals[0, j]
            dot += totals[1, j]
        finish_dots(
            pointer(x), c, size // channels, dot, s, weight, mean, rstd, training, dweight, dbias,
            offset(a, c * inner), pitch,
        )  # fmt: skip
        spread(4, a, pitch, c, fold, channels, inner)
