"""Primitives over rows: every element of a row has its own weight and bias.

What is fused is None where it is absent: the activation `kind` that follows, for whose backward there is
bias; and `dsum`, a gradient that is added to dx.
"""

import math

import numpy as np

from .activations import slope
from .extremes import group_statistics, usual
from .fusion import activated, first_of, plus
from .jit import inlined, primitive
from .loops import each, sums
from .pointers import as_element, offset
from .primitives import (
    are_good,
    centring,
    merge,
    pivot_of,
    run_squares,
    run_sums,
    tile_moments,
    tile_squares,
)
from .tracing import step
from .tuning import PAIRED, TILE
from .vectors import fma, sqrt, where


@primitive
def row_moments(x, n):
    """mean and m2 of one run: its tiles merged in their order."""
    count, origin, mean, m2 = tile_moments(x, 1, 0, min(n, TILE))
    for t in range(TILE, n, TILE):
        count_t, pivot, mean_t, m2_t = tile_moments(offset(x, t), 1, 0, min(TILE, n - t))
        mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
        count += count_t
    return origin + mean, m2


@primitive
def row_squares(x, n):
    """The sum of squares of one run: that of its tiles in their order."""
    q = 0.0
    for t in range(0, n, TILE):
        q += tile_squares(offset(x, t), min(TILE, n - t))
    return q


@step
def _statistics_of_rows(i, sums, var, mean, rstd, n, eps):
    """mean, rstd and var of rows from pivot, s and q, which stand there; rstd is NaN where these are poor."""
    s, q = rstd[i], var[i]
    deviation, good = s * (1.0 / n), are_good(s, q, n)
    mean[i], v = mean[i] + deviation, (q - s * deviation) / n
    var[i] = v
    rstd[i] = where(good, 1.0 / sqrt(v + eps), math.nan)
    return (sums[0] + where(good, var.rounded(0.0), 1.0),)


@primitive
def batch_statistics(x, rows, n, eps, centred, mean, var, rstd):
    """mean, var and rstd of a few rows, in float64.

    First the sums of each row, then the divisions and roots of all of them, as vectors.
    """
    poor = n > TILE
    for i in range(0 if poor else rows):
        row = offset(x, i * n)
        if centred:
            pivot = pivot_of(row, n)
            s, q = run_sums(row, n, pivot)
            mean[i], rstd[i], var[i] = pivot, s, q
        else:
            mean[i], rstd[i], var[i] = 0.0, 0.0, run_squares(row, n)
    if poor or sums(1, rows, _statistics_of_rows, var, mean, rstd, n, eps)[0] > 0.0:
        for i in range(rows):
            if n > TILE or not usual(rstd[i]):
                mean[i], var[i], rstd[i] = row_statistics(offset(x, i * n), n, eps, centred)


@primitive
def row_statistics(x, n, eps, centred):
    """mean, var and rstd of a row, whatever its length and range"""
    if centred:
        mean, m2 = row_moments(x, n)
    else:
        mean, m2 = 0.0, row_squares(x, n)
    return group_statistics(x, 1, 0, n, eps, centred, mean, m2 / n)


def _affine(x_hat, weight, bias, i):
    """x_hat * weight + bias"""
    if bias is None:
        return x_hat * weight[i]
    return fma(x_hat, weight[i], bias[i])


@step
def _normalize(i, y, x, hi, lo, rstd, weight, bias, kind, ahead):
    x.prefetch(i + ahead, 2)
    x_hat = fma(x[i] - hi, rstd, lo)
    y[i] = activated(_affine(x_hat, weight, bias, i), kind)


@inlined
def normalize_row(x, n, centre, weight, bias, kind, y, stream, ahead):
    """y = act((x - mean) * rstd * weight + bias) of a row of n elements; centre: that of `centring`

    Meanwhile what lies `ahead` of x is fetched, which is read next: 2 to 15 % faster from memory (256 to
    16384 columns; Sapphire Rapids), even where it is in the cache.
    """
    hi, lo, rstd = centre
    each(n, stream, _normalize, y, x, hi, lo, rstd, weight, bias, kind, ahead)


@primitive
def normalize_rows(x, rows, n, first, period, mean, rstd, weight, bias, kind, y, stream):
    """As `normalize_row`, of rows that take the parameters from row `first` of `period` on, over and over."""
    j = first * n
    for i in range(rows):
        row = offset(x, i * n)
        centre = centring(row, mean[i], rstd[i], 1.0)
        normalize_row(
            row, n, centre, offset(weight, j), offset(bias, j), kind, offset(y, i * n), stream, rows * n
        )
        j = j + n if j + n < period * n else 0


def _row_dots(i, j, x, dy, centre, weight, bias, kind, dz):
    """x_hat and dy of element j, which has the parameters of i"""
    hi, lo, rstd = centre
    x_hat = fma(x[j] - hi, rstd, lo)
    if kind is None:
        return x_hat, dy[j]
    d = slope(_affine(x_hat, weight, bias, i), dy[j], kind)
    dz[j] = d
    return x_hat, d


