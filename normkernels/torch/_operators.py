"""Norms as operators of PyTorch, for what compiles, exports, traces or transforms: `norm` and its gradient.

The options of a norm are JSON in a string. Operators change nothing in place.
"""

import json
import math
from typing import Any

import torch
from torch import Tensor

from .._local_response import LocalResponsePlan
from .._plan import channel_plan, group_plan, row_plan
from .._validate import normalized_axes
from ..norms import NORMS
from ..results import Array, Saved
from ._tensors import MaybeTensor, arguments, array, output, tensor, threads


def _encoded(options: dict[str, Any]) -> str:
    return json.dumps(options)


# As `torch.compiler.assume_constant_result` marks it, which takes a second to import.
_encoded._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _decoded(options: str) -> dict[str, Any]:
    chosen: dict[str, Any] = json.loads(options)
    if "normalized_shape" in chosen:
        chosen["normalized_shape"] = tuple(chosen["normalized_shape"])
    return chosen


def moves(options: dict[str, Any]) -> bool:
    """Whether a call moves running statistics."""
    return bool(options.get("training") or options.get("use_input_stats"))


def by_operator(norm: str, options: dict[str, Any], x: Tensor, *others: MaybeTensor) -> Tensor:
    """y of one call; running statistics are updated in place."""
    devices = {t.device.type: None for t in (x, *others) if t is not None}
    if len(devices) > 1:
        raise ValueError(f"tensors must lie on one device, got {' and '.join(devices)}")
    call = _Transformed.apply if _is_transformed() else torch.ops.normkernels.norm
    y, *_, mean, var = call(norm, _encoded(options), x, *others)
    running_mean, running_var = others[3], others[4]
    if running_mean is not None and running_var is not None and moves(options):
        running_mean.copy_(mean.detach())
        running_var.copy_(var.detach())
    return y


