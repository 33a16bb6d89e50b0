"""Statistics and constants of channels from their mean and m2, and those of their gradients from their dots.

All is done for some neighbouring channels at once, in loops of few arrays, which LLVM makes vectors of. Where
nothing else is said, pointers lie at the first of these, and constants are rows, `pitch` apart.
"""

from typing import NamedTuple

import numpy as np

from .extremes import group_statistics, usual
from .jit import primitive
from .pointers import as_element, offset, pointer
from .primitives import as_scale, centre, moved, reciprocal_sd, shift_of


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


@primitive
def finish_statistics(x, view, start, n, eps, mean, var, rstd, m2):
    """var and rstd of the n channels from `start`; x: at the first of all."""
    count, unusual = view.size // view.channels, 0
    for c in range(n):
        var[c] = m2[c] / count
        rstd[c] = reciprocal_sd(var[c], eps)
        unusual += not usual(rstd[c])
    if unusual > 0:
        for c in range(n):
            mean[c], var[c], rstd[c] = group_statistics(
                offset(x, (start + c) * view.inner), count // view.inner, view.channels * view.inner,
                view.inner, eps, True, mean[c], var[c],
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


@primitive
def _unbiased(m2, var, count):
    """m2 / (count - 1); from var where that was not m2 / count, whose squares were out of range."""
    return m2 / (count - 1) if var == m2 / count else var * (count / (count - 1))


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
        for c in range(n):
            old_mean[c] = moved(old_mean[c], mean[c], state.factor)
        for c in range(n):
            old_var[c] = moved(old_var[c], _unbiased(m2[c], var[c], count), state.factor)


@primitive
def take_statistics(start, n, running_mean, running_var, eps, mean, rstd):
    """mean and rstd of the n channels from `start` from running statistics, where these are not None."""
    if running_mean is not None:
        for c in range(n):
            mean[c] = running_mean[start + c]
        for c in range(n):
            rstd[c] = reciprocal_sd(np.float64(running_var[start + c]), eps)


@primitive
def rows_of_output_constants(x, n, mean, rstd, weight, bias, constants, pitch):
    """hi, scale and shift of the outputs, as `channel_primitives.output_constants` has them."""
    hi, scale, shift = constants, offset(constants, pitch), offset(constants, 2 * pitch)
    for c in range(n):
        hi[c] = centre(x, mean[c], rstd[c])
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        shift[c] = as_element(x, bias[c] + shift_of(x, hi[c], mean[c], scale[c]))


@primitive
def rows_of_dot_constants(x, n, mean, rstd, constants, pitch):
    """hi and r for the dots, as `channel_primitives.dot_constants` has them."""
    hi, r = constants, offset(constants, pitch)
    for c in range(n):
        hi[c] = centre(x, mean[c], rstd[c])
    for c in range(n):
        r[c] = as_scale(x, rstd[c])


@primitive
def rows_of_gradient_constants(x, n, count, mean, rstd, weight, training, dot, s, constants, pitch):
    """hi, scale, c2 and k of the gradients, in rows that hold hi and r; dot about hi becomes dweight.

    In evaluation dx = dy * scale: then hi and c2 are 0.
    """
    hi, scale = constants, offset(constants, pitch)
    c2, k, part = offset(constants, 2 * pitch), offset(constants, 3 * pitch), 1.0 / count
    for c in range(n):
        dot[c] += (hi[c] - mean[c]) * scale[c] * s[c]  # which is r as yet
    for c in range(n):
        scale[c] = as_scale(x, rstd[c] * weight[c])
    for c in range(n):
        k[c] = as_scale(x, rstd[c] * -(dot[c] * part))
    for c in range(n):
        c2[c] = as_element(x, s[c] * part - shift_of(x, hi[c], mean[c], k[c]))
    if not training:
        for c in range(n):
            hi[c] = c2[c] = as_element(x, 0.0)
