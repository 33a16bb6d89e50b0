"""Normalization to call from your own ``@njit`` code: one row at a time, in registers, without Python.

All take one-dimensional contiguous arrays of float32 or float64 (a row ``x[i]`` of a C-ordered array, or
``x.ravel()``), compute in the dtype of x with statistics in float64, and allocate nothing, so that they
may be called from every iteration of a ``prange``. They are compiled into the caller. A row gives the same
bits as in the public functions. A ValueError raised inside a ``prange`` reaches Python as numba's
SystemError: check shapes before the loop.

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

from typing import Any

from .cpu.channel_primitives import normalize_run
from .cpu.jit import callable_from_python
from .cpu.primitives import centring, reciprocal_sd
from .cpu.row_primitives import normalize_row, row_moments, row_squares
from .cpu.vectors import pointer

__all__ = ["layer_norm", "moments", "normalize", "reciprocal_sd", "rms_norm", "standardize"]


@callable_from_python
def _check(x: Any) -> None:
    if x.ndim != 1 or x.strides[0] != x.itemsize:
        raise ValueError("arrays must be one-dimensional and contiguous")


@callable_from_python
def _check_beside(x: Any, other: Any) -> None:
    _check(other)
    if len(other) < len(x):
        raise ValueError("weight, bias and out must be as long as x")


@callable_from_python
def moments(x: Any) -> Any:
    """Mean and population variance of a row, in float64.

    Parameters
    ----------
    x : array, shape (n,), contiguous, n at least 1

    Returns
    -------
    mean, var : float
        As `normkernels.moments` has them, to the bit.

    Raises
    ------
    ValueError
        If x is not contiguous or empty.
    """
    _check(x)
    if len(x) == 0:
        raise ValueError("moments needs at least one element")
    mean, m2 = row_moments(pointer(x), None, len(x))
    return mean, m2 / len(x)


@callable_from_python
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    """``out = (x - mean) * rstd * weight + bias`` with a weight and a bias for every element.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x.
    mean, rstd : float
        Of the row, in float64: the mean keeps digits that its rounding to float32 would lose.

    Raises
    ------
    ValueError
        If an array is not contiguous, or shorter than x.
    """
    _check(x)
    _check_beside(x, weight)
    _check_beside(x, bias)
    _check_beside(x, out)
    w, b, y = pointer(weight), pointer(bias), pointer(out)
    normalize_row(pointer(x), None, len(x), mean, rstd, w, b, None, None, y, False)


@callable_from_python
def standardize(x: Any, mean: Any, rstd: Any, out: Any) -> None:
    """``out = (x - mean) * rstd``.

    Parameters
    ----------
    x, out : array, shape (n,), contiguous, of one dtype
        out may be x.
    mean, rstd : float
        Of the row, in float64.

    Raises
    ------
    ValueError
        If an array is not contiguous, or out shorter than x.
    """
    _check(x)
    _check_beside(x, out)
    hi, lo, scale = centring(pointer(x), mean, rstd)
    normalize_run(pointer(x), len(x), (hi, scale, lo), pointer(out), False)


@callable_from_python
def layer_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any) -> None:
    """Layer norm of one row: `moments`, then `normalize` with ``rstd = 1/sqrt(var + eps)``.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If an array is not contiguous, x is empty, or another array shorter than x.
    """
    mean, var = moments(x)
    normalize(x, mean, reciprocal_sd(var, eps), weight, bias, out)


@callable_from_python
def rms_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any) -> None:
    """RMS norm of one row: ``out = x / sqrt(mean(x²) + eps) * weight + bias``.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x. A bias of zeros is RMS norm as published.
    eps : float
        Added to the mean square.

    Raises
    ------
    ValueError
        If an array is not contiguous, x is empty, or another array shorter than x.
    """
    _check(x)
    if len(x) == 0:
        raise ValueError("rms_norm needs at least one element")
    m2 = row_squares(pointer(x), None, len(x))
    normalize(x, 0.0, reciprocal_sd(m2 / len(x), eps), weight, bias, out)
