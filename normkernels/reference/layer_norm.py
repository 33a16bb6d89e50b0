"""Layer normalization (Ba, Kiros & Hinton 2016, equation 4): statistics over the trailing axes."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, affine, standardize


class Saved(NamedTuple):
    x_hat: Array
    rstd: Array
    weight: Array | None
    bias: Array | None
    axes: tuple[int, ...]


def layer_norm(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """y = (x - mean) / sqrt(var + eps) * weight + bias"""
    return layer_norm_forward(x, normalized_shape, weight, bias, eps)[0]


def layer_norm_forward(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> tuple[Array, Saved]:
    """`layer_norm`, and what its backward needs"""
    axes = tuple(range(x.ndim - np.size(normalized_shape), x.ndim))
    x_hat, _, _, rstd = standardize(x, axes, eps)
    return affine(x_hat, weight, bias), Saved(x_hat, rstd, weight, bias, axes)


def layer_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (wdy - x_hat * c1 - c2) * rstd, dweight = sum(dy * x_hat), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, axes = saved
    rows = tuple(range(axes[0]))

    wdy = dy if weight is None else dy * weight
    c1 = (x_hat * wdy).mean(axis=axes, keepdims=True)
    c2 = wdy.mean(axis=axes, keepdims=True)
    dx = wdy - x_hat * c1
    dx -= c2
    dx *= rstd

    dweight = None if weight is None else (dy * x_hat).sum(axis=rows)
    dbias = None if bias is None else dy.sum(axis=rows)
    return Grads(dx, dweight, dbias)
