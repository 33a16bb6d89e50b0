"""The steps of every pass: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._plan import Layout, channel_plan, moments_plan, row_plan
from .results import Array, Grads, Moments, Saved


def layer_norm(
    x: Any, normalized_shape: Any, weight: Any, bias: Any, eps: float, out: Any, threads: int | None, *, keep: bool
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x = _validate.array(x)
    plan = row_plan(x.shape, x.strides, x.dtype, _validate.normalized_shape(normalized_shape, x.shape))
    weight = _validate.parameter(weight, "weight", plan.parameter_shape, x.dtype)
    bias = _validate.parameter(bias, "bias", plan.parameter_shape, x.dtype)
    eps = _validate.eps(eps)
    _validate.threads(threads)
    target = _Target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    if x.size:
        mean, rstd = backend("cpu").row_forward(
            plan, plan.layout.flat(x), weight, bias, eps, target.flat, threads
        )
    else:
        mean = rstd = np.empty(0)
    return target.finished(), Saved(x, mean, rstd, weight, bias is not None, True, plan, "layer_norm")


def layer_norm_backward(dy: Any, saved: Any, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, "layer_norm")
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    target = _Target(plan.layout, x, out, (dy, x), (weight,))
    if x.size:
        flat_dy, flat_x = plan.layout.flat(dy), plan.layout.flat(x)
        sums = backend("cpu").row_backward(
            plan, flat_dy, flat_x, saved.mean, saved.rstd, weight, target.flat, threads
        )
    else:
        sums = np.zeros((2, plan.cols))
    return _grads(saved, target.finished(), *(s.reshape(plan.parameter_shape) for s in sums))


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
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, batch and channels, got shape {x.shape}")
    plan = channel_plan(x.shape, x.strides, x.dtype, _validate.axis(channel_axis, x.ndim, "channel_axis"))
    c = plan.channels
    weight = _validate.parameter(weight, "weight", (c,), x.dtype)
    bias = _validate.parameter(bias, "bias", (c,), x.dtype)
    running = _validate.statistics(running_mean, running_var, c, training)
    factor = _validate.averaging(momentum, num_batches_tracked) if training else 0.0
    eps = _validate.eps(eps)
    _validate.threads(threads)
    if training and plan.count == 1:
        raise ValueError(f"training needs more than one value per channel, got shape {x.shape}")
    others = (weight, bias, *running, x if keep else None)
    target = _Target(plan.layout, x, out, () if keep else (x,), others)
    kernels = backend("cpu")
    if not training:
        mean, rstd = running[0].astype(np.float64), kernels.reciprocal_sd(running[1], eps)
        if x.size:
            kernels.channel_normalize(plan, plan.layout.flat(x), mean, rstd, weight, bias, target.flat, threads)
    elif x.size:
        mean, var, rstd = kernels.channel_forward(
            plan, plan.layout.flat(x), weight, bias, eps, target.flat, threads
        )
        if running:
            running[0][:] = (1 - factor) * running[0] + factor * mean
            running[1][:] = (1 - factor) * running[1] + factor * var * (plan.count / (plan.count - 1))
        if isinstance(num_batches_tracked, np.ndarray):
            num_batches_tracked += 1
    else:
        mean = rstd = np.zeros(c)
    return target.finished(), Saved(x, mean, rstd, weight, bias is not None, training, plan, "batch_norm")


def batch_norm_backward(dy: Any, saved: Any, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, "batch_norm")
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    target = _Target(plan.layout, x, out, (dy, x), (weight,))
    if x.size:
        sums = backend("cpu").channel_backward(
            plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight,
            saved.training, target.flat, threads,
        )  # fmt: skip
    else:
        sums = np.zeros((2, plan.channels))
    return _grads(saved, target.finished(), *sums)


def moments(x: Any, axis: int | Sequence[int] | None, threads: int | None) -> Moments:
    x = _validate.array(x)
    axes = _validate.axes(axis, x.ndim)
    _validate.threads(threads)
    kept = tuple(x.shape[a] for a in range(x.ndim) if a not in axes)
    order, plan = moments_plan(x.shape, x.strides, x.dtype, axes)
    if plan.count == 0:
        raise ValueError(f"moments needs at least one element per group, got shape {x.shape} over axes {axes}")
    if plan.channels == 0:
        return Moments(plan.count, np.empty(kept), np.empty(kept))
    flat = plan.layout.flat(x.transpose(order))
    mean, var = backend("cpu").channel_moments(plan, flat, threads)
    return Moments(plan.count, mean.reshape(kept), var.reshape(kept))


class _Target:
    """The array that receives the result, and its flat view for the kernels."""

    def __init__(
        self, layout: Layout, x: Array, out: Any, same: Sequence[Array], others: Sequence[Array | None]
    ) -> None:
        self.out = out
        if out is not None:
            _validate.output(out, x, same, others)
            if layout.fits(out):
                self.array, self.flat = out, layout.flat(out)
                return
        self.array, self.flat = layout.empty()

    def finished(self) -> Array:
        """The result; in `out` also where its strides are not those of the kernels."""
        if self.out is None or self.array is self.out:
            return self.array
        self.out[...] = self.array
        return self.out  # type: ignore[no-any-return]


def _grads(saved: Saved, dx: Array, dweight: Array, dbias: Array) -> Grads:
    dtype = saved.x.dtype
    return Grads(
        dx,
        None if saved.weight is None else dweight.astype(dtype),
        dbias.astype(dtype) if saved.has_bias else None,
    )
