"""Batch normalization (Ioffe & Szegedy 2015, algorithms 1 and 2): statistics per channel."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, affine, reciprocal_sd, standardize
from .running import Counter, averaging_factor, move


class Saved(NamedTuple):
    x_hat: Array
    rstd: Array
    weight: Array | None
    bias: Array | None
    axes: tuple[int, ...]
    training: bool


def batch_norm(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    num_batches_tracked: Counter | None = None,
) -> Array:
    """y = (x - mean) / sqrt(var + eps) * weight + bias; training moves the running statistics in place"""
    y, _ = batch_norm_forward(
        x, running_mean, running_var, weight, bias, training, momentum, eps,
        channel_axis=channel_axis, num_batches_tracked=num_batches_tracked,
    )  # fmt: skip
    return y


def batch_norm_forward(
    x: Array,
    running_mean: Array | None,
    running_var: Array | None,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    num_batches_tracked: Counter | None = None,
) -> tuple[Array, Saved]:
    """`batch_norm`, and what its backward needs"""
    axes = tuple(i for i in range(x.ndim) if i != channel_axis % x.ndim)

    def per_channel(a: Array) -> Array:
        return np.expand_dims(a, axes)

    if training:
        x_hat, mean, var, rstd = standardize(x, axes, eps)
        factor = averaging_factor(momentum, num_batches_tracked)
        m = x.size // mean.size
        move(running_mean, mean, factor)
        move(running_var, var * (m / (m - 1)), factor)
    else:
        assert running_mean is not None and running_var is not None
        rstd = reciprocal_sd(per_channel(running_var.astype(x.dtype)), eps)
        x_hat = x - per_channel(running_mean.astype(x.dtype))
        x_hat *= rstd

    w, b = (None if a is None else per_channel(a) for a in (weight, bias))
    return affine(x_hat, w, b), Saved(x_hat, rstd, w, b, axes, training)


def batch_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (dy - x_hat * dweight/m - dbias/m) * rstd * weight, dweight = sum(dy * x_hat), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, axes, training = saved
    scale = rstd if weight is None else rstd * weight
    dbias = dy.sum(axis=axes, keepdims=True)
    dweight = (dy * x_hat).sum(axis=axes, keepdims=True)

    if training:
        m = x_hat.size // scale.size
        dx = dy - x_hat * (dweight / m)
        dx -= dbias / m
        dx *= scale
    else:
        dx = dy * scale

    return Grads(
        dx,
        None if weight is None else dweight.reshape(-1),
        None if bias is None else dbias.reshape(-1),
    )
