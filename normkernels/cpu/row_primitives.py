"""Primitives over rows: every element of a row has its own weight and bias.

What is fused is None where it is absent: the activation `kind` that follows, for whose backward there is
bias; and `dsum`, a gradient that is added to dx.
"""

import math

import numpy as np

from .activations import slope
from .extremes import group_statistics, usual
from .fusion import activated, plus
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
    """y = act((x - mean) * rstd * weight + bias)"""
    x_hat = fma(x[i] - hi, rstd, lo)
    y[i] = activated(_affine(x_hat, weight, bias, i), kind)


@primitive
def normalize_row(x, n, mean, rstd, weight, bias, kind, y, stream):
    """y = act((x - mean) * rstd * weight + bias), weight and bias of n elements"""
    hi, lo, scale = centring(x, mean, rstd, 1.0)
    each(n, stream, _normalize, y, x, hi, lo, scale, weight, bias, kind)


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


@primitive
def row_dots(dy, x, n, centre, weight, bias, kind, dz, dweight, dbias):
    """Sums of x_hat * wdy and of wdy of a row; dweight += dy * x_hat, dbias += dy.

    centre: hi, lo, rstd of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured). With an activation
    dy stands for the gradient before it, which dz receives.
    """
    hi, lo, rstd = centre
    c1 = c2 = 0.0
    for t in range(0, n, TILE):
        tile = sums(
            2, min(TILE, n - t), _add_dots, offset(x, t), offset(dy, t), hi, lo, rstd, offset(weight, t),
            offset(bias, t), kind, offset(dz, t), offset(dweight, t), offset(dbias, t),
        )  # fmt: skip
        c1 += np.float64(tile[0])
        c2 += np.float64(tile[1])
    return c1, c2


@step
def _gradient(i, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum"""
    x_hat = fma(x[i] - hi, rstd, lo)
    d = fma(dy[i], weight[i], -c2)
    dx[i] = plus(fma(x_hat, -c1, d) * rstd, dsum, i)


@primitive
def row_gradient(dy, x, n, centre, c1, c2, weight, dsum, dx, stream):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum; centre: hi, lo, rstd of `centring`"""
    hi, lo, rstd = centre
    c1, c2 = as_element(x, c1), as_element(x, c2)
    each(n, stream, _gradient, dx, dy, x, hi, lo, rstd, c1, c2, weight, dsum)


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
