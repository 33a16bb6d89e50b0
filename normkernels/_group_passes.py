"""The steps of group, instance and weight norm: validate, plan, launch, collect."""

from typing import Any

import numpy as np

from . import _validate
from ._channel_passes import channel_backward, normalized
from ._dispatch import backend
from ._layout import ChannelPlan, GroupPlan
from ._passes import delivered, grads, target, update
from ._plan import channel_plan, group_plan, weight_plan
from .results import Array, Grads, Saved


def group_norm(
    x: Any,
    num_groups: int,
    weight: Any,
    bias: Any,
    eps: float,
    channel_axis: int,
    activation: str | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x, axis = _samples(x, channel_axis, 2)
    plan = group_plan(x.shape, x.dtype, axis, _validate.num_groups(num_groups, x.shape[axis]))
    weight = _validate.parameter(weight, "weight", (x.shape[axis],), x.dtype)
    bias = _validate.parameter(bias, "bias", (x.shape[axis],), x.dtype)
    eps, activation = _validate.eps(eps), _validate.activation(activation)
    _validate.threads(threads)
    y, flat = target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    mean, rstd = _group_forward(plan, x, weight, bias, eps, flat, threads, activation)
    return delivered(y, out), Saved(x, mean, rstd, weight, bias, True, plan, "group_norm", activation)


def instance_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    channel_axis: int,
    activation: str | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x, axis = _samples(x, channel_axis, 3)
    c, own = x.shape[axis], _validate.flag(use_input_stats, "use_input_stats")
    weight = _validate.parameter(weight, "weight", (c,), x.dtype)
    bias = _validate.parameter(bias, "bias", (c,), x.dtype)
    running = _validate.statistics(running_mean, running_var, c, own)
    factor, eps = _validate.real(momentum, "momentum"), _validate.eps(eps)
    activation = _validate.activation(activation)
    _validate.threads(threads)
    others = (weight, bias, *running, x if keep else None)
    plan: GroupPlan | ChannelPlan
    if own:
        _validate.apart(running, (x, weight, bias))
        plan = group_plan(x.shape, x.dtype, axis, max(1, c))
        if plan.cols == 1 and x.size:
            raise ValueError(f"x must have more than one value per instance and channel, got shape {x.shape}")
        y, flat = target(plan.layout, x, out, () if keep else (x,), others)
        var = np.empty(plan.rows) if running else None
        mean, rstd = _group_forward(plan, x, weight, bias, eps, flat, threads, activation, var)
        if x.size and var is not None:
            unbiased = var * (plan.cols / (plan.cols - 1))
            means = (s.reshape(plan.samples, c).mean(0) for s in (mean, unbiased))
            update(
                running, [(1 - factor) * old + factor * new for old, new in zip(running, means, strict=True)]
            )
    else:
        plan = channel_plan(x.shape, x.strides, x.dtype, axis)
        y, flat = target(plan.layout, x, out, () if keep else (x,), others)
        mean, rstd = normalized(plan, x, running, weight, bias, eps, flat, threads, activation)
    saved = Saved(x, mean, rstd, weight, bias, own, plan, "instance_norm", activation)
    return delivered(y, out), saved


def group_norm_backward(norm: str, dy: Any, saved: Saved, out: Any, threads: int | None) -> Grads:
    """Of group, instance and weight norm."""
    dy = _validate.gradient(dy, saved, norm)
    _validate.threads(threads)
    plan, x = saved.plan, saved.x
    dx, flat = target(plan.layout, x, out, (dy, x), (saved.weight, saved.bias))
    if not saved.training:
        sums = channel_backward(plan, dy, saved, flat, threads)
    elif x.size:
        sums = backend("cpu").group_backward(
            plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, saved.weight, saved.bias,
            flat, threads, saved.activation,
        )  # fmt: skip
    else:
        sums = np.zeros(plan.parameters), np.zeros(plan.parameters)
    return grads(saved, delivered(dx, out), *sums)


def weight_norm(
    v: Any, g: Any, dim: int | None, out: Any, threads: int | None, *, keep: bool
) -> tuple[Array, Saved]:
    """w and what the backward needs; with `keep`, out must leave v alone."""
    v = _validate.array(v, "v")
    axis = None if dim is None else _validate.axis(dim, v.ndim, "dim")
    plan = weight_plan(v.shape, v.dtype, axis)
    shape = tuple(n if a == axis else 1 for a, n in enumerate(v.shape))
    g = _validate.array(g, "g")
    g = _validate.parameter(g, "g", shape if g.ndim == v.ndim else (plan.rows,), v.dtype)
    _validate.threads(threads)
    w, flat = target(plan.layout, v, out, () if keep else (v,), (g, v if keep else None))
    mean, rstd = _group_forward(plan, v, g, None, 0.0, flat, threads)
    return delivered(w, out), Saved(v, mean, rstd, g, None, True, plan, "weight_norm")


def _samples(x: Any, channel_axis: int, ndim: int) -> tuple[Array, int]:
    """x, with samples on its first axis, and its channel axis."""
    x = _validate.array(x)
    if x.ndim < ndim:
        raise ValueError(f"x must have at least {ndim} dimensions, got {x.ndim}")
    axis = _validate.axis(channel_axis, x.ndim, "channel_axis")
    if axis == 0:
        raise ValueError(f"channel_axis must not be the first axis, that of the samples, got {channel_axis}")
    return x, axis


def _group_forward(
    plan: GroupPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None = None,
    var: Array | None = None,
) -> tuple[Array, Array]:
    if not x.size:
        return np.zeros(plan.rows), np.zeros(plan.rows)
    flat = None if weight is None else weight.reshape(-1)
    statistics: tuple[Array, Array] = backend("cpu").group_forward(
        plan, plan.layout.flat(x), flat, bias, eps, y, threads, activation, var
    )
    return statistics
