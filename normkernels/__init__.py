"""Fused normalization kernels on the CPU, forward and backward, and the benchmarks that measure them."""

from ._buffers import release_buffers, set_buffer_limit
from .functional import (
    batch_norm,
    batch_norm_backward,
    batch_norm_forward,
    layer_norm,
    layer_norm_backward,
    layer_norm_forward,
    moments,
)
from .norms import NORMS, NormSpec
from .results import Grads, Moments, Saved

__version__ = "0.1.0.dev0"

__all__ = [
    "NORMS",
    "Grads",
    "Moments",
    "NormSpec",
    "Saved",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "moments",
    "release_buffers",
    "set_buffer_limit",
]
