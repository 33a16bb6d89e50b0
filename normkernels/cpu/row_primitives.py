"""Primitives over rows: every element of a row has its own weight and bias.

What is fused is None where it is absent: the activation `kind` that follows, for whose backward there is
bias; and `dsum`, a gradient that is added to dx.
"""

import math
from typing import NamedTuple

import numpy as np

from .activations import slope
from .extremes import Group, statistics_of, usual
from .fusion import activated, copy_run, plus, tile_on_stack
from .jit import inlined, primitive
from .loops import each, sums
from .pointers import as_element, offset, pointer
from .primitives import (
    add,
    are_good,
    centring,
    pivot_of,
    run_squares,
    run_sums,
    tile_moments,
    tile_squares,
    with_tile,
)
from .tracing import formula, step
from .tuning import PAIRED, TILE
from .vectors import fma, sqrt, where


class Norm(NamedTuple):
    """What is known of rows: how many, their elements, and which parameters each takes.

    part: for how many elements there are parameters, fewer than cols where one and zero serve for all;
    period: after how many rows these begin again; block: rows of a piece of work.
    """

    rows: int
    cols: int
    part: int
    period: int
    block: int
    centred: bool


class Forward(NamedTuple):
    """What a forward reads and writes at the same index, and whether results go past the caches.

    residual is added to x before the norm, and total receives the sum. h is room for the sum of what is taken
    together, at an index of its own. All three may be None.
    """

    x: object
    residual: object
    h: object
    total: object
    y: object
    stream: object


class Row(NamedTuple):
    """What a backward reads and writes at the same index, and whether dx goes past the caches.

    dz receives the gradient before the activation, and dsum is added to dx; either may be None.
    """

    dy: object
    x: object
    dz: object
    dsum: object
    dx: object
    stream: object


class Affine(NamedTuple):
    """What follows x_hat: act(x_hat * weight + bias). bias and kind, the activation's number, may be None."""

    weight: object
    bias: object
    kind: object


class AffineSums(NamedTuple):
    """What follows x_hat, and at the same index sums of gradients of its parameters; dbias may be None."""

    weight: object
    bias: object
    kind: object
    dweight: object
    dbias: object


class Statistics(NamedTuple):
    """Of rows, in float64."""

    mean: object
    rstd: object


@primitive
def tile_of_row(x, n, centred):
    """count, pivot, mean - pivot and m2 of a tile of a row; not centred about 0."""
    if centred:
        return tile_moments(x, 1, 0, n)
    return np.float64(n), 0.0, 0.0, tile_squares(x, n)


@primitive
def row_statistics(x, n, divisor, eps, centred):
    """mean, var = m2 / divisor and rstd of a row, whatever its length and range."""
    moments = tile_of_row(x, min(n, TILE), centred)
    for t in range(TILE, n, TILE):
        moments = with_tile(moments, tile_of_row(offset(x, t), min(TILE, n - t), centred))
    _, pivot, mean, m2 = moments
    return statistics_of(Group(x, None, 1, 0, n), divisor, eps, centred, pivot + mean, m2 / divisor)


@step
def _statistics_of_rows(i, sums, var, statistics, n, eps):
    """mean, rstd and var of rows from pivot, s and q, which stand there; rstd is NaN where these are poor."""
    mean, rstd = statistics
    s, q = rstd[i], var[i]
    deviation, good = s * (1.0 / n), are_good(s, q, n)
    mean[i], v = mean[i] + deviation, (q - s * deviation) / n
    var[i] = v
    rstd[i] = where(good, 1.0 / sqrt(v + eps), math.nan)
    return (sums[0] + where(good, var.rounded(0.0), 1.0),)


@primitive
def batch_statistics(x, rows, n, eps, centred, statistics, var):
    """mean, rstd and var of a few rows, in float64.

    First the sums of each row, then the divisions and roots of all of them, as vectors.
    """
    mean, rstd = statistics
    for i in range(rows if n <= TILE else 0):
        row = offset(x, i * n)
        if centred:
            pivot = pivot_of(row, n)
            s, q = run_sums(row, n, pivot)
            mean[i], rstd[i], var[i] = pivot, s, q
        else:
            mean[i], rstd[i], var[i] = 0.0, 0.0, run_squares(row, n)
    finish_statistics(x, rows, n, eps, centred, statistics, var)


