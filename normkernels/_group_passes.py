"""The steps of group, instance and weight norm: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays, _calls, _validate
from ._calls import apart, find, find_backward, fit, of
from ._channel_passes import channel_backward, normalized
from ._dispatch import backend
from ._layout import ChannelPlan, GroupPlan
from ._passes import delivered, grads, target
from ._plan import channel_plan, group_plan, weight_plan
from .cpu import prepared
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
) -> tuple[Array, Saved[Grads]]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    options = (
        "group_norm", keep, num_groups, type(num_groups), eps, type(eps), channel_axis, type(channel_axis),
        activation, threads, type(threads), of(out),
    )  # fmt: skip
    signature, call = find(options, x, weight, bias)
    if call is not None and (out is None or fit(out, (x,), (x if keep else None, weight, bias))):
        return call(x, weight, bias, out)  # type: ignore[no-any-return]
    x, axis = _samples(x, channel_axis, 2)
    plan = group_plan(x.shape, x.dtype, axis, _validate.num_groups(num_groups, x.shape[axis]))
    weight = _validate.parameter(weight, "weight", (x.shape[axis],), x)
    bias = _validate.parameter(bias, "bias", (x.shape[axis],), x)
    eps, activation = _validate.eps(eps), _validate.activation(activation)
    _validate.threads(threads, x)
    y, flat = target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    mean, rstd = _group_forward(plan, x, weight, bias, eps, flat, threads, activation, keep=keep)
    if signature is not None and isinstance(x, np.ndarray) and x.size:
        given = x, weight, bias, out
        settled = "group_norm", plan, given, eps, activation, keep, threads
        _calls.keep(signature, prepared.row_forward, *settled)
    return delivered(y, out, x), Saved(x, mean, rstd, weight, bias, True, plan, "group_norm", activation)


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
) -> tuple[Array, Saved[Grads]]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    options = (
        "instance_norm", keep, use_input_stats, type(use_input_stats), momentum, type(momentum), eps,
        type(eps), channel_axis, type(channel_axis), activation, threads, type(threads), of(running_mean),
        of(running_var), of(out),
    )  # fmt: skip
    signature, call = find(options, x, weight, bias)
    others = weight, bias, running_mean, running_var
    if call is not None and (
        (out is None or fit(out, (x,), (x if keep else None, *others)))
        and apart(running_mean, running_var, x, weight, bias)
        and apart(running_var, x, weight, bias)
    ):
        return call(x, weight, bias, out, running_mean, running_var)  # type: ignore[no-any-return]
    x, axis = _samples(x, channel_axis, 3)
    c, own = x.shape[axis], _validate.flag(use_input_stats, "use_input_stats")
    weight = _validate.parameter(weight, "weight", (c,), x)
    bias = _validate.parameter(bias, "bias", (c,), x)
    running = _validate.statistics(running_mean, running_var, c, own, x)
    factor, eps = _validate.real(momentum, "momentum"), _validate.eps(eps)
    activation = _validate.activation(activation)
    _validate.threads(threads, x)
    others = (weight, bias, *running, x if keep else None)
    plan: GroupPlan | ChannelPlan
    if own:
        _validate.apart(running, (x, weight, bias))
        plan = group_plan(x.shape, x.dtype, axis, max(1, c))
        if plan.cols == 1 and x.size:
            raise ValueError(f"x must have more than one value per instance and channel, got shape {x.shape}")
        y, flat = target(plan.layout, x, out, () if keep else (x,), others)
        mean, rstd = _group_forward(
            plan, x, weight, bias, eps, flat, threads, activation, running, factor, keep=keep
        )
    else:
        plan = channel_plan(x.shape, x.strides, x.dtype, axis)
        y, flat = target(plan.layout, x, out, () if keep else (x,), others)
        mean, rstd = normalized(plan, x, running, weight, bias, eps, flat, threads, activation)
    saved = Saved(x, mean, rstd, weight, bias, own, plan, "instance_norm", activation)
    if signature is not None and isinstance(x, np.ndarray) and isinstance(plan, GroupPlan):
        given, moved = (x, weight, bias, out), running if factor != 0.0 else ()
        settled = "instance_norm", plan, given, eps, activation, keep, threads, moved, factor
        _calls.keep(signature, prepared.row_forward, *settled)
    return delivered(y, out, x), saved


def group_norm_backward(norm: str, dy: Any, saved: Saved[Grads], out: Any, threads: int | None) -> Grads:
    """Of group, instance and weight norm."""
    signature, call = find_backward(norm, dy, saved, out, threads)
    if call is not None:
        return call(dy, saved, out)  # type: ignore[no-any-return]
    dy = _validate.gradient_of_groups(dy, saved, norm)
    _validate.threads(threads, dy)
    plan, x, kernels = saved.plan, saved.x, backend(dy)
    dx, flat = target(plan.layout, dy, out, (dy, x), (saved.weight, saved.bias))
    if not saved.training:
        sums = channel_backward(plan, dy, saved, flat, threads)
    elif x.size:
        sums = kernels.group_backward(
            plan, kernels.flat(plan.layout, dy, dy), kernels.flat(plan.layout, x, dy), saved.mean,
            saved.rstd, saved.weight, saved.bias, flat, threads, saved.activation,
        )  # fmt: skip
    else:
        sums = kernels.zeros(plan.parameters, dy), kernels.zeros(plan.parameters, dy)
    result = grads(saved, delivered(dx, out, dy), *sums)
    if signature is not None and isinstance(dy, np.ndarray) and saved.training:
        _calls.keep(signature, prepared.row_backward, dy, saved, threads, out)
    return result


def weight_norm(
    v: Any, g: Any, dim: int | None, out: Any, threads: int | None, *, keep: bool
) -> tuple[Array, Saved[Grads]]:
    """w and what the backward needs; with `keep`, out must leave v alone."""
    options = "weight_norm", keep, dim, type(dim), threads, type(threads), of(out)
    signature, call = find(options, v, g, None)
    if call is not None and (out is None or fit(out, (v,), (v if keep else None, g))):
        return call(v, g, None, out)  # type: ignore[no-any-return]
    v = _arrays.array(v, "v")
    axis = None if dim is None else _validate.axis(dim, v.ndim, "dim", "v")
    plan = weight_plan(v.shape, v.dtype, axis)
    shape = tuple(n if a == axis else 1 for a, n in enumerate(v.shape))
    g = _arrays.array(g, "g")
    g = _validate.parameter(g, "g", shape if g.ndim == v.ndim else (plan.rows,), v)
    _validate.threads(threads, v)
    w, flat = target(plan.layout, v, out, () if keep else (v,), (g, v if keep else None))
    mean, rstd = _group_forward(plan, v, g, None, 0.0, flat, threads, keep=keep)
    if signature is not None and isinstance(v, np.ndarray):
        given = v, g, None, out
        _calls.keep(signature, prepared.row_forward, "weight_norm", plan, given, 0.0, None, keep, threads)
    return delivered(w, out, v), Saved(v, mean, rstd, g, None, True, plan, "weight_norm")


def _samples(x: Any, channel_axis: int, ndim: int) -> tuple[Array, int]:
    """x, with samples on its first axis, and its channel axis."""
    x = _arrays.array(x)
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
    running: Sequence[Array] = (),
    factor: float = 0.0,
    *,
    keep: bool,
) -> tuple[Array, Array]:
    """Write y, and move the running statistics by this factor; mean and rstd, if they are to be kept."""
    kernels = backend(x)
    if not x.size:
        return kernels.zeros(plan.rows, x), kernels.zeros(plan.rows, x)
    statistics: tuple[Array, Array] = kernels.group_forward(
        plan, kernels.flat(plan.layout, x, x), weight, bias, eps, y, threads, activation, running, factor,
        keep=keep,
    )  # fmt: skip
    return statistics
