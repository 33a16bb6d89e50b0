"""Layer normalization (Ba, Kiros & Hinton 2016, equation 4): statistics over some axes."""

from typing import NamedTuple

from ..results import Grads
from .moments import Array, across, affine, normalized_axes, standardize, summed


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
    *,
    dim: int | tuple[int, ...] | None = None,
) -> Array:
    """y = (x - mean) / sqrt(var + eps) * weight + bias"""
    return layer_norm_forward(x, normalized_shape, weight, bias, eps, dim=dim)[0]


def layer_norm_forward(
    x: Array,
    normalized_shape: int | tuple[int, ...],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    dim: int | tuple[int, ...] | None = None,
) -> tuple[Array, Saved]:
    """`layer_norm`, and what its backward needs"""
    axes = normalized_axes(x, normalized_shape, dim)
    x_hat, _, _, rstd = standardize(x, axes, eps)
    weight, bias = across(weight, axes, x.ndim), across(bias, axes, x.ndim)
    return affine(x_hat, weight, bias), Saved(x_hat, rstd, weight, bias, axes)


def layer_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (wdy - x_hat * c1 - c2) * rstd, dweight = sum(dy * x_hat), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, axes = saved

    wdy = dy if weight is None else dy * weight
    c1 = (x_hat * wdy).mean(axis=axes, keepdims=True)
    c2 = wdy.mean(axis=axes, keepdims=True)
    dx = wdy - x_hat * c1
    dx -= c2
    dx *= rstd

    dweight = None if weight is None else summed(dy * x_hat, axes)
    dbias = None if bias is None else summed(dy, axes)
    return Grads(dx, dweight, dbias)