@torch.library.custom_op("normkernels::norm", mutates_args=())
def norm_operator(
    norm: str, options: str, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
    running_mean: MaybeTensor, running_var: MaybeTensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y, x + residual, mean, rstd, r and d, and new running statistics; empty where there are none."""
    chosen = _decoded(options)
    running = [None if s is None else s.clone() for s in (running_mean, running_var)]
    y, h = output(norm, chosen, x), x.new_empty(0)
    if _is_summed(norm, residual):
        h = torch.empty_like(x)
        chosen["sum_out"] = array(h)
    given = arguments(chosen, weight, bias, residual, *running)
    _, saved = NORMS[norm].kernels.forward(array(x), **given, out=array(y))
    found = [tensor(s) for s in (saved.mean, saved.rstd, *(saved.renorm or ()))]
    found += [_nothing(x) for _ in range(4 - len(found))]
    return y, h, *found, *(_nothing(x) if s is None else s for s in running)


def _nothing(x: Tensor) -> Tensor:
    """For what a call does not have: no elements."""
    return x.new_empty(0)


def _is_summed(norm: str, residual: MaybeTensor) -> bool:
    """Whether the sum of x and a residual is normalized."""
    return residual is not None and NORMS[norm].residual == "before"


@norm_operator.register_fake
def _norm_shapes(
    norm: str, options: str, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
    running_mean: MaybeTensor, running_var: MaybeTensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    chosen = _decoded(options)
    h = torch.empty_like(x) if _is_summed(norm, residual) else _nothing(x)
    statistics = x.new_empty(2, _groups(norm, chosen, x), dtype=torch.float64).unbind()
    renormed = norm == "batch_renorm" and chosen["training"]
    clipped = [torch.empty_like(statistics[0]) if renormed else _nothing(x) for _ in range(2)]
    running = (_nothing(x) if s is None else torch.empty_like(s) for s in (running_mean, running_var))
    return output(norm, chosen, x), h, *(s.clone() for s in statistics), *clipped, *running


def _groups(norm: str, options: dict[str, Any], x: Tensor) -> int:
    """How many groups of elements have statistics of their own."""
    if NORMS[norm].family == "rows":
        return math.prod(x.shape) // math.prod(options["normalized_shape"])
    if NORMS[norm].family == "windows":
        return 0
    if norm == "group_norm":
        return x.shape[0] * int(options["num_groups"])
    return x.shape[1] * (x.shape[0] if options.get("use_input_stats") else 1)


def plan_of(norm: str, options: dict[str, Any], x: Array) -> Any:
    """The plan of a forward pass."""
    shape, strides, dtype = x.shape, x.strides, x.dtype
    if NORMS[norm].family == "rows":
        axes = normalized_axes(options["normalized_shape"], options["dim"], shape)
        return row_plan(shape, strides, dtype, axes, NORMS[norm].centred)
    if norm == "group_norm":
        return group_plan(shape, dtype, 1, options["num_groups"])
    if options.get("use_input_stats"):
        return group_plan(shape, dtype, 1, max(1, shape[1]))
    channels = channel_plan(shape, strides, dtype, 1)
    if NORMS[norm].family == "windows":
        return LocalResponsePlan(channels, *(options[name] for name in ("size", "alpha", "beta", "k")))
    return channels


@torch.library.custom_op("normkernels::norm_backward", mutates_args=())
def backward_operator(
    norm: str, options: str, dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, r: Tensor, d: Tensor,
    weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dx, dweight, dbias, and dresidual of a residual that is given; x: what was normalized."""
    chosen = _decoded(options)
    training = chosen.get("training", chosen.get("use_input_stats", True))
    plan, renorm = plan_of(norm, chosen, array(x)), (array(r), array(d)) if r.numel() else None
    saved: Saved[Any] = Saved(
        array(x), array(mean), array(rstd), array(weight), array(bias), training, plan, norm,
        chosen.get("activation"), array(residual), renorm=renorm,
    )  # fmt: skip
    dx = torch.empty_like(x)
    _, *found = NORMS[norm].kernels.backward(array(dy), saved, out=array(dx), threads=threads())
    grads = [_nothing(x) if g is None else tensor(g) for g in found]
    return dx, *grads, *(_nothing(x) for _ in range(3 - len(grads)))


@backward_operator.register_fake
def _backward_shapes(
    norm: str, options: str, dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, r: Tensor, d: Tensor,
    weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
) -> tuple[Tensor, ...]:  # fmt: skip
    return torch.empty_like(x), *(
        _nothing(x) if t is None else torch.empty_like(t) for t in (weight, bias, residual)
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    norm, options, x, weight, bias, residual, *_ = inputs
    _, h, mean, rstd, r, d, *_ = output
    ctx.norm, ctx.options = norm, options
    ctx.summed, ctx.added = _is_summed(norm, residual), residual is not None
    # Without an activation its gradient is dy.
    needed = residual if not ctx.summed and _decoded(options).get("activation") is not None else None
    ctx.save_for_backward(h if ctx.summed else x, mean, rstd, r, d, weight, bias, needed)


def _gradient(ctx: Any, dy: Tensor, *_: Any) -> tuple[Any, ...]:
    x, mean, rstd, r, d, weight, bias, residual = ctx.saved_tensors
    call = _TransformedGradient.apply if _is_transformed() else torch.ops.normkernels.norm_backward
    dx, dweight, dbias, dresidual = call(
        ctx.norm, ctx.options, dy, x, mean, rstd, r, d, weight, bias, residual
    )
    if residual is None:
        dresidual = dx if ctx.summed else dy
    return (
        None, None, dx, None if weight is None else dweight, None if bias is None else dbias,
        dresidual if ctx.added else None, None, None,
    )  # fmt: skip


def _no_second_gradient(ctx: Any, *_: Any) -> None:
    raise RuntimeError("norms of normkernels have first derivatives only, got a gradient of a gradient")


norm_operator.register_autograd(_gradient, setup_context=_remember)
backward_operator.register_autograd(_no_second_gradient)


def _one_by_one(operator: Any) -> Any:
    """A rule for `torch.vmap`: one call for each example, because kernels have no axis for them."""

    def rule(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        calls = [
            operator(
                *(a if axis is None else a.select(axis, i) for a, axis in zip(args, in_dims, strict=True))
            )
            for i in range(info.batch_size)
        ]
        stacked = tuple(torch.stack(results) for results in zip(*calls, strict=True))
        return stacked, (0,) * len(stacked)

    return rule


norm_operator.register_vmap(_one_by_one(norm_operator))
backward_operator.register_vmap(_one_by_one(backward_operator))


def _is_transformed() -> bool:
    """Whether `torch.func.grad` and the like are at work, which do not take the autograd of operators."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


class _Transformed(torch.autograd.Function):
    """The operator for transforms."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> Any:
        return torch.ops.normkernels.norm(*args)

    setup_context = staticmethod(_remember)
    backward = staticmethod(_gradient)


class _TransformedGradient(torch.autograd.Function):
    """The operator of the gradient for transforms, which differentiate it in any case."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*args: Any) -> Any:
        return torch.ops.normkernels.norm_backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is kept."""

    backward = staticmethod(_no_second_gradient)
