"""What the kernels are made of: moments, centring, and the equations on a thread's share of a row."""

import numpy as np

from .. import _formulas
from .activations import activated, slope
from .jit import SIMULATED, primitive

if SIMULATED:
    from .emulated import (
        accumulate,
        afresh,
        as_element,
        as_elements,
        as_type_of,
        barrier,
        block,
        block_of_team,
        count_of,
        first_elements,
        first_row,
        grid,
        inside,
        lane,
        largest,
        lead,
        load,
        load_parameters,
        meet,
        member,
        number,
        of_runs,
        offset,
        put,
        rounded,
        rows_at_once,
        run_sums,
        slot,
        store,
        team_merged,
        team_of_grid,
        team_sums,
        thread,
        total,
        zeros,
    )  # fmt: skip
else:
    from .shares import (
        accumulate,
        afresh,
        count_of,
        first_elements,
        inside,
        lead,
        load,
        load_parameters,
        number,
        of_runs,
        offset,
        put,
        store,
        zeros,
    )  # fmt: skip
    from .teams import (
        barrier,
        block,
        block_of_team,
        first_row,
        grid,
        meet,
        member,
        rows_at_once,
        run_sums,
        slot,
        team_merged,
        team_of_grid,
        team_sums,
        thread,
    )  # fmt: skip
    from .vectors import as_element, as_elements, as_type_of, lane, largest, rounded, total

__all__ = [
    "accumulate", "activated", "added", "affine", "afresh", "as_element", "as_elements", "as_scale",
    "as_type_of", "barrier", "block", "block_of_team", "centring", "count_of", "first_row", "grid", "inside",
    "lane", "largest", "load", "load_parameters", "meet", "member", "merge", "moments", "move_running",
    "number", "of_runs", "offset", "output_constants", "pivot_of", "plus", "position", "positions", "put",
    "reciprocal_sd", "relative_moments", "renorm_constants", "rows_at_once", "run_sums", "slope", "slot",
    "squares", "store", "team_merged", "team_of_grid", "team_sums", "thread", "total", "zeros",
]  # fmt: skip

# s * s / (q * count) = d² / (d² + var) for a pivot that is d from the mean: above this it is poor.
FAR = 0.8

# Outside this range a sum of squares may have lost terms to under- or overflow.
SMALL, LARGE = 1e-25, 1e35
RESCALE = 2.0**96

merge = primitive(_formulas.merge)
reciprocal_sd = primitive(_formulas.reciprocal_sd)


@primitive
def position(x, member, form):
    """Where in the row at x the first vector of a member begins; below 0 where x lies within a vector."""
    return member * form.lanes - lead(x, form)


@primitive
def positions(x, member, per_run, magic, outer, stride, form):
    """The same in `outer` runs, `stride` elements apart, with `per_run` vectors to each of them.

    magic: `config.magic(per_run)`. Stands for a position wherever one does.
    """
    return member, per_run, magic, outer, stride, lead(x, form)


@primitive
def _clipped(value, low, high):
    return min(max(value, low), high) if value == value else value


@primitive
def renorm_constants(s, mean, rstd, eps, r_max, d_max, running_mean, running_var):
    """r and d of batch renormalization for statistic s (Ioffe 2017, algorithm 1)."""
    running_rstd = reciprocal_sd(number(running_var, s, 1.0), eps)
    r = _clipped(running_rstd / rstd if rstd != 0.0 else 1.0, 1.0 / r_max, r_max)
    return r, _clipped((mean - number(running_mean, s, 0.0)) * running_rstd, -d_max, d_max)


@primitive
def move_running(s, mean, m2, count, factor, running_mean, running_var):
    """Running statistics, in place, with the unbiased variance; they may be None."""
    put(running_mean, s, (1.0 - factor) * number(running_mean, s, 0.0) + factor * mean)
    put(running_var, s, (1.0 - factor) * number(running_var, s, 0.0) + factor * (m2 / (count - 1.0)))


