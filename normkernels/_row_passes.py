"""The steps of layer norm and RMS norm: validate, plan, launch, collect."""

from typing import Any

import numpy as np

from . import _validate
from ._dispatch import backend
from ._passes import delivered, grads, target
from ._plan import row_plan
from .results import Array, Grads, ResidualGrads, Saved


def row_norm(
    norm: str,
    x: Any,
    normalized_shape: Any,
    weight: Any,
    bias: Any,
    eps: float | None,
    residual: Any,
    sum_out: Any,
    activation: str | None,
    out: Any,
    threads: int | None,
    *,
    keep: bool,
) -> tuple[Array, Saved]:
    """y and what the backward needs; with `keep`, out must leave that alone."""
    x = _validate.array(x)
    trailing = _validate.normalized_shape(normalized_shape, x.shape)
    plan = row_plan(x.shape, x.strides, x.dtype, trailing, norm == "layer_norm")
    weight = _validate.parameter(weight, "weight", plan.parameter_shape, x.dtype)
    bias = _validate.parameter(bias, "bias", plan.parameter_shape, x.dtype)
    if eps is None and norm == "rms_norm":
        eps = float(np.finfo(plan.layout.arithmetic).eps)
    eps = _validate.eps(eps)
    activation = _validate.activation(activation)
    _validate.threads(threads)
    if residual is None and sum_out is not None:
        raise ValueError("sum_out must be None without a residual, got an array")
    inputs, parameters = [x], [weight, bias]
    if residual is not None:
        residual = _validate.beside(residual, "residual", x)
        inputs.append(residual)
    held = keep and residual is None
    y, flat = target(plan.layout, x, out, [] if held else inputs, [*parameters, x if held else None])
    h, flat_sum = x, None
    if residual is not None and (keep or sum_out is not None):
        h, flat_sum = target(plan.layout, x, sum_out, inputs, [*parameters, out], "sum_out")
    if x.size:
        mean, rstd = backend("cpu").row_forward(
            plan, plan.layout.flat(x), weight, bias, eps, flat, threads, activation,
            None if residual is None else plan.layout.flat(residual), flat_sum,
        )  # fmt: skip
    else:
        mean = rstd = np.empty(0)
    h = delivered(h, sum_out)
    saved = Saved(h, mean, rstd, weight, bias, True, plan, norm, activation, summed=residual is not None)
    return delivered(y, out), saved


def row_norm_backward(
    norm: str, dy: Any, saved: Saved, dsum: Any, out: Any, threads: int | None
) -> Grads | ResidualGrads:
    dy = _validate.gradient(dy, saved, norm)
    _validate.threads(threads)
    plan, x, weight = saved.plan, saved.x, saved.weight
    inputs = [dy, x]
    if dsum is not None:
        dsum = _validate.beside(dsum, "dsum", x)
        inputs.append(dsum)
    dx, flat = target(plan.layout, x, out, inputs, (weight, saved.bias))
    if x.size:
        sums = backend("cpu").row_backward(
            plan, plan.layout.flat(dy), plan.layout.flat(x), saved.mean, saved.rstd, weight, saved.bias,
            flat, threads, saved.activation, None if dsum is None else plan.layout.flat(dsum),
        )  # fmt: skip
    else:
        sums = np.zeros((2, plan.cols))
    dx = delivered(dx, out)
    dweight, dbias = (s.reshape(plan.parameter_shape) for s in sums)
    result = grads(saved, dx, dweight, dbias)
    return ResidualGrads(*result, dx) if saved.summed else result