@primitive
def finish_statistics(x, rows, n, eps, centred, statistics, var):
    """mean, var and rstd of a few rows from pivot, q and s, which stand there, where rows are of one tile."""
    mean, rstd = statistics
    if n > TILE or sums(1, rows, _statistics_of_rows, var, statistics, n, eps)[0] > 0.0:
        for i in range(rows):
            if n > TILE or not usual(rstd[i]):
                mean[i], var[i], rstd[i] = row_statistics(offset(x, i * n), n, n, eps, centred)


def x_hat_of(x, centre):
    """(x - mean) * rstd; centre: that of `centring`"""
    hi, lo, rstd = centre
    return fma(x - hi, rstd, lo)


def at(affine, i):
    """What follows element i."""
    return Affine(affine.weight[i], None if affine.bias is None else affine.bias[i], affine.kind)


def before(x_hat, affine):
    """x_hat * weight + bias"""
    return x_hat * affine.weight if affine.bias is None else fma(x_hat, affine.weight, affine.bias)


def output_of(x_hat, affine):
    """act(x_hat * weight + bias)"""
    return activated(before(x_hat, affine), affine.kind)


def gradient_of(i, row, centre, affine):
    """x_hat and dy of element i; with an activation the gradient before it, which dz[i] receives."""
    x_hat, d = x_hat_of(row.x[i], centre), row.dy[i]
    if affine.kind is not None:
        d = slope(before(x_hat, affine), d, affine.kind)
        row.dz[i] = d
    return x_hat, d


@step
def _normalize(i, y, x, centre, affine, ahead):
    x.prefetch(i + ahead, 2)
    y[i] = output_of(x_hat_of(x[i], centre), at(affine, i))


@inlined
def normalize_row(x, n, centre, affine, y, stream, ahead):
    """y = act((x - mean) * rstd * weight + bias) of a row of n elements; centre: that of `centring`

    Meanwhile what lies `ahead` of x is fetched, which is read next: 2 to 15 % faster from memory (256 to
    16384 columns; Sapphire Rapids), even where it is in the cache.
    """
    each(n, stream, _normalize, y, x, centre, affine, ahead)


@step
def _centring(i, hi, pitch, x, statistics, single):
    rstd = where(single, 0.0, statistics.rstd[i])
    hi[i], hi[i + pitch], hi[i + pitch * 2] = centring(x, statistics.mean[i], rstd, 1.0)


@primitive
def centres_of(x, rows, statistics, single, centres):
    """hi, lo and rstd of `centring` of a few rows, formed as vectors; centres: room for 3 numbers of each.

    single: rows of one element, which do not depend on it: their rstd is taken to be 0.

    One after the other, 8 columns take 1.1 times as long forward and 1.4 times backward (Sapphire Rapids).
    """
    each(rows, None, _centring, centres, rows, x, statistics, single)


@formula
def centre_at(centres, rows, i):
    """hi, lo and rstd of row i, from what `centres_of` has written."""
    return centres.at(i), centres.at(i + rows), centres.at(i + rows * 2)


@primitive
def normalize_rows(x, to, rows, n, first, period, statistics, affine):
    """As `normalize_row`, of rows that take the parameters from row `first` of `period` on, over and over."""
    j, centres = first * n, tile_on_stack(affine.weight)
    centres_of(x, rows, statistics, False, centres)
    for i in range(rows):
        k, centre = i * n, centre_at(centres, rows, i)
        normalize_row(offset(x, k), n, centre, offset(affine, j), offset(to.y, k), to.stream, rows * n)
        j = j + n if j + n < period * n else 0


@inlined
def row_at(arrays, k, dz):
    """The row that begins at element k, with a dz of its own."""
    dy, x, _, dsum, dx, stream = arrays
    return Row(offset(dy, k), offset(x, k), dz, offset(dsum, k), offset(dx, k), stream)


@step
def _add_dots(i, totals, x, rows, affine):
    """Of each row and its centre the sums of x_hat * wdy and of wdy; dweight += x_hat * dy, dbias += dy."""
    own, dweight, new = at(affine, i), affine.dweight[i], ()
    dbias = None if affine.dbias is None else affine.dbias[i]
    for k, (row, centre) in enumerate(rows):
        x_hat, d = gradient_of(i, row, centre, own)
        wdy = own.weight * d
        dweight = fma(x_hat, d, dweight)
        dbias = None if dbias is None else dbias + d
        new = *new, fma(x_hat, wdy, totals[2 * k]), totals[2 * k + 1] + wdy
    affine.dweight[i] = dweight
    if dbias is not None:
        affine.dbias[i] = dbias
    return new