@step
def _add_dots(i, sums, x, dy, centre, weight, bias, kind, dz, dweight, dbias):
    x_hat, d = _row_dots(i, i, x, dy, centre, weight, bias, kind, dz)
    wdy = weight[i] * d
    dweight[i] = fma(x_hat, d, dweight[i])
    if dbias is not None:
        dbias[i] = dbias[i] + d
    return fma(x_hat, wdy, sums[0]), sums[1] + wdy


@step
def _add_dots_of_two(i, sums, x, dy, n, a, b, weight, bias, kind, dz, dweight, dbias):
    """As `_add_dots` for two rows, n elements apart"""
    x_hat_a, d_a = _row_dots(i, i, x, dy, a, weight, bias, kind, dz)
    x_hat_b, d_b = _row_dots(i, i + n, x, dy, b, weight, bias, kind, dz)
    w = weight[i]
    wdy_a, wdy_b = w * d_a, w * d_b
    dweight[i] = fma(x_hat_b, d_b, fma(x_hat_a, d_a, dweight[i]))
    if dbias is not None:
        dbias[i] = dbias[i] + d_a + d_b
    return fma(x_hat_a, wdy_a, sums[0]), sums[1] + wdy_a, fma(x_hat_b, wdy_b, sums[2]), sums[3] + wdy_b


@inlined
def tile_dots(dy, x, n, centre, weight, bias, kind, dz, dweight, dbias):
    """Sums of x_hat * wdy and of wdy of a tile of a row; dweight += dy * x_hat, dbias += dy.

    centre: that of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured). With an activation
    dy stands for the gradient before it, which dz receives.
    """
    c1, c2 = sums(2, n, _add_dots, x, dy, centre, weight, bias, kind, dz, dweight, dbias)
    return np.float64(c1), np.float64(c2)


@step
def _gradient(i, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum, n):
    if i.streaming:  # the next row; arrays that are in the cache take 5 to 9 % longer with it
        dy.prefetch(i + n, 2)
        x.prefetch(i + n, 2)
    x_hat = fma(x[i] - hi, rstd, lo)
    d = fma(dy[i], weight[i], -c2)
    dx[i] = plus(fma(x_hat, -c1, d) * rstd, dsum, i)


@inlined
def row_gradient(dy, x, n, centre, c1, c2, weight, dsum, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum; centre: that of `centring`"""
    hi, lo, rstd = centre
    c1, c2 = as_element(x, c1), as_element(x, c2)
    each(n, stream, _gradient, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum, n)


@inlined
def _centre(x, n, i, mean, rstd, centred):
    """That of `centring` of row i, for a backward"""
    # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
    return centring(x, mean[i], rstd[i] if n > 1 or not centred else 0.0, 1.0)


@primitive
def rows_gradient(
    dy, x, rows, n, first, period, centred, mean, rstd, weight, bias, kind, dz, dsum, dx, dweight, dbias,
    stream,
):  # fmt: skip
    """As `tile_dots` and `row_gradient`, of rows of one tile, as in `normalize_rows`."""
    i, j, c1_of_1, c2_of_1 = 0, first * n, 1.0 / n, 1.0 / n if centred else 0.0
    while i < rows:
        k = i * n
        row, dy_row, w = offset(x, k), offset(dy, k), offset(weight, j)
        a = _centre(x, n, i, mean, rstd, centred)
        if n <= PAIRED and period == 1 and i + 1 < rows:
            b = _centre(x, n, i + 1, mean, rstd, centred)
            dots = sums(4, n, _add_dots_of_two, row, dy_row, n, a, b, w, bias, kind, dz, dweight, dbias)
            c1, c2 = np.float64(dots[2]) * c1_of_1, np.float64(dots[3]) * c2_of_1
            row_gradient(
                first_of(dz, dy_row), row, n, a, np.float64(dots[0]) * c1_of_1,
                np.float64(dots[1]) * c2_of_1, w, offset(dsum, k), offset(dx, k), stream,
            )  # fmt: skip
            k = k + n
            row_gradient(
                first_of(offset(dz, n), offset(dy, k)), offset(x, k), n, b, c1, c2, w, offset(dsum, k),
                offset(dx, k), stream,
            )  # fmt: skip
            i += 2
        else:
            c1, c2 = tile_dots(
                dy_row, row, n, a, w, offset(bias, j), kind, dz, offset(dweight, j), offset(dbias, j)
            )
            row_gradient(
                first_of(dz, dy_row), row, n, a, c1 * c1_of_1, c2 * c2_of_1, w, offset(dsum, k),
                offset(dx, k), stream,
            )  # fmt: skip
            i += 1
        j = j + n if j + n < period * n else 0
