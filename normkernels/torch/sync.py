"""Batch normalization over the batches of all processes."""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from ..functional import batch_norm, batch_norm_backward, batch_norm_forward, moments
from ..results import Array, Grads, Moments, Saved
from . import functional as F
from ._tensors import array, tensor, threads
from .modules import BatchNorm1d, BatchNorm2d, BatchNorm3d, batch_arguments, count_batch


class SyncBatchNorm(_BatchNorm):
    """Batch normalization over the batches of all processes, on the CPU, where PyTorch has none.

    In training every process takes the moments of its batch; they are gathered and merged by Chan's formula
    in the order of ranks, in float64: all processes have the same bits, and lose no digits where means are
    large beside the spread. The backward adds up the two sums of every channel, by one all-reduce. Batches
    may differ in their size, and be empty. Half types are normalized in float32. Without a process group, and
    in evaluation, it is batch norm of one process. Arguments are those of `torch.nn.SyncBatchNorm`, of which
    it is no subclass: `DistributedDataParallel` refuses these on the CPU.

    Raises
    ------
    ValueError
        In all processes, if the input of one is not as it must be, or if there is one value per channel in
        all of them together.
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, process_group: Any = None, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        self.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """Give the batch norms of a model this class, in place: PyTorch's and ours, but no others."""
        for m in module.modules():
            if type(m) in _BATCH_NORMS:
                m.__class__, m.process_group = cls, process_group
        return module

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"input must have at least 2 dimensions, batch and channels, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalize with the statistics of all processes."""
        mean, var, training, momentum = batch_arguments(self)
        if self.training and distributed.is_available() and distributed.is_initialized():
            group = self.process_group or distributed.group.WORLD
            if distributed.get_world_size(group) > 1:
                y = _synchronized(input, self, mean, var, momentum, group)
                count_batch(self)
                return y
        self._check_input_dim(input)
        y = F.batch_norm(input, mean, var, self.weight, self.bias, training, momentum, self.eps)
        count_batch(self)
        return y


_BATCH_NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNorm1d, BatchNorm2d, BatchNorm3d,
)  # fmt: skip
_HALF = torch.float16, torch.bfloat16


@torch.compiler.disable
def _synchronized(
    input: Tensor, module: SyncBatchNorm, mean: Tensor | None, var: Tensor | None, momentum: float, group: Any
) -> Tensor:
    x, weight, bias = input, module.weight, module.bias
    if x.dtype in _HALF:  # rounding dy * scale to it would lose what the second norm adds
        x = x.float()
        weight, bias = (None if p is None else p.float() for p in (weight, bias))
    whole = _merged(x, weight, module.num_features, group)
    y = _SyncBatchNorm.apply(x, weight, bias, whole, module.eps, group)
    if mean is not None and var is not None:
        for running, new in ((mean, whole.mean), (var, whole.variance(ddof=1))):
            running.copy_((1 - momentum) * running.double() + momentum * torch.from_numpy(new))
    return y.to(input.dtype)


def _merged(x: Tensor, weight: Tensor | None, channels: int, group: Any) -> Moments:
    """Moments of every channel in all processes."""
    right = (
        x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and x.dim() >= 2
        and x.shape[1] == channels and (weight is None or weight.dtype == x.dtype)
    )  # fmt: skip
    count = x.numel() // channels if right else -1
    counts = _gathered(torch.tensor([channels, count], device="cpu"), group)
    shapes = [tuple(int(n) for n in one) for one in counts]
    if any(one[1] < 0 or one[0] != channels for one in shapes):
        told = ", ".join(
            f"rank {k} has {c} features" + (" and an input that does not fit" if n < 0 else "")
            for k, (c, n) in enumerate(shapes)
        )
        raise ValueError(
            "inputs must be floating-point tensors on the CPU in all processes, of the dtype of the "
            f"parameters and of shape (N, {channels}, ...): {told}"
        )
    if sum(n for _, n in shapes) <= 1:
        raise ValueError(
            "inputs must have more than one value per channel in all processes together, "
            f"got shape {tuple(x.shape)}"
        )
    own = np.zeros((3, channels))
    if count:
        axes = [a for a in range(x.dim()) if a != 1]
        found = moments(array(x.detach()), axis=axes, threads=threads())
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
        given = array(x), whole.mean, whole.var, w, b
        y, saved = batch_norm_forward(*given, eps=eps, out=_like(x), threads=threads())
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
        dx, *own = batch_norm_backward(array(dy), saved, out=_like(x), threads=threads())
        sums = torch.from_numpy(np.asarray(own, np.float64))
        distributed.all_reduce(sums, group=ctx.group)
        c1, c2 = (-w.astype(np.float64) * saved.rstd * sums.numpy() / whole.count).astype(w.dtype)
        given = array(x), whole.mean, whole.var, c1, c2
        dx = batch_norm(*given, eps=ctx.eps, residual=dx, out=dx, threads=threads())
        return (
            tensor(dx),
            *(None if p is None else tensor(g) for p, g in zip((weight, bias), own, strict=True)),
            None, None, None,
        )  # fmt: skip


def _parameter(value: Tensor | None, default: float, x: Tensor) -> Array:
    """A parameter of every channel."""
    return array(torch.full((x.shape[1],), default, dtype=x.dtype, device="cpu") if value is None else value)


def _like(x: Tensor) -> Array:
    """Memory for a result that lies as x does."""
    return array(torch.empty_like(x))
