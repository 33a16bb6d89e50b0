"""RMS normalization (Zhang & Sennrich 2019, equation 4): the mean square over some axes."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, across, affine, normalized_axes, standardize, summed


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
    *,
    dim: int | tuple[int, ...] | None = None,
) -> Array:
    """y = x / sqrt(mean(x²) + eps) * weight"""
    return rms_norm_forward(x, normalized_shape, weight, eps, dim=dim)[0]


def rms_norm_forward(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    eps: float | None = None,
    *,
    dim: int | tuple[int, ...] | None = None,
) -> tuple[Array, Saved]:
    """`rms_norm`, and what its backward needs; eps of None is that of float32, of float64 for wider x"""
    if eps is None:
        eps = float(np.finfo(np.float32 if x.itemsize <= 4 else np.float64).eps)
    axes = normalized_axes(x, normalized_shape, dim)
    x_hat, _, _, rstd = standardize(x, axes, eps, centred=False)
    weight = across(weight, axes, x.ndim)
    return affine(x_hat, weight, None), Saved(x_hat, rstd, weight, None, axes)


def rms_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (wdy - x_hat * c1) * rstd, dweight = sum(dy * x_hat)"""
    x_hat, rstd, weight, _, axes = saved

    wdy = dy if weight is None else dy * weight
    c1 = (x_hat * wdy).mean(axis=axes, keepdims=True)
    dx = wdy - x_hat * c1
    dx *= rstd

    dweight = None if weight is None else summed(dy * x_hat, axes)
    return Grads(dx, dweight, None)
