"""Batch normalization over the batches of all processes."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from ..functional import batch_norm, batch_norm_backward, batch_norm_forward, moments
from ..results import Array, Grads, Moments, Saved
from . import functional as F
from ._tensors import array, tensor
from .modules import batch_arguments, count_batch


class SyncBatchNorm(nn.SyncBatchNorm):
    """`torch.nn.SyncBatchNorm` for the CPU, where PyTorch has none.

    In training every process takes the moments of its batch; they are gathered and merged by Chan's formula
    in the order of ranks, in float64: all processes have the same bits, and lose no digits where means are
    large beside the spread. The backward adds up the two sums of every channel, by one all-reduce. Batches
    may differ in their size, and be empty. Without a process group, and in evaluation, it is `BatchNorm2d`.

    Raises
    ------
    ValueError
        In all processes, if the input of one is not as it must be, or if there is one value per channel in
        all of them together.
    """

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> Any:
        """As that of PyTorch: every `BatchNorm` of a model as a `SyncBatchNorm`."""
        converted = super().convert_sync_batchnorm(module, process_group)
        for m in converted.modules():
            if type(m) is nn.SyncBatchNorm:
                m.__class__ = cls
        return converted

    def forward(self, input: Tensor) -> Tensor:
        """Normalize with the statistics of all processes."""
        mean, var, training, momentum = batch_arguments(self)
        group = self.process_group or distributed.group.WORLD
        initialized = distributed.is_available() and distributed.is_initialized()
        if not (self.training and initialized and distributed.get_world_size(group) > 1):
            self._check_input_dim(input)
            y = F.batch_norm(input, mean, var, self.weight, self.bias, training, momentum, self.eps)
        else:
            y = _synchronized(input, self, mean, var, momentum, group)
        count_batch(self)
        return y


@torch.compiler.disable
def _synchronized(
    input: Tensor, module: SyncBatchNorm, mean: Tensor | None, var: Tensor | None, momentum: float, group: Any
) -> Tensor:
    whole = _merged(input, module.num_features, group)
    if mean is not None and var is not None:
        unbiased = whole.variance(ddof=1)
        for running, new in ((mean, whole.mean), (var, unbiased)):
            running.copy_((1 - momentum) * running.double() + momentum * torch.from_numpy(new))
    return _SyncBatchNorm.apply(input, module.weight, module.bias, whole, module.eps, group)


def _merged(input: Tensor, channels: int, group: Any) -> Moments:
    """Moments of every channel in all processes."""
    right = (
        input.dim() >= 2 and input.shape[1] == channels and input.is_floating_point() and not input.is_cuda
    )
    count = input.numel() // channels if right else -1
    counts = _gathered(torch.tensor([channels, count]), group)
    shapes = [tuple(int(n) for n in one) for one in counts]
    if any(one[1] < 0 or one[0] != channels for one in shapes):
        told = ", ".join(
            f"rank {k} has {c} features" + (" and an input that does not fit" if n < 0 else "")
            for k, (c, n) in enumerate(shapes)
        )
        raise ValueError(
            "inputs must be floating-point tensors on the CPU in all processes, "
            f"of shape (N, {channels}, ...): {told}"
        )
    if sum(n for _, n in shapes) <= 1:
        raise ValueError(
            "inputs must have more than one value per channel in all processes together, "
            f"got shape {tuple(input.shape)}"
        )
    own = np.zeros((3, channels))
    if count:
        found = moments(array(input.detach()), axis=[a for a in range(input.dim()) if a != 1])
        own[:] = found.mean, found.var, found._mean_low
    parts = [part.numpy() for part in _gathered(torch.from_numpy(own), group)]
    every = (
        Moments(n, mean, var)._with_low(low) for (_, n), (mean, var, low) in zip(shapes, parts, strict=True)
    )
    return functools.reduce(Moments.merge, every)


def _gathered(own: Tensor, group: Any) -> list[Tensor]:
    """That of all processes, in the order of ranks."""
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(parts, own, group)
    return parts


class _SyncBatchNorm(torch.autograd.Function):
    """Normalization with given statistics, whose gradient knows that they are those of the input."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        whole: Moments,
        eps: float,
        group: Any,
    ) -> Tensor:
        w, b = _parameter(weight, 1.0, x), _parameter(bias, 0.0, x)
        saved: Any
        y, saved = batch_norm_forward(array(x), whole.mean, whole.var, w, b, eps=eps, out=_like(x))
        ctx.save_for_backward(x, weight, bias)
        ctx.saved = saved._replace(x=None, weight=None, bias=None)
        ctx.whole, ctx.eps, ctx.group = whole, eps, group
        return tensor(y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
        """With constant statistics dx = dy * scale; what is missing is a norm: -scale * (x_hat * c1 + c2)."""
        (x, weight, bias), whole = ctx.saved_tensors, ctx.whole
        w, b = _parameter(weight, 1.0, x), _parameter(bias, 0.0, x)
        saved: Saved[Grads] = ctx.saved._replace(x=array(x), weight=w, bias=b)
        dx, *own = batch_norm_backward(array(dy), saved, out=_like(x))
        sums = torch.from_numpy(np.asarray(own, np.float64))
        distributed.all_reduce(sums, group=ctx.group)
        wide = np.result_type(w.dtype, np.float32)
        c1, c2 = (-w.astype(np.float64) * saved.rstd * sums.numpy() / whole.count).astype(wide)
        dx = batch_norm(array(x), whole.mean, whole.var, c1, c2, eps=ctx.eps, residual=dx, out=dx)
        return (
            tensor(dx),
            *(None if p is None else tensor(g) for p, g in zip((weight, bias), own, strict=True)),
            None, None, None,
        )  # fmt: skip


def _parameter(value: Tensor | None, default: float, x: Tensor) -> Array:
    """A parameter of every channel."""
    return array(torch.full((x.shape[1],), default, dtype=x.dtype) if value is None else value)


def _like(x: Tensor) -> Array:
    """Memory for a result that lies as x does."""
    return array(torch.empty_like(x))
