"""The steps of the norms over channels: validate, plan, launch, collect."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from . import _arrays, _calls, _validate
from ._calls import apart, find, find_backward, fit, of
from ._dispatch import backend
from ._layout import ChannelPlan
from ._passes import delivered, grads, target
from ._plan import channel_plan
from .cpu import prepared
from .results import Array, G, Grads, ResidualGrads, Saved


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
) -> tuple[Array, Saved[Any]]:
    """Batch norm, or batch renorm: y and what the backward needs; with `keep`, out must leave that alone."""
    signature = None
    plain = type(training) is bool and type(channel_axis) is int
    if plain and residual is None and num_batches_tracked is None and norm == "batch_norm":
        options = (
            keep, training, momentum, type(momentum), eps, type(eps), channel_axis, activation, threads,
            type(threads), of(running_mean), of(running_var), of(out),
        )  # fmt: skip
        signature, call = find(options, x, weight, bias)
        if call is not None and (
            (out is None or fit(out, (x,), (x if keep else None, weight, bias, running_mean, running_var)))
            and (not training or apart(running_mean, running_var, x, weight, bias))
            and (not training or apart(running_var, x, weight, bias))
        ):
            return call(x, weight, bias, running_mean, running_var, out)  # type: ignore[no-any-return]
    x = _arrays.array(x)
    training = _validate.flag(training, "training")
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, batch and channels, got {x.ndim}")
    plan = channel_plan(x.shape, x.strides, x.dtype, _validate.axis(channel_axis, x.ndim, "channel_axis"))
    c = plan.channels
    weight = _validate.parameter(weight, "weight", (c,), x)
    bias = _validate.parameter(bias, "bias", (c,), x)
    running = _validate.statistics(running_mean, running_var, c, training, x, needed=norm == "batch_renorm")
    factor, counter = _validate.averaging(momentum, num_batches_tracked, training)
    eps = _validate.eps(eps)
    if norm == "batch_renorm":
        r_max, d_max = _validate.r_max(r_max), _validate.d_max(d_max)
    activation = _validate.activation(activation)
    inputs: tuple[Array, ...] = (x,)
    if residual is not None:
        residual = _validate.beside(residual, "residual", x)
        inputs = x, residual
    _validate.threads(threads, x)
    if training and plan.count == 1 and x.size:
        raise ValueError(f"x must have more than one value per channel in training, got shape {x.shape}")
    others = (weight, bias, *running, *(inputs if keep else ()))
    if training:
        _validate.apart(running, (*inputs, weight, bias))
    y, flat = target(plan.layout, x, out, () if keep else inputs, others)
    kernels, renorm = backend(x), None
    if not training:
        mean, rstd = normalized(plan, x, running, weight, bias, eps, flat, threads, activation, residual)
    elif x.size:
        limits = (r_max, d_max) if norm == "batch_renorm" else None
        mean, rstd, renorm = kernels.channel_forward(
            plan, kernels.flat(plan.layout, x, x), weight, bias, eps, running, factor, limits, flat, threads,
            activation, None if residual is None else kernels.flat(plan.layout, residual, x),
        )  # fmt: skip
        if counter is not None:
            counter += 1
    else:
        mean = rstd = kernels.zeros(c, x)
    saved = Saved(x, mean, rstd, weight, bias, training, plan, norm, activation, residual, renorm=renorm)
    if signature is not None and isinstance(x, np.ndarray) and x.size:
        _calls.keep(signature, _prepared_forward, saved, running, eps, factor, keep, threads, out)
    return delivered(y, out, x), saved


def _prepared_forward(
    saved: Saved[Any],
    running: Sequence[Array],
    eps: float,
    factor: float,
    keep: bool,
    threads: int | None,
    out: Any,
) -> _calls.Call | None:
    """(x, weight, bias, running_mean, running_var, out) to what `batch_norm` gives for such arrays."""
    x, _, _, weight, bias, training, plan, norm, activation, *_ = saved
    both = (running[0], running[1]) if running else (None, None)
    forward = prepared.channel_forward(
        plan, x, weight, bias, both, training, eps, factor, activation, threads, out
    )
    if forward is None or not keep:
        return forward

    def call(x: Array, weight: Any, bias: Any, running_mean: Any, running_var: Any, out: Any) -> Any:
        y, statistics = forward(x, weight, bias, running_mean, running_var, out)
        return y, Saved(x, statistics[0], statistics[1], weight, bias, training, plan, norm, activation)

    return call


def batch_norm_backward(norm: str, dy: Any, saved: Saved[G], out: Any, threads: int | None) -> G:
    signature, call = find_backward(norm, dy, saved, out, threads)  # none with a residual, or r and d
    if call is not None:
        return call(dy, saved, out)  # type: ignore[no-any-return]
    dy = _validate.gradient_of_groups(dy, saved, norm)
    _validate.threads(threads, dy)
    plan, residual, kernels = saved.plan, saved.residual, backend(dy)
    others = (saved.weight, saved.bias, None if saved.activation is None else residual)
    dx, flat = target(plan.layout, dy, out, (dy, saved.x), others)
    dresidual = flat_dresidual = None
    if residual is not None and saved.activation is not None:
        dresidual, flat_dresidual = kernels.empty(plan.layout, dy)
    elif residual is not None:
        lost = out is not None and _arrays.overlap(dy, _arrays.array(out, "out", written=True))
        dresidual = kernels.copy(dy) if lost else dy
    dweight, dbias = channel_backward(plan, dy, saved, flat, threads, flat_dresidual)
    result = grads(saved, delivered(dx, out, dy), dweight, dbias)
    if signature is not None and isinstance(dy, np.ndarray) and dy.size:
        _calls.keep(signature, prepared_backward, dy, saved, threads, out)
    return cast("G", result if dresidual is None else ResidualGrads(*result, dresidual))


def prepared_backward(dy: Array, saved: Saved[Any], threads: int | None, out: Any) -> _calls.Call | None:
    """(dy, saved, out) to what `batch_norm_backward` gives, for arrays such as these."""
    x, _, _, weight, bias, training, plan, _, activation, *_ = saved
    backward = prepared.channel_backward(plan, dy, x, weight, bias, training, activation, threads, out)
    if backward is None:
        return None

    def call(dy: Array, saved: Saved[Any], out: Array | None) -> Grads:
        x, mean, rstd, weight, bias, *_ = saved
        dx, dweight, dbias = backward(dy, x, mean, rstd, weight, bias, out)
        return Grads(dx, None if weight is None else dweight, None if bias is None else dbias)

    return call


def channel_backward(
    plan: ChannelPlan,
    dy: Array,
    saved: Saved[Any],
    dx: Array,
    threads: int | None,
    dresidual: Array | None = None,
) -> tuple[Array, Array]:
    """Write dx and dresidual; dweight and dbias."""
    kernels, residual = backend(dy), None
    if not dy.size:
        return kernels.zeros(plan.channels, dy), kernels.zeros(plan.channels, dy)
    if saved.activation is not None and saved.residual is not None:
        residual = kernels.flat(plan.layout, saved.residual, dy)
    sums: tuple[Array, Array] = kernels.channel_backward(
        plan, kernels.flat(plan.layout, dy, dy), kernels.flat(plan.layout, saved.x, dy), saved.mean,
        saved.rstd, saved.weight, saved.bias, saved.renorm, saved.training, dx, threads, saved.activation,
        residual, dresidual,
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
    kernels = backend(x)
    statistics: tuple[Array, Array] = kernels.channel_normalize(
        plan, kernels.flat(plan.layout, x, x), weight, bias, eps, running, y, threads, activation,
        None if residual is None else kernels.flat(plan.layout, residual, x),
    )  # fmt: skip
    return statistics
