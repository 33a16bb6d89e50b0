"""PyTorch's function of each norm and of each backward, on the data of a case."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..cases import Case
from ..inputs import Inputs
from ..timing import Contender

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Pairs = list[tuple[torch.Tensor, torch.Tensor]]
"""x and dy of every set of tensors."""

EPS = 1e-5
MOMENTUM = 0.1


def tensors(case: Case, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """The same data as tensors, NCHW in PyTorch's own sense."""
    arguments = {k: _tensor(a) if hasattr(a, "dtype") else a for k, a in inputs.arguments.items()}
    x, dy = (_tensor(a) for a in (inputs.x, inputs.dy))
    if case.layout == "channels_last":
        x, dy = x.movedim(-1, 1), dy.movedim(-1, 1)
    return x, dy, arguments


def _tensor(array: Any) -> torch.Tensor:
    """The same memory, of the host or of a device."""
    return torch.from_numpy(array) if isinstance(array, np.ndarray) else torch.from_dlpack(array)


def _over(a: dict[str, Any], norm: Callable[..., Any]) -> Callable[..., Any]:
    """A norm over the last axis, or, as models do it, over one that is moved there and back."""
    if "dim" not in a:
        return norm
    return lambda x, *call: norm(x.movedim(a["dim"], -1), *call).movedim(-1, a["dim"])


def _layer_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    call = list(a["normalized_shape"]), a["weight"], a["bias"], EPS
    return _over(a, torch.nn.functional.layer_norm), call


def _batch_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    running, affine = (a["running_mean"], a["running_var"]), (a["weight"], a["bias"])
    return torch.nn.functional.batch_norm, (*running, *affine, a.get("training", True), MOMENTUM, EPS)


def _rms_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    call = list(a["normalized_shape"]), a["weight"], a["eps"]
    return _over(a, torch.nn.functional.rms_norm), call


def _group_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    return torch.nn.functional.group_norm, (a["num_groups"], a["weight"], a["bias"], EPS)


def _instance_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    _, call = _batch_norm(x, a)
    return torch.nn.functional.instance_norm, call


def _weight_norm(v: torch.Tensor, a: dict[str, Any]) -> Call:
    """The fused function behind torch.nn.utils.weight_norm."""
    return torch._weight_norm, (a["g"].reshape(-1, *[1] * (v.ndim - 1)), 0)


def _local_response_norm(x: torch.Tensor, a: dict[str, Any]) -> Call:
    return torch.nn.functional.local_response_norm, (a["size"],)


# The function of a norm, and what it takes after x.
CALLS: dict[str, Callable[[torch.Tensor, dict[str, Any]], Call]] = {
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "local_response_norm": _local_response_norm,
    "rms_norm": _rms_norm,
    "weight_norm": _weight_norm,
}


def through_autograd(
    op: str, pairs: Pairs, a: dict[str, Any], wrapped: Callable[[Any], Any] = lambda function: function
) -> Contender:
    """The backward as autograd puts it together, of the function as `wrapped` returns it."""
    parameters = [a[name].requires_grad_() for name in ("weight", "bias", "g") if name in a]
    arguments = []
    with torch.enable_grad():
        function, call = CALLS[op](pairs[0][0], a)
        function = wrapped(function)
        for x, dy in pairs:
            y = function(x.requires_grad_(), *call)
            arguments.append((y, (x, *parameters), dy, True))
    return Contender(torch.autograd.grad, arguments, {})


def _layer_norm_backward(pairs: Pairs, a: dict[str, Any]) -> Contender:
    arguments = []
    for x, dy in pairs:
        shape = list(x.shape[-1:])
        _, mean, rstd = torch.native_layer_norm(x, shape, a["weight"], a["bias"], EPS)
        arguments.append((dy, x, shape, mean, rstd, a["weight"], a["bias"], [True] * 3))
    return Contender(torch.ops.aten.native_layer_norm_backward, arguments, {})


def _batch_norm_backward(pairs: Pairs, a: dict[str, Any]) -> Contender:
    running, affine = (a["running_mean"], a["running_var"]), (a["weight"], a["bias"])
    arguments = []
    for x, dy in pairs:
        _, mean, rstd = torch.native_batch_norm(x, *affine, *running, True, MOMENTUM, EPS)
        arguments.append((dy, x, a["weight"], *running, mean, rstd, True, EPS, [True] * 3))
    return Contender(torch.ops.aten.native_batch_norm_backward, arguments, {})


def _group_norm_backward(pairs: Pairs, a: dict[str, Any]) -> Contender:
    arguments = []
    for x, dy in pairs:
        shape = (x.shape[0], x.shape[1], x[0, 0].numel(), a["num_groups"])
        _, mean, rstd = torch.native_group_norm(x, a["weight"], a["bias"], *shape, EPS)
        arguments.append((dy, x, mean, rstd, a["weight"], *shape, [True] * 3))
    return Contender(torch.ops.aten.native_group_norm_backward, arguments, {})


def _instance_norm_backward(pairs: Pairs, a: dict[str, Any]) -> Contender:
    """That of batch norm of a (1, N * C, ...) view, which instance norm is."""
    like = pairs[0][0]
    n, shape = len(like), (1, -1, *like.shape[2:])
    views = [(x.reshape(shape), dy.reshape(shape)) for x, dy in pairs]
    names = ("running_mean", "running_var", "weight", "bias")
    inner = _batch_norm_backward(views, {name: a[name].repeat(n) for name in names})

    def backward(*call: Any) -> tuple[torch.Tensor, ...]:
        dx, *sums = torch.ops.aten.native_batch_norm_backward(*call)
        return dx.reshape(like.shape), *(s.reshape(n, -1).sum(0) for s in sums)

    return Contender(backward, inner.arguments, {})


def _weight_norm_backward(pairs: Pairs, a: dict[str, Any]) -> Contender:
    arguments = []
    for v, dw in pairs:
        g = a["g"].reshape(-1, *[1] * (v.ndim - 1))
        _, norms = torch.ops.aten._weight_norm_interface(v, g, 0)
        arguments.append((dw, v, g, norms, 0))
    return Contender(torch.ops.aten._weight_norm_interface_backward, arguments, {})


BACKWARDS: dict[str, Callable[[Pairs, dict[str, Any]], Contender]] = {
    "batch_norm": _batch_norm_backward,
    "group_norm": _group_norm_backward,
    "instance_norm": _instance_norm_backward,
    "layer_norm": _layer_norm_backward,
    "weight_norm": _weight_norm_backward,
}


def copies(tensor: torch.Tensor, slots: int) -> list[torch.Tensor]:
    """A tensor, and copies of it."""
    return [tensor, *(tensor.clone() for _ in range(slots - 1))]
