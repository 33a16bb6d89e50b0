"""RMS normalization (Zhang & Sennrich 2019, equation 4): the mean square over the trailing axes."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, affine, standardize


class Saved(NamedTuple):
    x_hat: Array
    rstd: Array
    weight: Array | None
    bias: None
    axes: tuple[int, ...]


def rms_norm(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    eps: float | None = None,
) -> Array:
    """y = x / sqrt(mean(x²) + eps) * weight"""
    return rms_norm_forward(x, normalized_shape, weight, eps)[0]


def rms_norm_forward(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    eps: float | None = None,
) -> tuple[Array, Saved]:
    """`rms_norm`, and what its backward needs; eps of None is that of float32, of float64 for wider x"""
    if eps is None:
        eps = float(np.finfo(np.float32 if x.itemsize <= 4 else np.float64).eps)
    axes = tuple(range(x.ndim - np.size(normalized_shape), x.ndim))
    x_hat, _, _, rstd = standardize(x, axes, eps, centred=False)
    return affine(x_hat, weight, None), Saved(x_hat, rstd, weight, None, axes)


def rms_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (wdy - x_hat * c1) * rstd, dweight = sum(dy * x_hat)"""
    x_hat, rstd, weight, _, axes = saved
    rows = tuple(range(axes[0]))

    wdy = dy if weight is None else dy * weight
    c1 = (x_hat * wdy).mean(axis=axes, keepdims=True)
    dx = wdy - x_hat * c1
    dx *= rstd

    dweight = None if weight is None else (dy * x_hat).sum(axis=rows)
    return Grads(dx, dweight, None)
