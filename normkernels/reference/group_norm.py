"""Group normalization (Wu & He 2018, equation 7): statistics per sample and group of channels."""

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
    """All of a sample; on `channel_axis` the statistics are taken over C / num_groups channels at a time."""
    num_groups: int
    channel_axis: int


def group_norm(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
) -> Array:
    """y = (x - mean) / sqrt(var + eps) * weight + bias"""
    return group_norm_forward(x, num_groups, weight, bias, eps, channel_axis=channel_axis)[0]


def group_norm_forward(
    x: Array,
    num_groups: int,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
) -> tuple[Array, Saved]:
    """`group_norm`, and what its backward needs"""
    channel_axis %= x.ndim
    others = tuple(i for i in range(x.ndim) if i != channel_axis)

    groups, inside = _split(x, num_groups, channel_axis)
    x_hat, _, _, rstd = standardize(groups, inside, eps)
    x_hat = x_hat.reshape(x.shape)
    rstd = rstd.squeeze(channel_axis + 1).repeat(x.shape[channel_axis] // num_groups, axis=channel_axis)

    w, b = (None if a is None else np.expand_dims(a, others) for a in (weight, bias))
    axes = tuple(range(1, x.ndim))
    return affine(x_hat, w, b), Saved(x_hat, rstd, w, b, axes, num_groups, channel_axis)


def group_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = (wdy - x_hat * c1 - c2) * rstd, dweight = sum(dy * x_hat), dbias = sum(dy)"""
    x_hat, rstd, weight, bias, _, num_groups, channel_axis = saved
    others = tuple(i for i in range(dy.ndim) if i != channel_axis)

    wdy = dy if weight is None else dy * weight
    dx = wdy - x_hat * group_mean(x_hat * wdy, num_groups, channel_axis)
    dx -= group_mean(wdy, num_groups, channel_axis)
    dx *= rstd

    dweight = None if weight is None else (dy * x_hat).sum(axis=others)
    dbias = None if bias is None else dy.sum(axis=others)
    return Grads(dx, dweight, dbias)


def group_mean(a: Array, num_groups: int, channel_axis: int) -> Array:
    """Mean over each group of channels of a sample, once for every channel; the other axes have length 1"""
    groups, inside = _split(a, num_groups, channel_axis)
    mean: Array = groups.mean(axis=inside, keepdims=True).squeeze(channel_axis + 1)
    return mean.repeat(a.shape[channel_axis] // num_groups, axis=channel_axis)


def _split(a: Array, num_groups: int, channel_axis: int) -> tuple[Array, tuple[int, ...]]:
    """a with the groups on `channel_axis` and their channels on the next, and the axes within a group"""
    channels = a.shape[channel_axis] // num_groups
    groups = a.reshape(*a.shape[:channel_axis], num_groups, channels, *a.shape[channel_axis + 1 :])
    return groups, tuple(i for i in range(1, groups.ndim) if i != channel_axis)
