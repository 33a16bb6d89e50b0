"""Primitives over rows: every element of a row has its own weight and bias.

What is fused is None where it is absent: the activation `kind` that follows, for whose backward there is
bias; and `dsum`, a gradient that is added to dx.
"""

import math

import numpy as np

from .activations import slope
from .extremes import group_statistics, usual
from .fusion import activated, first_of, plus
from .jit import primitive, step
from .loops import each, sums
from .primitives import (
    TILE,
    centring,
    far_or_out_of_range,
    merge,
    pivot_of,
    run_squares,
    run_sums,
    tile_moments,
    tile_squares,
)
from .vectors import as_element, fma, offset


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


@primitive
def batch_statistics(x, rows, n, eps, centred, mean, var, rstd):
    """mean, var and rstd of a few rows, in float64.

    First the sums of each row, then the divisions and roots of all of them, as vectors.
    """
    poor, inverse = n > TILE, 1.0 / n
    for i in range(0 if poor else rows):
        row = offset(x, i * n)
        if centred:
            pivot = pivot_of(row, n)
            s, q = run_sums(row, n, pivot)
            mean[i], rstd[i], var[i] = pivot, s, q
        else:
            mean[i], rstd[i], var[i] = 0.0, 0.0, run_squares(row, n)
    for i in range(0 if poor else rows):
        s, q = rstd[i], var[i]
        deviation = s * inverse
        mean[i] += deviation
        var[i] = (q - s * deviation) / n
        bad = far_or_out_of_range(s, q, n)
        rstd[i] = np.nan if bad else 1.0 / math.sqrt(var[i] + eps)
        poor |= bad
    if poor:
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


@step
def _affine(x_hat, weight, bias, i):
    """x_hat * weight + bias"""
    if bias is None:
        return x_hat * weight[i]
    return fma(x_hat, weight[i], bias[i])


@step
def _normalize(i, y, x, hi, lo, rstd, weight, bias, kind):
    x_hat = fma(x[i] - hi, rstd, lo)
    y[i] = activated(_affine(x_hat, weight, bias, i), kind)


@step
def normalize_row(x, n, centre, weight, bias, kind, y, stream):
    """y = act((x - mean) * rstd * weight + bias), weight and bias of n elements; centre: that of `centring`"""
    hi, lo, rstd = centre
    each(n, stream, _normalize, y, x, hi, lo, rstd, weight, bias, kind)


@primitive
def normalize_rows(x, rows, n, first, period, mean, rstd, weight, bias, kind, y, stream):
    """As `normalize_row`, of rows that take the parameters from row `first` of `period` on, over and over."""
    j = first * n
    for i in range(rows):
        row = offset(x, i * n)
        centre = centring(row, mean[i], rstd[i], 1.0)
        normalize_row(row, n, centre, offset(weight, j), offset(bias, j), kind, offset(y, i * n), stream)
        j = j + n if j + n < period * n else 0


@step
def _add_dots(i, sums, x, dy, hi, lo, rstd, weight, bias, kind, dz, dweight, dbias):
    """The sums of x_hat * wdy and of wdy; dweight += dy * x_hat, dbias += dy."""
    x_hat = fma(x[i] - hi, rstd, lo)
    d = dy[i]
    if kind is not None:
        d = slope(_affine(x_hat, weight, bias, i), d, kind)
        dz[i] = d
    wdy = weight[i] * d
    dweight[i] = fma(x_hat, d, dweight[i])
    if dbias is not None:
        dbias[i] = dbias[i] + d
    return fma(x_hat, wdy, sums[0]), sums[1] + wdy


@step
def tile_dots(dy, x, n, centre, weight, bias, kind, dz, dweight, dbias):
    """Sums of x_hat * wdy and of wdy of a tile of a row; dweight += dy * x_hat, dbias += dy.

    centre: that of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured). With an activation
    dy stands for the gradient before it, which dz receives.
    """
    hi, lo, rstd = centre
    c1, c2 = sums(2, n, _add_dots, x, dy, hi, lo, rstd, weight, bias, kind, dz, dweight, dbias)
    return np.float64(c1), np.float64(c2)


@step
def _gradient(i, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum):
    x_hat = fma(x[i] - hi, rstd, lo)
    d = fma(dy[i], weight[i], -c2)
    dx[i] = plus(fma(x_hat, -c1, d) * rstd, dsum, i)


@step
def row_gradient(dy, x, n, centre, c1, c2, weight, dsum, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum; centre: that of `centring`"""
    hi, lo, rstd = centre
    c1, c2 = as_element(x, c1), as_element(x, c2)
    each(n, stream, _gradient, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum)


@primitive
def rows_gradient(
    dy, x, rows, n, first, period, centred, mean, rstd, weight, bias, kind, dz, dsum, dx, dweight, dbias, stream
):  # fmt: skip
    """As `tile_dots` and `row_gradient`, of rows of one tile, as in `normalize_rows`; dz: room for a row."""
    j, inverse = first * n, 1.0 / n
    for i in range(rows):
        k = i * n
        row, dy_row, w = offset(x, k), offset(dy, k), offset(weight, j)
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        centre = centring(row, mean[i], rstd[i] if n > 1 or not centred else 0.0, 1.0)
        c1, c2 = tile_dots(
            dy_row, row, n, centre, w, offset(bias, j), kind, dz, offset(dweight, j), offset(dbias, j)
        )
        row_gradient(
            first_of(dz, dy_row), row, n, centre, c1 * inverse, c2 * inverse if centred else 0.0, w,
            offset(dsum, k), offset(dx, k), stream,
        )  # fmt: skip
        j = j + n if j + n < period * n else 0


@primitive
def zero(sums, n):
    """sums = 0"""
    if sums is None:
        return
    for i in range(n):
        sums[i] = as_element(sums, 0.0)


@primitive
def flush(sums, partials, n):
    """partials += sums, sums = 0"""
    if sums is None:
        return
    for i in range(n):
        partials[i] += np.float64(sums[i])
        sums[i] = as_element(sums, 0.0)


@primitive
def add(total, partial, n):
    """total += partial"""
    for i in range(n):
        total[i] += partial[i]
