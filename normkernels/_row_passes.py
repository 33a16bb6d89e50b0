"""The steps of layer norm and RMS norm: validate, plan, launch, collect."""

from typing import Any, cast

import numpy as np

from . import _arrays, _calls, _validate
from ._calls import find, find_backward, fit, of
from ._dispatch import backend
from ._passes import delivered, grads, target
from ._plan import row_plan
from .cpu import prepared
from .results import Array, G, ResidualGrads, Saved


def row_norm(
    norm: str,
    x: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float | None,
    dim: Any,
    residual: Any,
    sum_out: Any,
    activation: str | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved[Any]]:
    """y and what the backward needs; with `keep`, out must leave that alone."""
    signature = None
    if dim is None and residual is None and sum_out is None:
        shape = normalized_shape if type(normalized_shape) is int else _typed(normalized_shape)
        options = norm, keep, shape, eps, type(eps), activation, threads, type(threads), of(out)
        signature, call = find(options, x, weight, bias)
        if call is not None and (out is None or fit(out, (x,), (x if keep else None, weight, bias))):
            return call(x, weight, bias, out)  # type: ignore[no-any-return]
    x = _arrays.array(x)
    axes = _validate.normalized_axes(normalized_shape, dim, x.shape)
    plan = row_plan(x.shape, x.strides, x.dtype, axes, norm == "layer_norm")
    if axes != tuple(range(x.ndim - len(axes), x.ndim)):
        _validate.last_in_memory(dim, plan.inner, plan.layout.order, x)
    weight = _validate.parameter(weight, "weight", plan.parameter_shape, x)
    bias = _validate.parameter(bias, "bias", plan.parameter_shape, x)
    if eps is None and norm == "rms_norm":
        eps = float(np.finfo(plan.layout.arithmetic).eps)
    eps = _validate.eps(eps)
    activation = _validate.activation(activation)
    _validate.threads(threads, x)
    kernels = backend(x)
    same: tuple[Array, ...] = (x,)
    read: tuple[Array | None, ...] = (weight, bias)
    h, flat_residual, flat_sum = x, None, None
    if residual is not None:
        residual = _validate.beside(residual, "residual", x)
        same, flat_residual = (x, residual), kernels.flat(plan.layout, residual, x)
    elif sum_out is not None:
        raise ValueError("sum_out must be None without a residual, got an array")
    elif keep:
        same, read = (), (weight, bias, x)
    y, flat = target(plan.layout, x, out, same, read)
    if residual is not None and (keep or sum_out is not None):
        seen = None if out is None else _arrays.array(out, "out", written=True)
        h, flat_sum = target(plan.layout, x, sum_out, same, (*read, seen), "sum_out")
    if x.size:
        mean, rstd = kernels.row_forward(
            plan,
            kernels.flat(plan.layout, x, x),
            weight,
            bias,
            eps,
            flat,
            threads,
            activation,
            flat_residual,
            flat_sum,
            keep=keep,
        )
    else:
        mean = rstd = kernels.zeros(plan.rows, x)
    summed = residual is not None
    if summed:
        h = _arrays.array(delivered(h, sum_out, x), "sum_out")
    saved = Saved(h, mean, rstd, weight, bias, True, plan, norm, activation, None, summed)
    if signature is not None and isinstance(x, np.ndarray):
        given = x, weight, bias, out
        _calls.keep(signature, prepared.row_forward, norm, plan, given, eps, activation, keep, threads)
    return delivered(y, out, x), saved


def _typed(shape: Any) -> Any:
    """A shape as a part of a signature: with the types of its numbers, because 4.0 equals 4."""
    return (shape, *map(type, shape)) if type(shape) is tuple else []


def row_norm_backward(norm: str, dy: Any, saved: Saved[G], dsum: Any, out: Any, threads: int | None) -> G:
    signature, call = (None, None) if dsum is not None else find_backward(norm, dy, saved, out, threads)
    if call is not None:
        return call(dy, saved, out)  # type: ignore[no-any-return]
    dy = _validate.gradient_of_groups(dy, saved, norm)
    _validate.threads(threads, dy)
    plan, x, weight, kernels = saved.plan, saved.x, saved.weight, backend(dy)
    same: tuple[Array, ...] = (dy, x)
    flat_dsum = None
    if dsum is not None:
        dsum = _validate.beside(dsum, "dsum", dy)
        same, flat_dsum = (dy, x, dsum), kernels.flat(plan.layout, dsum, dy)
    dx, flat = target(plan.layout, dy, out, same, (weight, saved.bias))
    if x.size:
        sums = kernels.row_backward(
            plan, kernels.flat(plan.layout, dy, dy), kernels.flat(plan.layout, x, dy), saved.mean,
            saved.rstd, weight, saved.bias, flat, threads, saved.activation, flat_dsum,
        )  # fmt: skip
    else:
        sums = kernels.zeros(plan.cols, dy), kernels.zeros(plan.cols, dy)
    dx = delivered(dx, out, dy)
    result = grads(saved, dx, *sums)
    if signature is not None and isinstance(dy, np.ndarray) and not saved.summed:
        _calls.keep(signature, prepared.row_backward, dy, saved, threads, out)
    return cast("G", ResidualGrads(*result, dx) if saved.summed else result)