@inlined
def tile_dots(row, n, centre, affine):
    """Sums of x_hat * wdy and of wdy of a tile of a row; dweight += dy * x_hat, dbias += dy.

    centre: that of `centring`. dweight and dbias are summed here, because the pass that writes
    dx with streaming stores loses a fifth of its speed to other stores (measured). With an activation
    dy stands for the gradient before it, which dz receives.
    """
    c1, c2 = sums(2, n, _add_dots, row.x, ((row, centre),), affine)
    return np.float64(c1), np.float64(c2)


@step
def _gradient(i, dx, row, centre, means, affine, n):
    dy, (c1, c2) = row.dy if row.dz is None else row.dz, means
    if i.streaming:  # the next row; arrays that are in the cache take 5 to 9 % longer with it
        dy.prefetch(i + n, 2)
        row.x.prefetch(i + n, 2)
    d = fma(dy[i], affine.weight[i], -c2)
    dx[i] = plus(fma(x_hat_of(row.x[i], centre), -c1, d) * centre[2], row.dsum, i)


@inlined
def row_gradient(row, n, centre, c1, c2, affine):
    """dx = (wdy - x_hat * c1 - c2) * rstd + dsum; centre: that of `centring`"""
    means = as_element(row.x, c1), as_element(row.x, c2)
    each(n, row.stream, _gradient, row.dx, row, centre, means, affine, n)


@primitive
def gradient_of_row(row, norm, centre, affine):
    """As `tile_dots` and `row_gradient`, of a row of any number of tiles."""
    n, whole, c1, c2 = norm.cols, norm.part == norm.cols, 0.0, 0.0
    for c in range(0, n, TILE):
        dots = tile_dots(offset(row, c), min(TILE, n - c), centre, offset(affine, c * whole))
        c1, c2 = c1 + dots[0], c2 + dots[1]
    c1, c2 = c1 * (1.0 / n), c2 * (1.0 / n) if norm.centred else 0.0
    for c in range(0, n, norm.part):
        row_gradient(offset(row, c), min(norm.part, n - c), centre, c1, c2, affine)


@primitive
def rows_gradient(arrays, rows, first, norm, statistics, affine):
    """As `gradient_of_row`, of rows that take parameters as in `normalize_rows`; dz: room for one or two."""
    n, i, j, one = norm.cols, 0, first * norm.cols, 1.0 / norm.cols
    one_of_mean, centres = one if norm.centred else 0.0, tile_on_stack(affine.weight)
    # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
    centres_of(arrays.x, rows, statistics, n == 1 and norm.centred, centres)
    while i < rows:
        row, centre = row_at(arrays, i * n, arrays.dz), centre_at(centres, rows, i)
        if n <= PAIRED and norm.period == 1 and i + 1 < rows:
            other = row_at(arrays, (i + 1) * n, offset(arrays.dz, n))
            centre_of_other = centre_at(centres, rows, i + 1)
            dots = sums(4, n, _add_dots, row.x, ((row, centre), (other, centre_of_other)), affine)
            c1, c2 = np.float64(dots[0]) * one, np.float64(dots[1]) * one_of_mean
            row_gradient(row, n, centre, c1, c2, affine)
            c1, c2 = np.float64(dots[2]) * one, np.float64(dots[3]) * one_of_mean
            row_gradient(other, n, centre_of_other, c1, c2, affine)
            i += 2
        else:
            own = offset(affine, j)
            if n <= TILE:  # without the loops over tiles: 1.15 times as fast (64 elements)
                c1, c2 = tile_dots(row, n, centre, own)
                row_gradient(row, n, centre, c1 * one, c2 * one_of_mean, own)
            else:
                gradient_of_row(row, norm, centre, own)
            i += 1
        j = j + n if j + n < norm.period * n else 0


@primitive
def add_up(partials, dweight, dbias):
    """dweight and dbias, which may be None, from partials, (blocks, 1 or 2, n): the first receive the sum."""
    total, n, size = pointer(partials), partials.shape[2], partials.shape[1] * partials.shape[2]
    for b in range(1, len(partials)):
        add(total, offset(total, b * size), size)
    copy_run(total, n, pointer(dweight), None)
    if dbias is not None:
        copy_run(offset(total, n), n, pointer(dbias), None)
