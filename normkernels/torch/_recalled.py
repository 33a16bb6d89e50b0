"""Layers that are called again and again: a call is prepared once for each layer and shape of x.

What is kept of a layer goes when its parameters go.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._calls import apart, room
from .._channel_passes import prepared_backward
from .._layout import ChannelPlan
from ..cpu import prepared
from ..norms import NORMS
from ..results import Array, Saved
from ._operators import moves, plan_of
from ._tensors import MaybeTensor, array, tensor, threads

Options = dict[str, Any]
Backward = Callable[[Array, Saved[Any], None], Any]
# Layers and shapes of inputs that are kept at most.
LIMIT = 4096


@dataclass(slots=True, eq=False)
class Layer:
    """A norm and its parameters, for inputs of one shape."""

    forward: Callable[[Array], tuple[Array, Any]]
    """x to y and, where a gradient is wanted, mean and rstd; running statistics are updated."""
    backward: Backward | None
    """(dy, saved, None) to the gradients; None until there has been a dy that is like x."""
    settled: tuple[Any, ...]
    """training, plan, norm and activation, as `Saved` has them."""
    lies: tuple[Any, Any]
    """The dtype of x, and how it lies in memory."""
    nbytes: int
    """Of x."""
    tensors: list[tuple[Any, int]]
    """References to parameters and statistics, and where they lay."""
    moved: list[tuple[int, int]]
    """Where running statistics begin and end, if they are updated."""
    parameters: tuple[Array | None, Array | None]
    """weight and bias."""


_known: dict[Any, Layer | None] = {}
"""None where calls cannot be prepared."""
_once: dict[Any, None] = {}


def _lies(t: Tensor) -> Any:
    return t.dtype, t.is_contiguous() or t.stride()


def key_of(norm: str, options: Options, followed: bool, x: Tensor, *others: MaybeTensor) -> Any:
    """All that such a call depends on, but where its parameters lie; followed: whether by autograd."""
    how = norm, followed, *options.values(), x.shape, _lies(x), torch.get_num_threads()
    return *how, *map(id, others)


def recall(key: Any, x: Tensor) -> Layer | None:
    """The layer, if one is kept whose parameters lie where they lay, and whose statistics x leaves alone."""
    layer = _known.get(key)
    if layer is None:
        return None
    for reference, address in layer.tensors:
        t = reference()
        if t is None or t.data_ptr() != address:
            return None
    if layer.moved:
        first = x.data_ptr()
        for begin, end in layer.moved:
            if first < end and begin < first + layer.nbytes:
                return None
    return layer


def keep(
    key: Any, norm: str, options: Options, followed: bool, x: Tensor, weight: MaybeTensor, bias: MaybeTensor,
    running_mean: MaybeTensor, running_var: MaybeTensor,
) -> None:  # fmt: skip
    """Prepare for the next call, when one has come a second time and kernels can be called at once."""
    if _known.get(key, key) is None:
        return
    if key not in _once:
        room(_once, LIMIT)[key] = None
        return
    _once.pop(key, None)
    layer = None
    others = weight, bias, running_mean, running_var
    if x.numel() and all(t is None or type(t) in (Tensor, torch.nn.Parameter) for t in others):
        layer = _layer(norm, options, followed, x, others, lambda _: _known.pop(key, None))
    room(_known, LIMIT)[key] = layer


def _layer(
    norm: str, options: Options, followed: bool, x: Tensor, others: tuple[MaybeTensor, ...],
    forget: Callable[[Any], Any],
) -> Layer | None:  # fmt: skip
    """forget: what is called when a parameter goes."""
    with torch.no_grad():
        arrays = [array(t) for t in (x, *others)]
    _, weight, bias, mean, var = arrays
    moved = [t for t in others[2:] if t is not None and moves(options)]
    if moved and not (apart(mean, weight, bias, var) and apart(var, weight, bias)):
        return None
    plan = plan_of(norm, options, arrays[0])
    forward = _prepared(norm, options, plan, followed, arrays)
    if forward is None:
        return None
    training = options.get("training", options.get("use_input_stats", True))
    return Layer(
        forward, None, (training, plan, norm, options["activation"]), _lies(x), x.numel() * x.element_size(),
        [(weakref.ref(t, forget), t.data_ptr()) for t in others if t is not None],
        [(t.data_ptr(), t.data_ptr() + t.numel() * t.element_size()) for t in moved], (weight, bias),
    )  # fmt: skip


def _prepared(
    norm: str, options: Options, plan: Any, followed: bool, arrays: list[Any]
) -> Callable[[Array], tuple[Array, Any]] | None:
    """What `Layer` has as forward; None if there is no such thing for arrays like these."""
    x, weight, bias, mean, var = arrays
    activation, eps = options["activation"], options["eps"]
    factor = options["momentum"] if mean is not None and moves(options) else 0.0
    if isinstance(plan, ChannelPlan):
        training = options.get("training", False)  # instance norm with statistics of a batch has none
        both = prepared.channel_forward(
            plan, x, weight, bias, (mean, var), training, eps, factor, activation, threads(), None
        )
        return None if both is None else lambda x: both(x, weight, bias, mean, var, None)
    eps = float(np.finfo(plan.layout.arithmetic).eps) if eps is None else eps
    given, running = (x, weight, bias, None), (mean, var) if factor != 0.0 else ()
    one = prepared.row_forward(norm, plan, given, eps, activation, followed, threads(), running, factor)
    if one is None:
        return None

    def forward(x: Array) -> tuple[Array, Any]:
        y, saved = one(x, weight, bias, None, *running)
        return y, None if saved is None else saved[1:3]

    return forward


class Again(torch.autograd.Function):
    """A call with a gradient of a layer that is kept."""

    @staticmethod
    def forward(ctx: Any, layer: Layer, x: Tensor, weight: MaybeTensor, bias: MaybeTensor) -> Tensor:
        y, ctx.statistics = layer.forward(array(x))
        ctx.layer = layer
        ctx.save_for_backward(x, weight, bias)
        return tensor(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        return _differentiable_once(ctx, dy) if torch.is_grad_enabled() else _gradients(ctx, dy)


def _gradients(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    layer: Layer = ctx.layer
    x, *_ = ctx.saved_tensors  # all of them are asked whether they have changed
    mean, rstd = ctx.statistics
    given, saved = array(dy), Saved(array(x), mean, rstd, *layer.parameters, *layer.settled)
    if _lies(dy) != layer.lies:
        grads = _whole_way(given, saved, None)
    else:
        if layer.backward is None:
            layer.backward = _prepared_backward(given, saved) or _whole_way
        grads = layer.backward(given, saved, None)
    return None, *(None if g is None else tensor(g) for g in grads)


def _prepared_backward(dy: Array, saved: Saved[Any]) -> Backward | None:
    make = prepared_backward if isinstance(saved.plan, ChannelPlan) else prepared.row_backward
    return make(dy, saved, threads(), None)


def _whole_way(dy: Array, saved: Saved[Any], _: None) -> Any:
    return NORMS[saved.norm].kernels.backward(dy, saved, threads=threads())


_differentiable_once = once_differentiable(_gradients)
