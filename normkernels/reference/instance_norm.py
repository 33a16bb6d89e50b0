"""Instance normalization (Ulyanov, Vedaldi & Lempitsky 2016): statistics per sample and channel."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, affine, reciprocal_sd, standardize
from .running import move


class Saved(NamedTuple):
    x_hat: Array
    rstd: Array
    weight: Array | None
    bias: Array | None
    axes: tuple[int, ...]
    use_input_stats: bool


def instance_norm(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
) -> Array:
    """y = (x - mean) / sqrt(var + eps) * weight + bias; own statistics move the running ones in place"""
    y, _ = instance_norm_forward(
        x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps, channel_axis=channel_axis
    )
    return y


def instance_norm_forward(
    x: Array,
    running_mean: Array | None = None,
    running_var: Array | None = None,
    weight: Array | None = None,
    bias: Array | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
) -> tuple[Array, Saved]:
    """`instance_norm`, and what its backward needs"""
    axes = tuple(i for i in range(1, x.ndim) if i != channel_axis % x.ndim)

    def per_channel(a: Array) -> Array:
        return np.expand_dims(a, (0, *axes))

    if use_input_stats:
        x_hat, mean, var, rstd = standardize(x, axes, eps)
        m = x.size // mean.size
        move(running_mean, mean.mean(axis=0), momentum)
        move(running_var, var.mean(axis=0) * (m / (m - 1)), momentum)
    else:
        assert running_mean is not None and running_var is not None
        rstd = reciprocal_sd(per_channel(running_var.astype(x.dtype)), eps)
        x_hat = x - per_channel(running_mean.astype(x.dtype))
        x_hat *= rstd

    w, b = (None if a is None else per_channel(a) for a in (weight, bias))
    return affine(x_hat, w, b), Saved(x_hat, rstd, w, b, axes, use_input_stats)


def instance_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (dy - x_hat * c1 - c2) * rstd * weight, dweight = sum(dy * x_hat), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, axes, use_input_stats = saved
    scale = rstd if weight is None else rstd * weight

    if use_input_stats:
        c1 = (dy * x_hat).mean(axis=axes, keepdims=True)
        c2 = dy.mean(axis=axes, keepdims=True)
        dx = dy - x_hat * c1
        dx -= c2
        dx *= scale
    else:
        dx = dy * scale

    dweight = None if weight is None else (dy * x_hat).sum(axis=(0, *axes))
    dbias = None if bias is None else dy.sum(axis=(0, *axes))
    return Grads(dx, dweight, dbias)
