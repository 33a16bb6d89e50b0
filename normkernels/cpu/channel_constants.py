"""Statistics and constants of channels from their mean and m2, and those of their gradients from their dots.

All is done for some neighbouring channels at once, in loops of few arrays, which LLVM makes vectors of. Where
nothing else is said, pointers lie at the first of these.
"""

from typing import NamedTuple

import numpy as np

from .channel_primitives import affine_rows, dot_constants, gradient_constants, output_constants
from .extremes import group_statistics, usual
from .fusion import copy_run
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
    """Parameters and statistics of channels, and what moves the running ones, which may be None."""

    eps: float
    factor: float
    r_max: float
    d_max: float
    renormalized: bool
    weight: object
    bias: object
    mean: object
    rstd: object
    r: object
    d: object
    running_mean: object
    running_var: object


@primitive
def state_of(weight, bias, settings, statistics, running_mean, running_var):
    """settings: eps, the weight of this batch in the running statistics, r_max and d_max.

    statistics: rows of mean and rstd, and in batch renormalization of r and d.
    """
    mean, channels = pointer(statistics), statistics.shape[1]
    return State(
        settings[0], settings[1], settings[2], settings[3], len(statistics) > 2, pointer(weight),
        pointer(bias), mean, offset(mean, channels), offset(mean, 2 * channels), offset(mean, 3 * channels),
        pointer(running_mean), pointer(running_var),
    )  # fmt: skip


class Given(NamedTuple):
    """Parameters and statistics of channels, with which a backward begins, and the sums that it gives.

    dot, s: room for the sums in float64.
    """

    weight: object
    bias: object
    mean: object
    rstd: object
    training: bool
    dweight: object
    dbias: object
    dot: object
    s: object


@primitive
def given_of(weight, bias, mean, rstd, training, dweight, dbias):
    """The same with room for the sums."""
    channels = len(weight)
    return Given(weight, bias, mean, rstd, training, dweight, dbias, np.empty(channels), np.empty(channels))


@step
def _statistics(i, sums, m2, var, rstd, count, eps):
    v = m2[i] / count
    r = reciprocal_sd(v, eps)
    var[i], rstd[i] = v, r
    return (sums[0] + where(usual(r), m2.rounded(0.0), 1.0),)


@primitive
def finish_statistics(x, view, start, n, eps, centred, statistics):
    """var and rstd of the n channels from `start`; statistics: mean, var, rstd and m2.

    x: at the first channel of all.
    """
    mean, var, rstd, m2 = statistics
    count = view.size // view.channels
    if sums(1, n, _statistics, m2, var, rstd, count, eps)[0] > 0.0:
        for c in range(n):
            mean[c], var[c], rstd[c] = group_statistics(
                offset(x, (start + c) * view.inner), count // view.inner, view.channels * view.inner,
                view.inner, eps, centred, mean[c], var[c],
            )  # fmt: skip


@step
def _low(i, low, rstd):
    low[i] = where(usual(rstd[i]), low[i], 0.0)


@primitive
def finish_low(n, rstd, low):
    """What n means lost by rounding; 0 where `finish_statistics` took them again, or they are not finite."""
    each(n, None, _low, low, rstd)


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
def with_running(running_mean, running_var, n, count, state, statistics, weight, bias):
    """Move the running statistics of n channels, where there are any, which may be None.

    Before, in batch renormalization, r and d enter weight and bias, which are in float64.
    """
    if running_mean is None:
        return
    mean, var, rstd, m2 = statistics
    if state.renormalized:
        for c in range(n):
            old_mean, old_var = np.float64(running_mean[c]), np.float64(running_var[c])
            state.r[c], state.d[c] = _correction(mean[c], rstd[c], old_mean, old_var, state)
            weight[c], bias[c] = weight[c] * state.r[c], bias[c] + weight[c] * state.d[c]
    if state.factor != 0.0:  # the variance may be inf
        each(n, None, _move, running_mean, mean, state.factor)
        each(n, None, _move_variance, running_var, var, m2, np.float64(count), state.factor)


@step
def _take(i, mean, state):
    mean[i], state.rstd[i] = state.running_mean[i], reciprocal_sd(wide(state.running_var[i]), state.eps)


@primitive
def take_statistics(running_mean, n, state):
    """mean and rstd of n channels from running statistics, where these are not None."""
    if running_mean is not None:
        each(n, None, _take, state.mean, state)


@step
def _output_constants(i, hi, pitch, mean, rstd, weight, bias):
    hi[i], hi[i + pitch], hi[i + pitch * 2] = output_constants(hi, mean[i], rstd[i], weight[i], bias[i])


@primitive
def write_output_constants(n, given, constants):
    """hi, scale and shift of the output of n channels; given: a State or a Given."""
    mean, rstd, weight, bias = given.mean, given.rstd, given.weight, given.bias
    each(n, None, _output_constants, constants.first, constants.pitch, mean, rstd, weight, bias)


@primitive
def finish_output(x, view, start, n, state, m2, constants):
    """Statistics, and constants of the output, of the n channels from `start`, from their mean and m2.

    m2 has room for three more rows of them; x: at the first channel of all.
    """
    var, weight, bias = offset(m2, n), offset(m2, 2 * n), offset(m2, 3 * n)
    mean, rstd, count = state.mean, state.rstd, view.size // view.channels
    statistics = mean, var, rstd, m2
    finish_statistics(x, view, start, n, state.eps, True, statistics)
    copy_run(state.weight, n, weight, None)
    copy_run(state.bias, n, bias, None)
    with_running(state.running_mean, state.running_var, n, count, state, statistics, weight, bias)
    each(n, None, _output_constants, constants.first, constants.pitch, mean, rstd, weight, bias)


@step
def _dot_constants(i, hi, pitch, mean, rstd):
    hi[i], hi[i + pitch] = dot_constants(hi, mean[i], rstd[i])


@primitive
def prepare_dots(n, given, constants, kind):
    """hi and r, for the dots, of n channels; with an activation the constants of their output."""
    each(n, None, _dot_constants, constants.first, constants.pitch, given.mean, given.rstd)
    if kind is not None:
        write_output_constants(n, given, affine_rows(constants, kind))


@step
def _gradient_constants(i, hi, pitch, given, part):
    mean, rstd, s = given.mean[i], given.rstd[i], given.s[i]
    dweight = given.dot[i] + (hi[i] - mean) * hi[i + pitch] * s
    h, scale, shift, k = gradient_constants(hi, mean, rstd, given.weight[i], dweight * part, s * part)
    given.dweight[i], given.dbias[i] = dweight, s
    hi[i], hi[i + pitch] = where(given.training, h, 0.0), scale
    hi[i + pitch * 2], hi[i + pitch * 3] = where(given.training, shift, 0.0), k


@primitive
def finish_dots(n, view, given, constants):
    """dweight and dbias of n channels; hi, scale, c2 and k of their gradient, where hi and r were.

    In evaluation dx = dy * scale: then hi and c2 are 0.
    """
    part = 1.0 / (view.size // view.channels)
    each(n, None, _gradient_constants, constants.first, constants.pitch, given, part)
