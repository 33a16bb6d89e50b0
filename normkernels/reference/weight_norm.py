"""Weight normalization (Salimans & Kingma 2016, equations 2 and 3): direction and length apart."""

from typing import NamedTuple

from ..results import Grads
from .moments import Array, standardize


class Saved(NamedTuple):
    x_hat: Array
    """v / ||v||"""
    rstd: Array
    """1 / ||v||"""
    weight: Array
    """g, beside v"""
    bias: None
    axes: tuple[int, ...]
    g_shape: tuple[int, ...]


def weight_norm(v: Array, g: Array, dim: int | None = 0) -> Array:
    """w = g * v / ||v||, a norm for every index along `dim`, or one norm of all"""
    return weight_norm_forward(v, g, dim)[0]


def weight_norm_forward(v: Array, g: Array, dim: int | None = 0) -> tuple[Array, Saved]:
    """`weight_norm`, and what its backward needs; a slice of zeros has v_hat = 0"""
    axes = tuple(i for i in range(v.ndim) if dim is None or i != dim % v.ndim)
    v_hat, _, _, rstd = standardize(v, axes, 0, centred=False, total=True)
    scale = g.reshape(rstd.shape)
    return v_hat * scale, Saved(v_hat, rstd, scale, None, axes, g.shape)


def weight_norm_backward(dw: Array, saved: Saved) -> Grads:
    """dv = (dw - v_hat * dg) * g / ||v||, dg = sum(dw * v_hat)"""
    v_hat, rstd, g, _, axes, g_shape = saved
    dg = (dw * v_hat).sum(axis=axes, keepdims=True)
    dv = (dw - v_hat * dg) * (rstd * g)
    return Grads(dv, dg.reshape(g_shape), None)
