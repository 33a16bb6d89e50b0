"""Normalization of data: fit, or take given statistics, and apply."""

import math
from typing import Any

import numpy as np

from . import _arrays, _validate, _whitening
from ._devices import is_device_array
from ._dispatch import backend
from ._moments import data, data_parts
from ._plan import PART, moments_plan, parts
from .results import Array, Moments, Range, Whitening, correction

METHODS = ("zca", "pca")


def fields_of(
    statistics: Any, kind: type[tuple[Any, ...]], shapes: dict[str, tuple[int, ...]], lazy: bool = False
) -> list[Array]:
    """Fields of the statistics, of these shapes; lazy: they may be Dask arrays."""
    if not isinstance(statistics, kind):
        hint = ": use statistics.compute()" if hasattr(statistics, "__dask_graph__") else ""
        raise TypeError(f"statistics must be a {kind.__name__}, got {type(statistics).__name__}{hint}")
    values = [getattr(statistics, name) for name in shapes]
    if not lazy:
        for name, value in zip(shapes, values, strict=True):
            _arrays.not_lazy(value, f"statistics.{name}")
    values = [value if _arrays.is_dask_array(value) else np.asarray(value) for value in values]
    for (name, shape), value in zip(shapes.items(), values, strict=True):
        if value.shape != shape:
            raise ValueError(f"statistics.{name} must have shape {shape}, got {value.shape}")
        if value.dtype.kind != "f":
            raise TypeError(f"statistics.{name} must be floating-point numbers, got {value.dtype}")
    return values


def host_data(x: Any) -> Array:
    if type(x) is not np.ndarray and is_device_array(x):
        raise TypeError(f"x must be an array in host memory, got {type(x).__name__} in device memory")
    return data(x)


def _slices(x: Any, axis: Any, fitted: bool) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """x, the axes of a slice, and the shape of the others; fitting needs elements in a slice."""
    x = host_data(x)
    axes = _validate.axes(axis, x.ndim)
    if fitted and any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"x must have at least one element per slice, got shape {x.shape} over axes {axes}")
    return x, axes, tuple(n for a, n in enumerate(x.shape) if a not in axes)


def zscore(
    x: Any, axis: Any, ddof: int, statistics: Any, keep: bool, out: Any, threads: int | None
) -> tuple[Array, Any]:
    """y, and with `keep` the statistics."""
    x, axes, kept = _slices(x, axis, statistics is None)
    _validate.threads(threads, x)
    given = [] if statistics is None else fields_of(statistics, Moments, {"mean": kept, "var": kept})
    target = None if out is None else _validate.output(out, "out", x, (x,), given)
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    factor = correction(plan.count if statistics is None else statistics.count, ddof)
    y = backend(x).empty(plan.layout, x)[0].transpose(np.argsort(order)) if target is None else target
    found = [np.empty(kept), np.empty(kept), np.empty(kept)] if keep and not given else []
    for part, group in data_parts(x, axes, y) if x.size else ():
        values = [value[group] for value in given]
        moments = _standardize(x[part], axes, plan.channels, values, factor, y[part], threads)
        for result, value in zip(found, moments, strict=False):
            result[group].flat = value
    if found:
        mean, var, low = (value[()] for value in found)
        statistics = Moments(plan.count, mean, var)._with_low(low)
    return y if out is None else out, statistics


def _standardize(
    x: Array,
    axes: tuple[int, ...],
    whole: int,
    given: list[Array],
    factor: float,
    y: Array,
    threads: int | None,
) -> tuple[Array, ...]:
    """Write y with the mean and var that are given, or those of x; mean, var and what the mean lost, flat.

    whole: slices of the array that x is a part of.
    """
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes, whole)
    kernels, layout, target = backend(x), plan.layout, y.transpose(order)
    flat, fits = kernels.flat(layout, x.transpose(order), x), kernels.fits(layout, target)
    shaped, flat_y = (target, kernels.flat(layout, target, x)) if fits else kernels.empty(layout, x)
    if given:
        mean, var = (value.astype(np.float64).reshape(-1) for value in given)
        low = np.zeros_like(mean)
        kernels.channel_normalize(plan, flat, None, None, 0.0, (mean, var * factor), flat_y, threads)
    else:
        mean, var, rstd, low = kernels.channel_statistics(plan, flat, threads)
        rstd /= math.sqrt(factor)
        kernels.channel_standardize(plan, flat, mean, rstd, flat_y, threads)
    if not fits:
        target[...] = shaped
    return mean, var, low


def range_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """That of the smallest and largest of data."""
    return np.dtype(np.float32) if dtype.itemsize == 2 else dtype


def minmax(x: Any, axis: Any, statistics: Any, keep: bool, out: Any) -> tuple[Array, Any]:
    """y, and with `keep` the statistics."""
    x, axes, kept = _slices(x, axis, statistics is None)
    given = [] if statistics is None else fields_of(statistics, Range, {"min": kept, "max": kept})
    target = None if out is None else _validate.output(out, "out", x, (x,), given)
    y = np.empty_like(x) if target is None else target
    wide = range_dtype(x.dtype)
    found = [np.empty(kept, wide), np.empty(kept, wide)] if keep and not given else []
    for part, group in data_parts(x, axes, copies=False) if x.size else ():
        limits = [value[group] for value in given] or [x[part].min(axes), x[part].max(axes)]
        low, high = (np.asarray(value, wide) for value in limits)
        for result, values in zip(found, (low, high), strict=False):
            result[group] = values
        _spread(x[part], axes, np.expand_dims(low, axes), np.expand_dims(high, axes), y[part])
    used = Range(found[0][()], found[1][()]) if found else statistics
    return y if out is None else out, used


def _spread(x: Array, axes: tuple[int, ...], low: Array, high: Array, y: Array) -> None:
    """Write y = (x - low) / (high - low), and 0 where high = low."""
    one = low.dtype.type(1)
    with np.errstate(over="ignore", invalid="ignore"):
        beyond = np.isinf(high - low) & np.isfinite(high) & np.isfinite(low)
    unit = np.where(beyond, one / 2, one)
    with np.errstate(invalid="ignore"):
        low, extent = low * unit, high * unit - low * unit
    constant = extent == 0
    extent[constant] = 1
    for part in parts(x.shape, x.strides, range(x.ndim), PART):
        group = tuple(slice(None) if a in axes else s for a, s in enumerate(part))
        z = x[part] * unit[group]
        with np.errstate(invalid="ignore"):
            z -= low[group]
            z /= extent[group]
        np.copyto(z, 0, where=constant[group] & ~np.isnan(z))
        y[part] = z


def whiten(x: Any, method: str, eps: float, statistics: Any) -> tuple[Array, Whitening]:
    x = host_data(x)
    eps = whitening_options(x.ndim, method, eps)
    features = x.shape[1]
    if statistics is not None:
        fields_of(statistics, Whitening, {"mean": (features,), "matrix": (features, features)})
    elif x.shape[0] == 0:
        raise ValueError(f"x must have at least one sample, got shape {x.shape}")
    else:
        statistics = _whitening.fit(x, method, eps)
    return _whitening.apply(x, statistics), statistics


def whitening_options(ndim: int, method: str, eps: float) -> float:
    """The eps of `whiten`, whose x has so many dimensions."""
    if ndim != 2:
        raise ValueError(f"x must have 2 dimensions, samples and features, got {ndim}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    return float(_validate.eps(eps))
