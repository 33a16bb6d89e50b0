"""Norms of tensors, with autograd.

A call has a norm of `NORMS`, its options, and six tensors, of which all but x may be None: x, weight, bias,
residual, running_mean and running_var.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..norms import NORMS
from ..results import Saved
from ._operators import by_operator, moves
from ._recalled import Again, keep, key_of, recall
from ._tensors import MaybeTensor, arguments, array, output, tensor, threads

Options = dict[str, Any]

_PASSES = {name: spec.kernels for name, spec in NORMS.items()}
_PLAIN = Tensor, torch.nn.Parameter
_RECALLED = "layer_norm", "rms_norm", "group_norm", "instance_norm", "batch_norm"


def normalize(
    norm: str, options: Options, x: Tensor, weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
    running_mean: MaybeTensor, running_var: MaybeTensor,
) -> Tensor:  # fmt: skip
    """y of one call, whose gradient autograd knows; running statistics are updated in place.

    Where somebody wants operators of PyTorch instead of results, it is one. Else the kernels are called at
    once: PyTorch takes 60 µs to call an operator written in Python.
    """
    others = weight, bias, residual, running_mean, running_var
    if _is_traced():
        return by_operator(norm, options, x, *others)
    followed, key = _is_followed(x, *others), None
    if residual is None and norm in _RECALLED and type(x) in _PLAIN and x.is_cpu:
        key = key_of(norm, options, followed, x, weight, bias, running_mean, running_var)
        layer = recall(key, x)
        if layer is not None:
            y = Again.apply(layer, x, weight, bias) if followed else tensor(layer.forward(array(x))[0])
            if layer.moved:
                _say_changed(options, others)
            return y
    if not all(t is None or _seen(t) for t in (x, *others)):
        return by_operator(norm, options, x, *others)
    if followed:
        y = _Norm.apply(norm, options, x, *others)
    else:
        y = tensor(_PASSES[norm].call(array(x), **arguments(options, *others), out=_out(norm, options, x)))
        _say_changed(options, others)
    if key is not None and (x.is_contiguous() or "dim" not in options):
        keep(key, norm, options, followed, x, weight, bias, running_mean, running_var)
    return y


def _is_followed(x: Tensor, *given: MaybeTensor) -> bool:
    """Whether autograd takes part, backwards, or forwards, which `_Norm` refuses."""
    if torch.is_grad_enabled() and (x.requires_grad or any(t is not None and t.requires_grad for t in given)):
        return True
    return torch.autograd.forward_ad._current_level >= 0


def _seen(t: Tensor) -> bool:
    """Whether a tensor has data that kernels can see."""
    return type(t) in _PLAIN and not t.is_meta


def _is_traced() -> bool:
    """Whether a compiler, a trace or a transform is at work."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
        or torch._C._get_tracing_state() is not None
    )


def _out(norm: str, options: Options, x: Tensor) -> Any:
    """Where y is to lie if x is not in C order."""
    return None if x.is_contiguous() else array(output(norm, options, x))


def _say_changed(options: Options, others: tuple[MaybeTensor, ...]) -> None:
    """Tell autograd, which may have kept them, that running statistics have changed."""
    if moves(options):
        for statistic in others[3:]:
            if statistic is not None:
                torch.autograd.graph.increment_version(statistic)


class _Norm(torch.autograd.Function):
    """A call with a gradient."""

    @staticmethod
    def forward(ctx: Any, norm: str, options: Options, x: Tensor, *others: MaybeTensor) -> Tensor:
        y, saved = _PASSES[norm].forward(array(x), **arguments(options, *others), out=_out(norm, options, x))
        _say_changed(options, others)
        weight, bias, residual, *_ = others
        h = tensor(saved.x) if saved.summed else x
        # Without an activation the gradient of a residual after the norm is dy.
        needed = None if saved.summed or saved.activation is None else residual
        ctx.save_for_backward(h, weight, bias, needed)
        ctx.added = residual is not None and not saved.summed
        ctx.kept = saved[1:3], saved[5:9], saved[10:]
        return tensor(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        return _differentiable_once(ctx, dy) if torch.is_grad_enabled() else _gradients(ctx, dy)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    h, weight, bias, residual = map(array, ctx.saved_tensors)
    statistics, how, more = ctx.kept
    saved: Saved[Any] = Saved(*(h, *statistics, weight, bias, *how, residual, *more))
    grads = _PASSES[how[2]].backward(array(dy), saved, threads=threads())
    dx, dweight, dbias = (None if g is None else tensor(g) for g in grads[:3])
    # One memory is to be one tensor, or autograd would add to it twice.
    dresidual = dx if saved.summed else dy if ctx.added else None
    if residual is not None:
        dresidual = tensor(grads[3])
    return None, None, dx, dweight, dbias, dresidual, None, None


# It makes a graph for errors, which takes 5 µs where no graph of the gradient is asked for either.
_differentiable_once = once_differentiable(_gradients)
