"""The steps of the norms over channels, and of moments: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._layout import ChannelPlan
from ._passes import delivered, grads, target, update
from ._plan import channel_plan, moments_plan
from .results import Array, Grads, Moments, ResidualGrads, Saved


def batch_norm(
    norm: str,
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float | None,
    eps: float,
    r_max: float,
    d_max: float,
    num_batches_tracked: Any,
    channel_axis: int,
    residual: Any,
    activation: str | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """Batch norm, or batch renorm: y and what the backward needs; with `keep`, out must leave that alone."""
    x = _validate.array(x)
    training = _validate.flag(training, "training")
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, batch and channels, got {x.ndim}")
    plan = channel_plan(x.shape, x.strides, x.dtype, _validate.axis(channel_axis, x.ndim, "channel_axis"))
    c = plan.channels
    weight = _validate.parameter(weight, "weight", (c,), x.dtype)
    bias = _validate.parameter(bias, "bias", (c,), x.dtype)
    running = _validate.statistics(running_mean, running_var, c, training, needed=norm == "batch_renorm")
    factor = _validate.averaging(momentum, num_batches_tracked, training)
    eps = _validate.eps(eps)
    if norm == "batch_renorm":
        r_max, d_max = _validate.r_max(r_max), _validate.d_max(d_max)
    activation = _validate.activation(activation)
    inputs: tuple[Array, ...] = (x,)
    if residual is not None:
        residual = _validate.beside(residual, "residual", x)
        inputs = x, residual
    _validate.threads(threads)
    if training and plan.count == 1 and x.size:
        raise ValueError(f"x must have more than one value per channel in training, got shape {x.shape}")
    others = (weight, bias, *running, *(inputs if keep else ()))
    if training:
        _validate.apart(running, (*inputs, weight, bias))
    y, flat = target(plan.layout, x, out, () if keep else inputs, others)
    renorm = None
    if not training:
        mean, rstd = normalized(plan, x, running, weight, bias, eps, flat, threads, activation, residual)
    elif x.size:
        settings = np.array((eps, factor, r_max, d_max))
        mean, rstd, *new, r, d = backend("cpu").channel_forward(
            plan, plan.layout.flat(x), weight, bias, settings, running, flat, threads, activation,
            None if residual is None else plan.layout.flat(residual),
        )  # fmt: skip
        if norm == "batch_renorm":
            renorm = r, d
        update(running, new)
        if isinstance(num_batches_tracked, np.ndarray):
            num_batches_tracked += 1
    else:
        mean = rstd = np.zeros(c)
    saved = Saved(x, mean, rstd, weight, bias, training, plan, norm, activation, residual, renorm=renorm)
    return delivered(y, out), saved


def batch_norm_backward(
    norm: str, dy: Any, saved: Saved, out: Any, threads: int | None
) -> Grads | ResidualGrads:
    dy = _validate.gradient(dy, saved, norm)
    _validate.threads(threads)
    plan, residual = saved.plan, saved.residual
    others = (saved.weight, saved.bias, None if saved.activation is None else residual)
    dx, flat = target(plan.layout, saved.x, out, (dy, saved.x), others)
    dresidual = flat_dresidual = None
    if residual is not None and saved.activation is not None:
        dresidual, flat_dresidual = plan.layout.empty()
    elif residual is not None:
        dresidual = dy if out is None or not np.shares_memory(dy, out) else dy.copy()
    dweight, dbias = channel_backward(plan, dy, saved, flat, threads, flat_dresidual)
    if saved.renorm is not None:  # y = (x_hat * r + d) * weight + bias
        r, d = saved.renorm
        dweight = dweight * r + dbias * d
    result = grads(saved, delivered(dx, out), dweight, dbias)
    return result if dresidual is None else ResidualGrads(*result, dresidual)


def channel_backward(
    plan: ChannelPlan,
    dy: Array,
    saved: Saved,
    dx: Array,
    threads: int | None,
    dresidual: Array | None = None,
) -> tuple[Array, Array]:
    """Write dx and dresidual; dweight, without the r and d of batch renorm, and dbias."""
    x, weight, bias, residual = saved.x, saved.weight, saved.bias, None
    if not x.size:
        return np.zeros(plan.channels), np.zeros(plan.channels)
    if saved.renorm is not None:
        r, d = saved.renorm
        wide = np.ones(plan.channels) if weight is None else weight.astype(np.float64)
        weight, bias = wide * r, wide * d + (0.0 if bias is None else bias)
    if saved.activation is not None and saved.residual is not None:
        residual = plan.layout.flat(saved.residual)
    sums: tuple[Array, Array] = backend("cpu").channel_backward(
        plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight, bias,
        saved.training, dx, threads, saved.activation, residual, dresidual,
    )  # fmt: skip
    return sums


def normalized(
    plan: ChannelPlan,
    x: Array,
    running: Sequence[Array],
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None,
    residual: Array | None = None,
) -> tuple[Array, Array]:
    """Write y with the running statistics; mean and rstd."""
    kernels = backend("cpu")
    mean, var = np.array(running, np.float64)
    rstd = kernels.reciprocal_sd(var, eps)
    if x.size:
        kernels.channel_normalize(
            plan, plan.layout.flat(x), mean, rstd, weight, bias, y, threads, activation,
            None if residual is None else plan.layout.flat(residual),
        )  # fmt: skip
    return mean, rstd


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
