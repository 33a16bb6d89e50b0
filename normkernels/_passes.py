"""The steps of every pass: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._layout import ChannelPlan, GroupPlan, Layout
from ._plan import channel_plan, group_plan, moments_plan, row_plan, weight_plan
from .results import Array, Grads, Moments, Saved


def row_norm(
    norm: str,
    x: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """Layer norm or RMS norm: y and what the backward needs; with `keep`, out must leave x alone."""
    x = _validate.array(x)
    trailing = _validate.normalized_shape(normalized_shape, x.shape)
    plan = row_plan(x.shape, x.strides, x.dtype, trailing, norm == "layer_norm")
    weight = _validate.parameter(weight, "weight", plan.parameter_shape, x.dtype)
    bias = _validate.parameter(bias, "bias", plan.parameter_shape, x.dtype)
    if eps is None and norm == "rms_norm":
        eps = float(np.finfo(plan.layout.arithmetic).eps)
    eps = _validate.eps(eps)
    _validate.threads(threads)
    y, flat = _target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    if x.size:
        mean, rstd = backend("cpu").row_forward(plan, plan.layout.flat(x), weight, bias, eps, flat, threads)
    else:
        mean = rstd = np.empty(0)
    return _delivered(y, out), Saved(x, mean, rstd, weight, _dtype(bias), True, plan, norm)


def row_norm_backward(norm: str, dy: Any, saved: Saved, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, norm)
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
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """Batch norm, or batch renorm: y and what the backward needs; with `keep`, out must leave x alone."""
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
    _validate.threads(threads)
    if training and plan.count == 1 and x.size:
        raise ValueError(f"x must have more than one value per channel in training, got shape {x.shape}")
    others = (weight, bias, *running, x if keep else None)
    if training:
        _validate.apart(running, (x, weight, bias))
    y, flat = _target(plan.layout, x, out, () if keep else (x,), others)
    renorm = None
    if not training:
        mean, rstd = _given(plan, x, running, weight, bias, eps, flat, threads)
    elif x.size:
        settings = np.array((eps, factor, r_max, d_max))
        mean, rstd, *new, r, d = backend("cpu").channel_forward(
            plan, plan.layout.flat(x), weight, bias, settings, running, flat, threads
        )
        if norm == "batch_renorm":
            renorm = r, d
        _update(running, new)
        if isinstance(num_batches_tracked, np.ndarray):
            num_batches_tracked += 1
    else:
        mean = rstd = np.zeros(c)
    return _delivered(y, out), Saved(x, mean, rstd, weight, _dtype(bias), training, plan, norm, renorm)


def batch_norm_backward(norm: str, dy: Any, saved: Saved, out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, norm)
    _validate.threads(threads)
    plan, x = saved.plan, saved.x
    dx, flat = _target(plan.layout, x, out, (dy, x), (saved.weight,))
    dweight, dbias = _channel_backward(plan, dy, saved, flat, threads)
    if saved.renorm is not None:  # y = (x_hat * r + d) * weight + bias
        r, d = saved.renorm
        dweight = dweight * r + dbias * d
    return _grads(saved, _delivered(dx, out), dweight, dbias)


def _channel_backward(
    plan: ChannelPlan, dy: Array, saved: Saved, dx: Array, threads: int | None
) -> tuple[Array, Array]:
    """Write dx of a norm over channels; dweight, without the r and d of batch renorm, and dbias."""
    x, weight = saved.x, saved.weight
    if not x.size:
        return np.zeros(plan.channels), np.zeros(plan.channels)
    if saved.renorm is not None:
        r = saved.renorm[0]
        weight = r if weight is None else weight.astype(np.float64) * r
    sums: tuple[Array, Array] = backend("cpu").channel_backward(
        plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight,
        saved.training, dx, threads,
    )  # fmt: skip
    return sums


def _given(
    plan: ChannelPlan,
    x: Array,
    running: Sequence[Array],
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
) -> tuple[Array, Array]:
    """Write y with the running statistics; mean and rstd."""
    kernels = backend("cpu")
    mean, var = np.array(running, np.float64)
    rstd = kernels.reciprocal_sd(var, eps)
    if x.size:
        kernels.channel_normalize(plan, plan.layout.flat(x), mean, rstd, weight, bias, y, threads)
    return mean, rstd


def _update(running: Sequence[Array], new: Sequence[Array]) -> None:
    with np.errstate(over="ignore"):  # a variance above the largest float32 is kept as inf
        for statistic, value in zip(running, new, strict=False):
            statistic[:] = value


def group_norm(
    x: Any,
    num_groups: int,
    weight: Any,
    bias: Any,
    eps: float,
    channel_axis: int,
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
    eps = _validate.eps(eps)
    _validate.threads(threads)
    y, flat = _target(plan.layout, x, out, () if keep else (x,), (weight, bias, x if keep else None))
    mean, rstd = _group_forward(plan, x, weight, bias, eps, flat, threads)
    return _delivered(y, out), Saved(x, mean, rstd, weight, _dtype(bias), True, plan, "group_norm")


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
    _validate.threads(threads)
    others = (weight, bias, *running, x if keep else None)
    plan: GroupPlan | ChannelPlan
    if own:
        _validate.apart(running, (x, weight, bias))
        plan = group_plan(x.shape, x.dtype, axis, max(1, c))
        if plan.cols == 1 and x.size:
            raise ValueError(f"x must have more than one value per instance and channel, got shape {x.shape}")
        y, flat = _target(plan.layout, x, out, () if keep else (x,), others)
        mean, rstd = _group_forward(plan, x, weight, bias, eps, flat, threads)
        if x.size and running:
            v = np.divide(1.0, rstd * rstd, out=np.full_like(rstd, eps), where=rstd != 0) - eps
            v *= plan.cols / (plan.cols - 1)
            means = (s.reshape(plan.samples, c).mean(0) for s in (mean, v))
            _update(
                running, [(1 - factor) * old + factor * new for old, new in zip(running, means, strict=True)]
            )
    else:
        plan = channel_plan(x.shape, x.strides, x.dtype, axis)
        y, flat = _target(plan.layout, x, out, () if keep else (x,), others)
        mean, rstd = _given(plan, x, running, weight, bias, eps, flat, threads)
    return _delivered(y, out), Saved(x, mean, rstd, weight, _dtype(bias), own, plan, "instance_norm")


def group_norm_backward(norm: str, dy: Any, saved: Saved, out: Any, threads: int | None) -> Grads:
    """Of group, instance and weight norm."""
    dy = _validate.gradient(dy, saved, norm)
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    dx, flat = _target(plan.layout, x, out, (dy, x), (weight,))
    if not saved.training:
        sums = _channel_backward(plan, dy, saved, flat, threads)
    elif x.size:
        sums = backend("cpu").group_backward(
            plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight, flat, threads
        )
    else:
        sums = np.zeros(plan.parameters), np.zeros(plan.parameters)
    return _grads(saved, _delivered(dx, out), *sums)


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
    w, flat = _target(plan.layout, v, out, () if keep else (v,), (g, v if keep else None))
    mean, rstd = _group_forward(plan, v, g, None, 0.0, flat, threads)
    return _delivered(w, out), Saved(v, mean, rstd, g, None, True, plan, "weight_norm")


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
) -> tuple[Array, Array]:
    if not x.size:
        return np.zeros(plan.rows), np.zeros(plan.rows)
    flat = None if weight is None else weight.reshape(-1)
    statistics: tuple[Array, Array] = backend("cpu").group_forward(
        plan, plan.layout.flat(x), flat, bias, eps, y, threads
    )
    return statistics


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


def _dtype(parameter: Array | None) -> Any:
    return None if parameter is None else parameter.dtype


def _grads(saved: Saved, dx: Array, dweight: Array, dbias: Array) -> Grads:
    weight, bias_dtype = saved.weight, saved.bias_dtype
    with np.errstate(over="ignore"):  # as y and dx become inf without a warning
        return Grads(
            dx,
            None if weight is None else dweight.astype(weight.dtype).reshape(weight.shape),
            None if bias_dtype is None else dbias.astype(bias_dtype),
        )
