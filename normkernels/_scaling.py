"""Normalization of data: fit, or take given statistics, and apply."""

from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._plan import moments_plan
from .results import Array, Moments, Range, Whitening

METHODS = ("zca", "pca")


def _given(statistics: Any, kind: type[tuple[Any, ...]], shapes: dict[str, tuple[int, ...]]) -> list[Array]:
    """Fields of the statistics, of these shapes."""
    if not isinstance(statistics, kind):
        raise TypeError(f"statistics must be a {kind.__name__}, got {type(statistics).__name__}")
    values = [np.asarray(getattr(statistics, name)) for name in shapes]
    for (name, shape), value in zip(shapes.items(), values, strict=True):
        if value.shape != shape:
            raise ValueError(f"statistics.{name} must have shape {shape}, got {value.shape}")
        if value.dtype.kind != "f":
            raise TypeError(f"statistics.{name} must be floating-point numbers, got {value.dtype}")
    return values


def _slices(x: Any, axis: Any, fitted: bool) -> tuple[Array, tuple[int, ...], tuple[int, ...]]:
    """x, the axes of a slice, and the shape of the others; fitting needs elements in a slice."""
    x = _validate.host_array(x)
    axes = _validate.axes(axis, x.ndim)
    if fitted and any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"x must have at least one element per slice, got shape {x.shape} over axes {axes}")
    return x, axes, tuple(n for a, n in enumerate(x.shape) if a not in axes)


def zscore(x: Any, axis: Any, statistics: Any, out: Any, threads: int | None) -> tuple[Array, Moments]:
    x, axes, kept = _slices(x, axis, statistics is None)
    _validate.threads(threads, x)
    given = [] if statistics is None else _given(statistics, Moments, {"mean": kept, "var": kept})
    if out is not None:
        _validate.output(out, "out", x, (x,), given)
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    kernels, layout = backend(x), plan.layout
    if out is not None and kernels.fits(layout, out.transpose(order)):
        y, flat_y = out.transpose(order), kernels.flat(layout, out.transpose(order), x)
    else:
        y, flat_y = kernels.empty(layout, x)
    if x.size:
        flat = kernels.flat(layout, x.transpose(order), x)
        if statistics is None:
            mean, var, rstd = kernels.channel_statistics(plan, flat, threads)
            statistics = Moments(plan.count, mean.reshape(kept), var.reshape(kept))
        else:
            mean, var = (value.astype(np.float64).reshape(-1) for value in given)
            rstd = kernels.reciprocal_sd(var, 0.0)
        kernels.channel_normalize(plan, flat, mean, rstd, None, None, flat_y, threads)
    elif statistics is None:
        statistics = Moments(plan.count, np.empty(kept), np.empty(kept))
    y = y.transpose(np.argsort(order))
    return _into(out, y), statistics


def _into(out: Array | None, y: Array) -> Array:
    if out is None or np.may_share_memory(out, y):
        return y if out is None else out
    out[...] = y
    return out


def minmax(x: Any, axis: Any, statistics: Any, out: Any) -> tuple[Array, Range]:
    x, axes, kept = _slices(x, axis, statistics is None)
    given = [] if statistics is None else _given(statistics, Range, {"min": kept, "range": kept})
    if out is not None:
        _validate.output(out, "out", x, (x,), given)
    wide = x.astype(np.float32) if x.itemsize == 2 else x
    if statistics is None:
        low = wide.min(axes)
        statistics = Range(low, wide.max(axes) - low)
    low, extent = (np.expand_dims(value, axes).astype(wide.dtype) for value in statistics)
    y = np.subtract(wide, low, out=out if wide is x else None)
    constant = extent == 0
    np.divide(y, np.where(constant, 1, extent), out=y)
    np.copyto(y, 0, where=constant & ~np.isnan(y))
    return _into(out, y.astype(x.dtype, copy=False)), statistics


def whiten(x: Any, method: str, eps: float, statistics: Any) -> tuple[Array, Whitening]:
    x = _validate.host_array(x)
    if x.ndim != 2:
        raise ValueError(f"x must have 2 dimensions, samples and features, got {x.ndim}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    eps, features = _validate.eps(eps), x.shape[1]
    if statistics is not None:
        _given(statistics, Whitening, {"mean": (features,), "matrix": (features, features)})
    elif x.shape[0] == 0:
        raise ValueError(f"x must have at least one sample, got shape {x.shape}")
    else:
        mean = x.astype(np.float64).mean(0)
        statistics = Whitening(mean, _whitening_matrix(x - mean, method, eps))
    y = (x - statistics.mean) @ statistics.matrix.T
    return y.astype(x.dtype), statistics


def _whitening_matrix(centred: Array, method: str, eps: float) -> Array:
    """W = U rstd Uᵀ (zca) or rstd Uᵀ (pca), with U and var of the covariance U var Uᵀ."""
    covariance = centred.T @ centred / len(centred)
    if not np.isfinite(covariance).all():
        return np.full_like(covariance, np.nan)
    var, u = np.linalg.eigh(covariance)
    var, u = var[::-1], u[:, ::-1]
    # Of the eigenvalues of a singular matrix rounding leaves this much.
    noise = len(var) * np.finfo(np.float64).eps * var[:1]
    var = np.where(var > noise, var, 0.0)
    rstd = np.divide(1.0, np.sqrt(var + eps), out=np.zeros_like(var), where=var + eps > 0)
    if method == "zca":
        return np.asarray((u * rstd) @ u.T)
    largest = np.take_along_axis(u, np.abs(u).argmax(0, keepdims=True), 0) if len(u) else u
    return np.asarray((u * np.copysign(rstd, largest)).T)
