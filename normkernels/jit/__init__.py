"""Normalization to call from your own ``@njit`` code: one row or channel at a time, without Python.

All take C-contiguous arrays of float32 or float64: a row is one-dimensional (``x[i]`` of a C-ordered array,
or ``x.ravel()``), channels lie in an array of three axes (outer, channels, inner), such as
``images.reshape(N, C, H * W)``. They compute in the dtype of x with statistics in float64 and allocate
nothing, so that they may be called from every iteration of a ``prange``. They are compiled into the caller.
A row gives the same bits as in the public functions, a channel the same values. A ValueError raised inside
a ``prange`` reaches Python as numba's SystemError: check shapes before the loop. An argument of another
type, None where an array is needed, and a read-only array that is to be written are numba's TypingError
when your code is compiled.

>>> import numba, numpy as np
>>> from normkernels import jit
>>> @numba.njit(parallel=True)
... def scores(images, out):
...     for i in numba.prange(len(images)):
...         mean, var = jit.moments(images[i])
...         jit.standardize(images[i], mean, jit.reciprocal_sd(var, 0.0), out[i])
>>> x = np.array([[0.0, 4.0], [1.0, 3.0]])
>>> scores(x, y := np.empty_like(x))
>>> y
array([[-1.,  1.],
       [-1.,  1.]])
"""

from .channels import channel_gradient, channel_moments, channel_sums, normalize_channel
from .rows import layer_norm, layer_norm_gradient, moments, normalize, reciprocal_sd, rms_norm, standardize

__all__ = [
    "channel_gradient",
    "channel_moments",
    "channel_sums",
    "layer_norm",
    "layer_norm_gradient",
    "moments",
    "normalize",
    "normalize_channel",
    "reciprocal_sd",
    "rms_norm",
    "standardize",
]
