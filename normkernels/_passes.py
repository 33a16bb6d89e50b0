"""The steps of every pass: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._layout import Layout
from ._plan import channel_plan, moments_plan, row_plan
from .results import Array, Grads, Moments, Saved


def layer_norm(
    x: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x = _validate.array(x)
    plan = row_plan(x.shape, x.strides, x.dtype, _validate.normalized_shape(normalized_shape, x.shape))
    weight = _validate.parameter(weight, "weight", plan.parameter_shape, x.dtype)
    bias = _validate.parameter(bias, "bias", plan.parameter_shape, x.dtype)
    eps = _validate.eps(eps)
    _validate.threads(threads)
    y, flat = _target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    if x.size:
        mean, rstd = backend("cpu").row_forward(plan, plan.layout.flat(x), weight, bias, eps, flat, threads)
    else:
        mean = rstd = np.empty(0)
    return _delivered(y, out), Saved(x, mean, rstd, weight, bias is not None, True, plan, "layer_norm")


def layer_norm_backward(dy: Any, saved: Any, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, "layer_norm")
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    dx, flat = _target(plan.layout, x, out, (dy, x), (weight,))
    if x.size:
        flat_dy, flat_x = plan.layout.flat(dy), plan.layout.flat(x)
        sums = backend("cpu").row_backward(
            plan, flat_dy, flat_x, saved.mean, saved.rstd, weight, flat, threads
        )
    else:
        sums = np.zeros((2, plan.cols))
    return _grads(saved, _delivered(dx, out), *(s.reshape(plan.parameter_shape) for s in sums))


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float | None,
    eps: float,
    num_batches_tracked: Any,
    channel_axis: int,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x = _validate.array(x)
    training = bool(training)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, batch and channels, got {x.ndim}")
    plan = channel_plan(x.shape, x.strides, x.dtype, _validate.axis(channel_axis, x.ndim, "channel_axis"))
    c = plan.channels
    weight = _validate.parameter(weight, "weight", (c,), x.dtype)
    bias = _validate.parameter(bias, "bias", (c,), x.dtype)
    running = _validate.statistics(running_mean, running_var, c, training)
    factor = _validate.averaging(momentum, num_batches_tracked, training)
    eps = _validate.eps(eps)
    _validate.threads(threads)
    if training and plan.count == 1 and x.size:
        raise ValueError(f"x must have more than one value per channel in training, got shape {x.shape}")
    others = (weight, bias, *running, x if keep else None)
    y, flat = _target(plan.layout, x, out, () if keep else (x,), others)
    kernels = backend("cpu")
    if not training:
        mean, var = np.array(running, np.float64)
        rstd = kernels.reciprocal_sd(var, eps)
        if x.size:
            kernels.channel_normalize(plan, plan.layout.flat(x), mean, rstd, weight, bias, flat, threads)
    elif x.size:
        tracked = np.array(running, np.float64) if running else np.zeros((2, c))
        mean, rstd = kernels.channel_forward(
            plan, plan.layout.flat(x), weight, bias, eps, tracked, factor, flat, threads
        )
        for statistic, new in zip(running, tracked, strict=False):
            statistic[:] = new
        if isinstance(num_batches_tracked, np.ndarray):
            num_batches_tracked += 1
    else:
        mean = rstd = np.zeros(c)
    return _delivered(y, out), Saved(x, mean, rstd, weight, bias is not None, training, plan, "batch_norm")


def batch_norm_backward(dy: Any, saved: Any, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, "batch_norm")
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    dx, flat = _target(plan.layout, x, out, (dy, x), (weight,))
    if x.size:
        sums = backend("cpu").channel_backward(
            plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight,
            saved.training, flat, threads,
        )  # fmt: skip
    else:
        sums = np.zeros((2, plan.channels))
    return _grads(saved, _delivered(dx, out), *sums)


def moments(x: Any, axis: int | Sequence[int] | None, threads: int | None) -> Moments:
    x = _validate.array(x)
    axes = _validate.axes(axis, x.ndim)
    _validate.threads(threads)
    kept = tuple(x.shape[a] for a in range(x.ndim) if a not in axes)
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    if plan.count == 0:
        raise ValueError(
            f"moments needs at least one element per group, got shape {x.shape} over axes {axes}"
        )
    if plan.channels == 0:
        return Moments(plan.count, np.empty(kept), np.empty(kept))
    flat = plan.layout.flat(x.transpose(order))
    mean, var = backend("cpu").channel_moments(plan, flat, threads)
    return Moments(plan.count, mean.reshape(kept), var.reshape(kept))


def _target(
    layout: Layout, x: Array, out: Any, same: Sequence[Array], others: Sequence[Array | None]
) -> tuple[Array, Array]:
    """The array that the kernels fill, and its flat view: out where its strides allow."""
    if out is not None:
        _validate.output(out, x, same, others)
        if layout.fits(out):
            return out, layout.flat(out)
    return layout.empty()


def _delivered(result: Array, out: Any) -> Array:
    """The result, in `out` where that is given."""
    if out is None or result is out:
        return result
    out[...] = result
    return out  # type: ignore[no-any-return]


def _grads(saved: Saved, dx: Array, dweight: Array, dbias: Array) -> Grads:
    dtype = saved.x.dtype
    return Grads(
        dx,
        None if saved.weight is None else dweight.astype(dtype),
        dbias.astype(dtype) if saved.has_bias else None,
    )
