"""The norms in plain NumPy, one function per norm and pass, named and called like the public ones.

In float64 or wider they are the oracle of the tests, in the dtype of the data the baseline of the
benchmarks. They compute in the dtype they are given, share no code with the kernels, and take their
arguments as valid: the public functions check. Symbols and derivations: docs/norms.md.
"""

from .batch_norm import batch_norm, batch_norm_backward, batch_norm_forward
from .batch_renorm import batch_renorm, batch_renorm_backward, batch_renorm_forward
from .data import minmax, whiten, zscore
from .group_norm import group_norm, group_norm_backward, group_norm_forward
from .instance_norm import instance_norm, instance_norm_backward, instance_norm_forward
from .layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from .local_response_norm import (
    local_response_norm,
    local_response_norm_backward,
    local_response_norm_forward,
)
from .moments import moments
from .rms_norm import rms_norm, rms_norm_backward, rms_norm_forward
from .weight_norm import weight_norm, weight_norm_backward, weight_norm_forward

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "batch_renorm",
    "batch_renorm_backward",
    "batch_renorm_forward",
    "group_norm",
    "group_norm_backward",
    "group_norm_forward",
    "instance_norm",
    "instance_norm_backward",
    "instance_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "local_response_norm",
    "local_response_norm_backward",
    "local_response_norm_forward",
    "minmax",
    "moments",
    "rms_norm",
    "rms_norm_backward",
    "rms_norm_forward",
    "weight_norm",
    "weight_norm_backward",
    "weight_norm_forward",
    "whiten",
    "zscore",
]
