"""Norms for PyTorch: functions, modules like those of `torch.nn`, and `replace_norms` for a whole model.

Needs the extra ``torch``.

Examples
--------
>>> import torch
>>> from normkernels.torch import LayerNorm
>>> LayerNorm(4)
LayerNorm((4,), eps=1e-05, elementwise_affine=True)
"""

from . import functional
from .modules import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    BatchRenorm1d,
    BatchRenorm2d,
    BatchRenorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    LayerNorm2d,
    LocalResponseNorm,
    RMSNorm,
)
from .replace import register_norm, replace_norms, restore_norms
from .sync import SyncBatchNorm

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
    "SyncBatchNorm",
    "functional",
    "register_norm",
    "replace_norms",
    "restore_norms",
]