@primitive
def output_constants(x, mean, rstd, weight, bias):
    """hi, scale, shift such that (x - hi) * scale + shift is the output."""
    hi, lo, scale = centring(x, mean, rstd * weight)
    return hi, scale, as_element(x, bias + np.float64(lo))


@primitive
def added(x, h, residual, p, n, form):
    """h + residual, rounded as if it had been stored at x"""
    if residual is None:
        return h
    return rounded(x, h + load(residual, p, n, form))


@primitive
def plus(z, h):
    """z + h, which may be None"""
    if h is None:
        return z
    return z + h


@primitive
def affine(x_hat, weight, bias):
    """x_hat * weight + bias, of which either may be None"""
    if weight is None:
        y = x_hat
    else:
        y = x_hat * weight
    if bias is None:
        return y
    return y + bias


@primitive
def pivot_of(x, residual, n):
    """About the mean of the first elements; exactly the first where they are all equal."""
    h = first_elements(x, n)
    if residual is not None:
        h = rounded(x, h + first_elements(residual, n))
    first = lane(h, 0)
    return first + total((h - first) * 0.25)


@primitive
def as_scale(x, value):
    """A factor in the dtype of x; one beyond its range stays finite, so that 0 * factor = 0."""
    return as_element(x, min(max(value, -largest(x)), largest(x)) if value == value else value)


@primitive
def centring(x, mean, scale):
    """hi, lo, scale in the dtype of x such that (x - hi) * scale + lo = (x - mean) * scale.

    hi is mean in the dtype of x; lo, the rest of it times -scale, keeps what that rounding lost.
    """
    hi, scale = as_element(x, mean), as_scale(x, scale)
    return hi, as_element(x, (np.float64(hi) - mean) * np.float64(scale)), scale


@primitive
def relative_moments(h, pivot, p, n, form, exchange, flags, step):
    """Pivot, mean - pivot and m2 of the row that a team has: sums about a pivot, which they are corrected by.

    Where the pivot was poor or a square left the range of float32, the sums are taken again about the
    mean and in a better unit; h never leaves the registers.
    """
    count, unit = np.float64(count_of(p, n)), 1.0
    d = inside(h - pivot, p, n, form)
    s, q = team_sums(total(d), total(d * d), form, exchange, flags, step)
    s, q = np.float64(s), np.float64(q)
    if not (s * s <= FAR * q * count and SMALL < q < LARGE):
        if not q < LARGE:
            unit = RESCALE
        elif q <= SMALL:
            unit = 1.0 / RESCALE
        d = inside((h - pivot) * (1.0 / unit), p, n, form)
        s, q = team_sums(total(d), total(d * d), form, exchange, flags, step + 1)
        if s != 0:
            pivot = pivot + as_type_of(pivot, np.float64(s) * unit / count)
            d = inside((h - pivot) * (1.0 / unit), p, n, form)
            s, q = team_sums(total(d), total(d * d), form, exchange, flags, step + 2)
        s, q = np.float64(s), np.float64(q)
    mean = s / count
    return np.float64(pivot), mean * unit, (q - s * mean) * unit * unit


@primitive
def moments(h, pivot, p, n, form, exchange, flags, step):
    """mean and m2 of the row that a team has."""
    pivot, mean, m2 = relative_moments(h, pivot, p, n, form, exchange, flags, step)
    return pivot + mean, m2


@primitive
def squares(h, form, exchange, flags, step):
    """The sum of squares of the row that a team has; again in a better unit where one left the range."""
    unit = 1.0
    q, _ = team_sums(total(h * h), total(h), form, exchange, flags, step)
    q = np.float64(q)
    if not SMALL < q < LARGE:
        unit = RESCALE if not q < LARGE else 1.0 / RESCALE
        h = h * (1.0 / unit)
        q, _ = team_sums(total(h * h), total(h), form, exchange, flags, step + 1)
        q = np.float64(q)
    return q * unit * unit
