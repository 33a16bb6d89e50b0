"""The norms of timm by the kernels of this package: what `replace_norms` puts in their place.

After `timm.layers.set_fast_norm` a norm computes in the dtype of autocast, which is left to timm.
"""

from timm.layers import norm, norm_act
from torch import Tensor, nn

from .._layout import Activation
from . import functional as F
from .modules import batch_arguments, count_batch, learned

_ACTIVATIONS: dict[type, Activation | None] = {
    nn.Identity: None, nn.ReLU: "relu", nn.Sigmoid: "sigmoid", nn.SiLU: "silu", nn.GELU: "gelu",
}  # fmt: skip


def _fusible(drop: nn.Module, act: nn.Module) -> bool:
    """Whether an activation can be part of the kernel: a known one, with nothing before it and no hooks."""
    known = type(drop) is nn.Identity and type(act) in _ACTIVATIONS
    return known and getattr(act, "approximate", "none") == "none" and not (_hooked(drop) or _hooked(act))


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


class LayerNorm(norm.LayerNorm):
    """`timm.layers.LayerNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.layer_norm(x, self.normalized_shape, *learned(self), self.eps)


class LayerNorm2d(norm.LayerNorm2d):
    """`timm.layers.LayerNorm2d`: over the channels of NCHW, without a permutation."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.layer_norm(x, self.normalized_shape, *learned(self), self.eps, dim=1)


class RmsNorm(norm.RmsNorm):
    """`timm.layers.RmsNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class RmsNorm2d(norm.RmsNorm2d):
    """`timm.layers.RmsNorm2d`."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps, dim=1)


class GroupNorm(norm.GroupNorm):
    """`timm.layers.GroupNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.group_norm(x, self.num_groups, *learned(self), self.eps)


class GroupNorm1(norm.GroupNorm1):
    """`timm.layers.GroupNorm1`."""

    def forward(self, x: Tensor) -> Tensor:
        if self._fast_norm:
            return super().forward(x)
        return F.group_norm(x, self.num_groups, *learned(self), self.eps)


class BatchNormAct2d(norm_act.BatchNormAct2d):
    """`timm.layers.BatchNormAct2d`, with its activation in the same kernel where nothing lies between."""

    def forward(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        mean, var, training, momentum = batch_arguments(self)
        drop, act = self.drop, self.act
        fused = _fusible(drop, act)
        activation = _ACTIVATIONS[type(act)] if fused else None
        y = F.batch_norm(x, mean, var, *learned(self), training, momentum, self.eps, activation=activation)
        count_batch(self)
        return y if fused else act(drop(y))


_CLASSES = LayerNorm, LayerNorm2d, RmsNorm, RmsNorm2d, GroupNorm, GroupNorm1, BatchNormAct2d
_REPLACEMENTS: dict[type, type] = {kind.__base__: kind for kind in _CLASSES}


def replacement_of(kind: type) -> type | None:
    """The class that takes the place of one of timm's."""
    return _REPLACEMENTS.get(kind)
