"""Data as arrays, the parts in which they are taken, and their moments."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays, _validate
from ._devices import is_device_array
from ._dispatch import backend
from ._plan import moments_parts, moments_plan
from .results import Array, Moments


def data(value: Any) -> Array:
    """As `_arrays.array`, and lists too; integers and bools become float64."""
    x = value
    if isinstance(value, list | tuple | int | float):
        try:
            x = np.asarray(value)
        except ValueError:
            raise ValueError("x must be an array, or lists of equal lengths, got lists that differ") from None
    elif type(value) is not np.ndarray and not is_device_array(value):
        x = _arrays.in_host_memory(value, "x")
    if isinstance(x, np.ndarray) and x.dtype.kind in "biu":
        x = x.astype(np.float64)
    elif isinstance(x, np.ndarray) and x.dtype.kind in "cmMOSU":
        raise TypeError(f"x must be real numbers, got {x.dtype}")
    return _arrays.array(x)


def moments(x: Any, axis: int | Sequence[int] | None, threads: int | None) -> Moments:
    x = data(x)
    axes = _validate.axes(axis, x.ndim)
    _validate.threads(threads, x)
    kept = tuple(n for a, n in enumerate(x.shape) if a not in axes)
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    if plan.count == 0:
        raise ValueError(
            f"moments needs at least one element per group, got shape {x.shape} over axes {axes}"
        )
    kernels = backend(x)
    if plan.channels == 0:
        nothing = kernels.zeros(0, x).reshape(kept)
        return Moments(plan.count, nothing, nothing)
    if not isinstance(x, np.ndarray):
        mean, var = kernels.channel_moments(plan, kernels.flat(plan.layout, x.transpose(order), x), threads)
        return Moments(plan.count, mean.reshape(kept), var.reshape(kept))
    pieces = data_parts(x, axes)
    if len(pieces) == 1:
        mean, var, low = (value.reshape(kept) for value in _statistics(x, axes, plan.channels, threads))
    else:
        mean, var, low = np.empty(kept), np.empty(kept), np.empty(kept)
        for part, group in pieces:
            found = _statistics(x[part], axes, mean.size, threads)
            mean[group].flat, var[group].flat, low[group].flat = found
    return Moments(plan.count, mean[()], var[()])._with_low(low[()])


def _statistics(x: Array, axes: tuple[int, ...], whole: int, threads: int | None) -> tuple[Array, ...]:
    """mean, variance, and what the mean lost, flat; whole: groups of the array that x is a part of."""
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes, whole)
    kernels = backend(x)
    flat = kernels.flat(plan.layout, x.transpose(order), x)
    mean, var, _, low = kernels.channel_statistics(plan, flat, threads)
    return mean, var, low


def data_parts(x: Array, axes: tuple[int, ...], *others: Array, copies: bool = True) -> list[tuple[Any, Any]]:
    """Indices of x, and of the arrays beside it, and of its statistics, part by part."""
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    fits = backend(x).fits
    copied = copies and not all(fits(plan.layout, a.transpose(order)) for a in (x, *others))
    found = moments_parts(x.shape, x.strides, axes, plan, copied)
    if found is None:
        return [(..., ...)]
    return [(part, tuple(s for a, s in enumerate(part) if a not in axes)) for part in found]
