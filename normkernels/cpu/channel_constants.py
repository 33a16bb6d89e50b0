"""Statistics and constants of channels from their mean and m2, and those of their gradients from their dots.

All is done for some neighbouring channels at once, in loops of few arrays, which LLVM makes vectors of. Where
nothing else is said, pointers lie at the first of these, and constants are rows, `pitch` apart.
"""

from typing import NamedTuple

import numpy as np

from .channel_primitives import dot_constants, gradient_constants, output_constants
from .extremes import group_statistics, usual
from .jit import primitive
from .loops import each, sums
from .pointers import offset, pointer
from .primitives import moved, reciprocal_sd
from .tracing import step
from .vectors import where, wide


class View(NamedTuple):
    """An array of `size` elements as rows of `width` = fold * channels * inner columns."""

    size: int
    width: int
    fold: int
    channels: int
    inner: int


@primitive
def view_of(size, fold, channels, inner):
    """The array as rows of columns."""
    return View(size, fold * channels * inner, fold, channels, inner)


class State(NamedTuple):
    """Where statistics of channels go, and what moves the running ones; pointers at the first of all."""

    eps: float
    factor: float
    r_max: float
    d_max: float
    renormalized: bool
    mean: object
    rstd: object
    r: object
    d: object


@primitive
def state_of(settings, statistics):
    """settings: eps, the weight of this batch in the running statistics, r_max and d_max.

    statistics: rows of mean and rstd, and in batch renormalization of r and d.
    """
    mean, channels = pointer(statistics), statistics.shape[1]
    return State(
        settings[0], settings[1], settings[2], settings[3], len(statistics) > 2, mean, offset(mean, channels),
        offset(mean, 2 * channels), offset(mean, 3 * channels),
    )  # fmt: skip


@step
def _statistics(i, sums, var, rstd, m2, count, eps):
    v = m2[i] / count
    r = reciprocal_sd(v, eps)
    var[i], rstd[i] = v, r
    return (sums[0] + where(usual(r), var.rounded(0.0), 1.0),)


@primitive
def finish_statistics(x, view, start, n, eps, centred, mean, var, rstd, m2):
    """var and rstd of the n channels from `start`; x: at the first of all."""
    count = view.size // view.channels
    if sums(1, n, _statistics, var, rstd, m2, count, eps)[0] > 0.0:
        for c in range(n):
            mean[c], var[c], rstd[c] = group_statistics(
                offset(x, (start + c) * view.inner), count // view.inner, view.channels * view.inner,
                view.inner, eps, centred, mean[c], var[c],
            )  # fmt: skip


@primitive
def _correction(mean, rstd, running_mean, running_var, state):
    """r and d of batch renormalization, (1, 0) where they must be: y = (x_hat * r + d) * weight + bias"""
    if state.r_max == 1.0 and state.d_max == 0.0:
        return 1.0, 0.0
    running_rstd = reciprocal_sd(running_var, state.eps)
    r = running_rstd / rstd if rstd != 0.0 else 1.0
    d = (mean - running_mean) * running_rstd
    return min(max(r, 1.0 / state.r_max), state.r_max), min(max(d, -state.d_max), state.d_max)


@step
def _move(i, running, new, factor):
    running[i] = moved(running[i], new[i], factor)


@step
def _move_variance(i, running, var, m2, count, factor):
    """By the unbiased variance: from var where that is not m2 / count, whose squares were out of range."""
    unbiased = where(var[i].equals(m2[i] / count), m2[i] / (count - 1), var[i] * (count / (count - 1)))
    running[i] = moved(running[i], unbiased, factor)


@primitive
def with_running(start, n, count, state, running_mean, running_var, var, m2, weight, bias):
    """Move the running statistics of the n channels from `start`, where there are any, which may be None.

    Before, in batch renormalization, r and d enter weight and bias, which are in float64.
    """
    if running_mean is None:
        return
    old_mean, old_var = offset(running_mean, start), offset(running_var, start)
    mean, rstd, r, d = (
        offset(state.mean, start), offset(state.rstd, start), offset(state.r, start), offset(state.d, start)
    )  # fmt: skip
    if state.renormalized:
        for c in range(n):
            r[c], d[c] = _correction(mean[c], rstd[c], np.float64(old_mean[c]), np.float64(old_var[c]), state)
            weight[c], bias[c] = weight[c] * r[c], bias[c] + weight[c] * d[c]
    if state.factor != 0.0:  # the variance may be inf
        each(n, None, _move, old_mean, mean, state.factor)
        each(n, None, _move_variance, old_var, var, m2, np.float64(count), state.factor)


@step
def _take(i, mean, rstd, running_mean, running_var, eps):
    mean[i], rstd[i] = running_mean[i], reciprocal_sd(wide(running_var[i]), eps)


@primitive
def take_statistics(start, n, running_mean, running_var, eps, mean, rstd):
    """mean and rstd of the n channels from `start` from running statistics, where these are not None."""
    if running_mean is not None:
        each(n, None, _take, mean, rstd, offset(running_mean, start), offset(running_var, start), eps)


@step
def _output_constants(i, hi, scale, shift, x, mean, rstd, weight, bias):
    hi[i], scale[i], shift[i] = output_constants(x, mean[i], rstd[i], weight[i], bias[i])


@primitive
def rows_of_output_constants(x, n, mean, rstd, weight, bias, constants, pitch):
    """hi, scale and shift of the outputs, as `channel_primitives.output_constants` has them."""
    scale, shift = offset(constants, pitch), offset(constants, 2 * pitch)
    each(n, None, _output_constants, constants, scale, shift, x, mean, rstd, weight, bias)


@step
def _dot_constants(i, hi, r, x, mean, rstd):
    hi[i], r[i] = dot_constants(x, mean[i], rstd[i])


@primitive
def rows_of_dot_constants(x, n, mean, rstd, constants, pitch):
    """hi and r for the dots, as `channel_primitives.dot_constants` has them."""
    each(n, None, _dot_constants, constants, offset(constants, pitch), x, mean, rstd)


@step
def _gradient_constants(i, hi, scale, c2, k, x, mean, rstd, weight, dot, s, count, training):
    dweight, part = dot[i] + (hi[i] - mean[i]) * scale[i] * s[i], 1.0 / count  # where scale is to be, r was
    h, scale[i], shift, k[i] = gradient_constants(x, mean[i], rstd[i], weight[i], dweight * part, s[i] * part)
    dot[i], hi[i], c2[i] = dweight, where(training, h, 0.0), where(training, shift, 0.0)


@primitive
def rows_of_gradient_constants(x, n, count, mean, rstd, weight, training, dot, s, constants, pitch):
    """hi, scale, c2 and k of the gradients, in rows that hold hi and r; dot about hi becomes dweight.

    In evaluation dx = dy * scale: then hi and c2 are 0.
    """
    each(
        n, None, _gradient_constants, constants, offset(constants, pitch), offset(constants, 2 * pitch),
        offset(constants, 3 * pitch), x, mean, rstd, weight, dot, s, np.float64(count), training,
    )  # fmt: skip
