"""Norms for PyTorch: functions, modules like those of `torch.nn`, and `replace_norms` for a whole model.

Needs the extra ``torch``. From its import on, all kernels of this package run on PyTorch's threads, where
its OpenMP allows.

Examples
--------
>>> import torch
>>> from normkernels.torch import LayerNorm
>>> LayerNorm(4)
LayerNorm((4,), eps=1e-05, elementwise_affine=True)
"""

from ..cpu import parallel as _parallel
from . import functional
from ._pool import parallel_for as _parallel_for
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

_parallel.use_pool(_parallel_for())
