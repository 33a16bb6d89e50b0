"""Batch renormalization (Ioffe 2017, algorithm 1): batch statistics, corrected towards the running ones."""

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
    r: Array
    d: Array


def batch_renorm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    channel_axis: int = 1,
    num_batches_tracked: Counter | None = None,
) -> Array:
    """y = z * weight + bias, z = x_hat * r + d; training moves the running statistics in place"""
    y, _ = batch_renorm_forward(
        x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max,
        channel_axis=channel_axis, num_batches_tracked=num_batches_tracked,
    )  # fmt: skip
    return y


def batch_renorm_forward(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    channel_axis: int = 1,
    num_batches_tracked: Counter | None = None,
) -> tuple[Array, Saved]:
    """`batch_renorm`, and what its backward needs"""
    axes = tuple(i for i in range(x.ndim) if i != channel_axis % x.ndim)

    def per_channel(a: Array) -> Array:
        return np.expand_dims(a, axes)

    expected_mean = per_channel(running_mean.astype(x.dtype))
    expected_rstd = reciprocal_sd(per_channel(running_var.astype(x.dtype)), eps)

    if training:
        x_hat, mean, var, rstd = standardize(x, axes, eps)
        r = np.divide(expected_rstd, rstd, out=np.ones_like(rstd), where=rstd != 0).clip(1 / r_max, r_max)
        d = ((mean - expected_mean) * expected_rstd).clip(-d_max, d_max)
        factor = averaging_factor(momentum, num_batches_tracked)
        m = x.size // mean.size
        move(running_mean, mean, factor)
        move(running_var, var * (m / (m - 1)), factor)
    else:
        rstd = expected_rstd
        x_hat = (x - expected_mean) * rstd
        r, d = np.ones_like(rstd), np.zeros_like(rstd)

    w, b = (None if a is None else per_channel(a) for a in (weight, bias))
    z = x_hat * r + d
    return affine(z, w, b), Saved(x_hat, rstd, w, b, axes, training, r, d)


def batch_renorm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (dy - x_hat * c1 - c2) * rstd * r * weight, dweight = sum(dy * z), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, axes, training, r, d = saved
    scale = rstd * r if weight is None else rstd * r * weight

    if training:
        c1 = (dy * x_hat).mean(axis=axes, keepdims=True)
        c2 = dy.mean(axis=axes, keepdims=True)
        dx = dy - x_hat * c1
        dx -= c2
        dx *= scale
    else:
        dx = dy * scale

    z = x_hat * r + d
    dweight = None if weight is None else (dy * z).sum(axis=axes)
    dbias = None if bias is None else dy.sum(axis=axes)
    return Grads(dx, dweight, dbias)
