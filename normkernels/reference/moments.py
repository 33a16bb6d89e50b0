"""Mean and variance by two passes: the mean first, then the squares about it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import Moments

Array = NDArray[np.floating[Any]]


def moments(x: Array, axis: int | tuple[int, ...] | None = 0) -> Moments:
    """count, mean = sum(x)/count and population variance var = sum((x - mean)²)/count over `axis`"""
    mean = x.mean(axis=axis, keepdims=True)
    var = np.asarray(np.square(x - mean).mean(axis=axis))
    return Moments(x.size // var.size, mean.reshape(var.shape), var)


def standardize(
    x: Array, axes: int | tuple[int, ...] | None, eps: float
) -> tuple[Array, Array, Array, Array]:
    """x_hat = (x - mean) * rstd with the statistics over `axes`; also mean, var and rstd, axes kept"""
    mean = x.mean(axis=axes, keepdims=True)
    x_hat = x - mean
    var = np.square(x_hat).mean(axis=axes, keepdims=True)
    rstd = reciprocal_sd(var, eps)
    x_hat *= rstd
    return x_hat, mean, var, rstd


def reciprocal_sd(var: Array, eps: float) -> Array:
    """1/sqrt(var + eps), and 0 where both vanish, so that a constant group gives x_hat = 0, not NaN"""
    sd: Array = np.sqrt(var + eps)
    return np.divide(1, sd, out=np.zeros_like(sd), where=sd != 0)


def affine(x_hat: Array, weight: Array | None, bias: Array | None) -> Array:
    """x_hat * weight + bias; x_hat itself where there is neither"""
    if weight is None:
        return x_hat if bias is None else x_hat + bias
    y = x_hat * weight
    if bias is not None:
        y += bias
    return y
