"""What the kernels are made of: moments, centring, and the equations on a thread's share of a row."""

import numpy as np

from .. import _formulas
from .activations import activated, slope
from .jit import SIMULATED, primitive

if SIMULATED:
    from .emulated import (
        accumulate,
        as_element,
        as_type_of,
        barrier,
        block,
        first_elements,
        first_row,
        grid,
        inside,
        lane,
        largest,
        load,
        load_parameters,
        load_run_parameters,
        member,
        number,
        offset,
        position,
        put,
        rounded,
        rows_at_once,
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
        first_elements,
        inside,
        load,
        load_parameters,
        load_run_parameters,
        number,
        offset,
        position,
        put,
        rounded,
        store,
        zeros,
    )  # fmt: skip
    from .teams import (
        barrier,
        block,
        first_row,
        grid,
        member,
        rows_at_once,
        slot,
        team_merged,
        team_of_grid,
        team_sums,
        thread,
    )  # fmt: skip
    from .vectors import as_element, as_type_of, lane, largest, total

__all__ = [
    "accumulate", "activated", "added", "affine", "as_element", "as_scale", "barrier", "block", "centring",
    "first_row", "grid", "inside", "load", "member", "merge", "moments", "number", "offset", "parameters",
    "pivot_of", "place", "position", "put", "reciprocal_sd", "relative_moments", "rows_at_once", "slope",
    "slot", "squares", "store", "team_merged", "team_of_grid", "team_sums", "thread", "total", "zeros",
]  # fmt: skip

# s * s / (q * count) = d² / (d² + var) for a pivot that is d from the mean: above this it is poor.
FAR = 0.8

# Outside this range a sum of squares may have lost terms to under- or overflow.
SMALL, LARGE = 1e-25, 1e35
RESCALE = 2.0**96

merge = primitive(_formulas.merge)
reciprocal_sd = primitive(_formulas.reciprocal_sd)


@primitive
def added(x, h, residual, k, p, n, form):
    """h + residual, rounded as if it had been stored at x"""
    if residual is None:
        return h
    return rounded(x, h + load(offset(residual, k), p, n, form))


@primitive
def place(i, period, width):
    """Where the parameters of row i begin."""
    if period is None:
        return 0
    return i % period * width


@primitive
def parameters(weight, k, p, n, magic, form):
    """The parameters of a share, from weight[k] on: one for every element, or with `magic` one for a run."""
    if magic is None:
        return load_parameters(offset(weight, k), p, n, form)
    return load_run_parameters(offset(weight, k), p, n, magic, form)


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
    count, unit = np.float64(n), 1.0
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
