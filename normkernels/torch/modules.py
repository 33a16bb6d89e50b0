"""The norms of `torch.nn` by the kernels of this package.

Each module is a subclass of the one of the same name: constructor, parameters, buffers, repr and keys of
checkpoints are those of PyTorch, and state dicts load both ways.
"""

from typing import Any

from torch import Tensor, nn

from . import functional as F

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "BatchRenorm1d",
    "BatchRenorm2d",
    "BatchRenorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "LayerNorm2d",
    "LocalResponseNorm",
    "RMSNorm",
]


def learned(module: Any) -> tuple[Tensor | None, Tensor | None]:
    """weight and bias; what PyTorch does for an attribute takes 0.7 µs, and is for those set otherwise."""
    found = module._parameters
    if "weight" in found and "bias" in found:
        return found["weight"], found["bias"]
    return module.weight, module.bias


def batch_arguments(module: Any) -> tuple[Tensor | None, Tensor | None, bool, float]:
    """running_mean, running_var, whether statistics are those of the batch, and momentum, of this call."""
    training, momentum, mean, var = module.training, module.momentum, None, None
    if momentum is None:
        momentum = 1.0 / float(module.num_batches_tracked + 1) if _is_counted(module) else 0.0
    if not training or module.track_running_stats:
        mean, var = module.running_mean, module.running_var
    return mean, var, training or (mean is None and var is None), momentum


def _is_counted(module: Any) -> bool:
    return module.training and module.track_running_stats and module.num_batches_tracked is not None


def count_batch(module: Any) -> None:
    """Count the batch of a call in training, which has gone well."""
    if _is_counted(module):
        module.num_batches_tracked.add_(1)


class _BatchNorm:
    def forward(self: Any, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, var, training, momentum = batch_arguments(self)
        y = F.batch_norm(input, mean, var, *learned(self), training, momentum, self.eps)
        count_batch(self)
        return y


class BatchNorm1d(_BatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` by `normkernels.torch.functional.batch_norm`."""


class BatchNorm2d(_BatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` by `normkernels.torch.functional.batch_norm`."""


class BatchNorm3d(_BatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` by `normkernels.torch.functional.batch_norm`."""


class _BatchRenorm:
    def __init__(self: Any, *args: Any, r_max: float = 3.0, d_max: float = 5.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.r_max, self.d_max = r_max, d_max

    def extra_repr(self: Any) -> str:
        return f"{super().extra_repr()}, r_max={self.r_max}, d_max={self.d_max}"  # type: ignore[misc]

    def forward(self: Any, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, var, training, momentum = batch_arguments(self)
        y = F.batch_renorm(
            input, mean, var, *learned(self), training, momentum, self.eps, self.r_max, self.d_max
        )
        count_batch(self)
        return y


class BatchRenorm1d(_BatchRenorm, nn.BatchNorm1d):
    """Batch renormalization of (N, C) or (N, C, L): a `torch.nn.BatchNorm1d` with `r_max` and `d_max`."""


class BatchRenorm2d(_BatchRenorm, nn.BatchNorm2d):
    """Batch renormalization of (N, C, H, W): a `torch.nn.BatchNorm2d` with `r_max` and `d_max`."""


class BatchRenorm3d(_BatchRenorm, nn.BatchNorm3d):
    """Batch renormalization of (N, C, D, H, W): a `torch.nn.BatchNorm3d` with `r_max` and `d_max`."""


class _InstanceNorm:
    def _apply_instance_norm(self: Any, input: Tensor) -> Tensor:
        """What the forward of PyTorch calls, with a batch."""
        own = self.training or not self.track_running_stats
        momentum = 0.0 if self.momentum is None else self.momentum
        return F.instance_norm(
            input, self.running_mean, self.running_var, *learned(self), own, momentum, self.eps
        )


class InstanceNorm1d(_InstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` by `normkernels.torch.functional.instance_norm`."""


class InstanceNorm2d(_InstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` by `normkernels.torch.functional.instance_norm`."""


class InstanceNorm3d(_InstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` by `normkernels.torch.functional.instance_norm`."""


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` by `normkernels.torch.functional.layer_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize the last dimensions."""
        return F.layer_norm(input, self.normalized_shape, *learned(self), self.eps)


class LayerNorm2d(LayerNorm):
    """Layer normalization over the channels of (N, C, H, W): a `torch.nn.LayerNorm` of C channels.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import LayerNorm2d
    >>> LayerNorm2d(4)(torch.zeros(2, 4, 3, 3)).shape
    torch.Size([2, 4, 3, 3])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize dimension 1."""
        return F.layer_norm(input, self.normalized_shape, *learned(self), self.eps, dim=1)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` by `normkernels.torch.functional.rms_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize the last dimensions."""
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` by `normkernels.torch.functional.group_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize groups of channels."""
        return F.group_norm(input, self.num_groups, *learned(self), self.eps)


class LocalResponseNorm(nn.LocalResponseNorm):
    """`torch.nn.LocalResponseNorm` by `normkernels.torch.functional.local_response_norm`."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize across neighbouring channels."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)
