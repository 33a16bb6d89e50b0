"""Kernels over an array seen as (rows, channels of a group, inner): statistics per row, parameters per run.

Row i is group i % groups of a sample; its channels are runs of `inner` elements, each with a weight
and a bias of its own. Group norm; with one channel per group instance norm; not centred and with a
divisor of 1 weight norm.

An activation `kind` that is not None follows the norm; its backward keeps a row of dz in `dz`.

Kernels take tuples: arrays those of `Forward` or `Row`, affine that of `Affine`, norm that of `Groups`,
statistics those of `Statistics`.
"""

from typing import NamedTuple

import numpy as np

from .channel_primitives import dot_constants, normalize_run, output_constants, run_dots, run_gradient
from .fusion import first_of, where_given
from .jit import kernel, loop, primitive
from .parallel import share
from .pointers import as_element, fence, offset
from .primitives import centring
from .row_primitives import (
    Affine,
    AffineSums,
    Forward,
    Row,
    Statistics,
    add_up,
    row_at,
    row_statistics,
)
from .tuning import TILE


class Groups(NamedTuple):
    """What is known of groups: rows of all samples, groups of one, and their channels, which are runs.

    pieces: of work, among which the rows are shared out; divisor: of the sums of a row, its elements for a
    mean, 1 for a sum.
    """

    rows: int
    groups: int
    channels: int
    inner: int
    pieces: int
    divisor: int
    centred: bool


@primitive
def _bias_of(bias, c):
    """That of channel c; 0 where there is none, as of weight norm."""
    return 0.0 if bias is None else bias[c]


@loop
def forward(b, arrays, affine, norm, eps, kept, statistics):
    """y = act((x - mean) * rstd * weight + bias), var = m2 / divisor.

    statistics: the first `kept` of mean, rstd and var, rows of them, in float64.
    """
    arrays, affine = Forward(*arrays), Affine(*affine)
    rows, groups, channels, inner, pieces, divisor, centred = Groups(*norm)
    for i in range(b * rows // pieces, (b + 1) * rows // pieces):
        row = offset(arrays, i * channels * inner)
        mean, var, rstd = row_statistics(row.x, channels * inner, divisor, eps, centred)
        if kept >= 2:
            statistics[i], statistics[rows + i] = mean, rstd
        if kept == 3:
            statistics[2 * rows + i] = var
        for j in range(channels):
            c, run = i % groups * channels + j, offset(row, j * inner)
            bias = _bias_of(affine.bias, c)
            a = output_constants(row.x, mean, rstd, affine.weight[c], bias)
            normalize_run(run.x, inner, a, None, affine.kind, run.y, run.stream)
    if arrays.stream:
        fence()


@primitive
def _run_dots(run, inner, hi, scale, constants, kind):
    """The sums of dy * (x - hi) * scale and of dy over a run; constants: those of its output, or None."""
    dot = s = 0.0
    for t in range(0, inner, TILE):
        tile = offset(run, t)
        n = min(TILE, inner - t)
        dots = run_dots(tile.dy, tile.x, n, (hi, scale), constants, None, kind, tile.dz)
        dot += dots[0]
        s += dots[1]
    return dot, s


@primitive
def _backward_piece(b, arrays, affine, norm, statistics, sums):
    """The sums of a run go to `sums`, and weighted by weight they give c1 and c2: one pass for all four."""
    rows, groups, channels, inner, pieces, divisor, centred = norm
    cols, x, parameters = channels * inner, arrays.x, groups * channels
    for i in range(b * rows // pieces, (b + 1) * rows // pieces):
        row, first = row_at(arrays, i * cols, offset(arrays.dz, b * cols)), i % groups * channels
        dots = offset(sums, i // groups * parameters * (2 if centred else 1) + first)
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        mean, rstd = statistics.mean[i], statistics.rstd[i] if cols > 1 or not centred else 0.0
        hi, scale = dot_constants(x, mean, rstd)
        c1 = c2 = 0.0
        for j in range(channels):
            w = affine.weight[first + j]
            constants = output_constants(x, mean, rstd, w, _bias_of(affine.bias, first + j))
            run = offset(row, j * inner)
            dot, s = _run_dots(run, inner, hi, scale, where_given(constants, affine.kind), affine.kind)
            dot += (hi - mean) * scale * s
            dots[j] = dot
            if centred:
                dots[parameters + j] = s
            c1 += w * dot
            c2 += w * s
        _, lo, k1 = centring(x, mean, rstd, -(c1 / divisor))
        a = hi, scale, as_element(x, (c2 / divisor if centred else 0.0) - lo), k1
        for j in range(channels):
            run = offset(row, j * inner)
            run_gradient(
                first_of(run.dz, run.dy), run.x, inner, a, affine.weight[first + j], run.dx, run.stream
            )
    if arrays.stream:
        fence()


@kernel
def backward(team, arrays, affine, norm, statistics):
    """dx, and dweight and dbias, of every channel the sums of dy * x_hat and of dy; weight norm has no dbias.

    dz: room for one row for each piece.
    """
    affine, norm = AffineSums(*affine), Groups(*norm)
    samples, numbers = norm.rows // norm.groups, 1 if affine.dbias is None else 2
    sums = np.empty((samples, numbers, norm.groups * norm.channels))
    share(team, norm.pieces, _backward_piece, Row(*arrays), affine, norm, Statistics(*statistics), sums)
    add_up(sums, affine.dweight, affine.dbias)


@kernel
def move_running(team, statistics, shape, settings, running_mean, running_var):
    """Move running statistics of instances towards the means over samples, as far as `factor` says.

    statistics: rows of mean, rstd and var; shape: (samples, groups); settings: (what takes the population
    variance to the unbiased one, factor).
    """
    (samples, groups), (unbiased, factor) = shape, settings
    for c in range(groups):
        mean = var = 0.0
        for i in range(c, samples * groups, groups):
            mean += statistics[0, i]
            var += statistics[2, i] * unbiased
        running_mean[c] = (1 - factor) * running_mean[c] + factor * (mean / samples)
        running_var[c] = (1 - factor) * running_var[c] + factor * (var / samples)


@kernel
def add_runs(team, inner, each, totals):
    """Totals of channels in float64, of runs of `inner` elements; each, totals: dweight and dbias."""
    for k in range(2):
        for c in range(len(totals[k])):
            total = 0.0
            for j in range(c * inner, (c + 1) * inner):
                total += each[k][j]
            totals[k][c] = total
