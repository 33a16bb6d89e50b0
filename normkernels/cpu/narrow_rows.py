"""Rows of few elements, side by side: every lane of a vector has a row of its own.

A batch of rows is brought into the order of columns first, in L1. Taken one by one, rows of 3 elements spend
their time on starts of loops and on sums across the lanes.
"""

from .activations import slope
from .fusion import tile_on_stack
from .jit import primitive
from .loops import each, sums
from .pointers import as_element, offset
from .primitives import zero
from .row_primitives import Affine, before, centres_of, finish_statistics, output_of, x_hat_of
from .tracing import step
from .tuning import NARROW
from .vectors import fma


@primitive
def are_narrow(norm):
    """Whether rows are taken side by side; one element is its own mean."""
    return 1 < norm.cols <= NARROW and norm.period == 1


@step
def _take(i, column, x, n):
    column[i] = x.of_rows(i, n)


@primitive
def _columns_of(x, rows, n, columns):
    """columns, (n, rows): x, (rows, n), transposed, in the dtype of the arithmetic"""
    for k in range(n):
        each(rows, None, _take, offset(columns, k * rows), offset(x, k), n)


@step
def _pivots(i, mean, first, second, third, fourth):
    """`pivot_of` of every row."""
    x = first[i]
    mean[i] = x + (second[i] - x) * 0.25 + (third[i] - x) * 0.25 + (fourth[i] - x) * 0.25


@step
def _add_deviations(i, var, statistics, column):
    mean, rstd = statistics
    d = column[i] - mean[i]
    rstd[i] = rstd[i] + d
    var[i] = fma(d, d, var[i])


@step
def _add_squares(i, var, column):
    var[i] = fma(column[i], column[i], var[i])


@primitive
def _add_columns(columns, rows, n, centred, statistics, var):
    """pivot, s and q of every row, in the places of mean, rstd and var, in float64."""
    mean, rstd = statistics
    zero(mean, rows)
    zero(rstd, rows)
    zero(var, rows)
    if centred:
        second, third, fourth = rows, min(2, n - 1) * rows, min(3, n - 1) * rows
        each(
            rows, None, _pivots, mean, columns,
            offset(columns, second), offset(columns, third), offset(columns, fourth),
        )  # fmt: skip
    for k in range(n):
        if centred:
            each(rows, None, _add_deviations, var, statistics, offset(columns, k * rows))
        else:
            each(rows, None, _add_squares, var, offset(columns, k * rows))


def _centre(i, centres, rows):
    """hi, lo and rstd of the rows at i, from what `centres_of` has written."""
    return centres[i], centres[i + rows], centres[i + rows * 2]


def _of_column(affine):
    """What follows x_hat in a column."""
    return Affine(affine.weight.at(0), None if affine.bias is None else affine.bias.at(0), affine.kind)


@step
def _normalize(i, column, y, n, centres, rows, affine):
    x_hat = x_hat_of(column[i], _centre(i, centres, rows))
    y.to_rows(i, n, output_of(x_hat, _of_column(affine)))


@primitive
def normalize_narrow(x, y, rows, norm, eps, statistics, var, affine):
    """Statistics of a few rows, and y = act((x - mean) * rstd * weight + bias)."""
    n, columns, centres = norm.cols, tile_on_stack(affine.weight), tile_on_stack(affine.weight)
    _columns_of(x, rows, n, columns)
    _add_columns(columns, rows, n, norm.centred, statistics, var)
    finish_statistics(x, rows, n, eps, norm.centred, statistics, var)
    centres_of(x, rows, statistics, False, centres)
    for k in range(n):
        each(
            rows,
            None,
            _normalize,
            offset(columns, k * rows),
            offset(y, k),
            n,
            centres,
            rows,
            offset(affine, k),
        )


@step
def _add_dots(i, sums, x, dy, dots, centres, rows, affine):
    """Of every row the sums of x_hat * wdy and of wdy; of the column those of x_hat * dy and of dy."""
    own, d = _of_column(affine), dy[i]
    x_hat = x_hat_of(x[i], _centre(i, centres, rows))
    if affine.kind is not None:
        d = slope(before(x_hat, own), d, affine.kind)
        dy[i] = d
    wdy = own.weight * d
    dots[i] = fma(x_hat, wdy, dots[i])
    dots[i + rows] = dots[i + rows] + wdy
    return fma(x_hat, d, sums[0]), sums[1] + d


@step
def _gradient(i, x, dy, dx, dsum, n, dots, ones, centres, rows, affine):
    centre, (one, one_of_mean) = _centre(i, centres, rows), ones
    d = fma(dy[i], affine.weight.at(0), -(dots[i + rows] * one_of_mean))
    value = fma(x_hat_of(x[i], centre), -(dots[i] * one), d) * centre[2]
    dx.to_rows(i, n, value if dsum is None else value + dsum.of_rows(i, n))


@primitive
def _add_to(total, value):
    if total is None:
        return
    total[0] += value


@primitive
def gradient_of_narrow(arrays, rows, norm, statistics, affine):
    """dx + dsum of a few rows; dweight += dy * x_hat, dbias += dy."""
    n, x, dy = norm.cols, tile_on_stack(affine.weight), tile_on_stack(affine.weight)
    centres, dots = tile_on_stack(affine.weight), tile_on_stack(affine.weight)
    one = 1.0 / n
    ones = as_element(x, one), as_element(x, one if norm.centred else 0.0)
    _columns_of(arrays.x, rows, n, x)
    _columns_of(arrays.dy, rows, n, dy)
    centres_of(arrays.x, rows, statistics, False, centres)
    zero(dots, 2 * rows)
    for k in range(n):
        own, c = offset(affine, k), k * rows
        of_column = sums(2, rows, _add_dots, offset(x, c), offset(dy, c), dots, centres, rows, own)
        _add_to(own.dweight, of_column[0])
        _add_to(own.dbias, of_column[1])
    for k in range(n):
        dx, dsum, c = offset(arrays.dx, k), offset(arrays.dsum, k), k * rows
        each(
            rows, None, _gradient, offset(x, c), offset(dy, c), dx, dsum, n, dots, ones, centres, rows,
            offset(affine, k),
        )  # fmt: skip
