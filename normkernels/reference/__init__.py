"""The norms in plain NumPy, one function per norm and pass, named and called like the public ones.

In float64 or wider they are the oracle of the tests, in the dtype of the data the baseline of the
benchmarks. They compute in the dtype they are given, share no code with the kernels, and take their
arguments as valid: the public functions check. Symbols and derivations: docs/norms.md.
"""

from .batch_norm import batch_norm, batch_norm_backward, batch_norm_forward
from .layer_norm import layer_norm, layer_norm_backward, layer_norm_forward
from .moments import moments

__all__ = [
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_forward",
    "layer_norm",
    "layer_norm_backward",
    "layer_norm_forward",
    "moments",
]
