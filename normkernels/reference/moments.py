"""Mean and variance by two passes: the mean first, then the squares about it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import Moments

Array = NDArray[np.floating[Any]]
Axes = int | tuple[int, ...] | None


def moments(x: Array, axis: int | tuple[int, ...] | None = 0) -> Moments:
    """count, mean = sum(x)/count and population variance var = sum((x - mean)²)/count over `axis`"""
    _, mean, var, _ = standardize(x, axis, 0)
    return Moments(x.size // var.size, np.squeeze(mean, axis), np.squeeze(var, axis))


def standardize(
    x: Array, axes: Axes, eps: float, *, centred: bool = True, total: bool = False
) -> tuple[Array, Array, Array, Array]:
    """x_hat = (x - mean) * rstd with the statistics over `axes`; also mean, var and rstd, axes kept

    Not centred, the mean is taken to be 0; with `total` var is the sum of the squares, not their mean. Where
    squares leave the range of the dtype, every group is scaled by a power of two before squaring.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result = _standardize(x, axes, eps, centred, total)
        if in_range(result[-1]):
            return result
        top = np.abs(x).max(axis=axes, keepdims=True, initial=0)
        exponent = np.frexp(np.maximum(top, x.dtype.type(eps) ** 0.5))[1]
        scaled, scaled_eps = np.ldexp(x, -exponent), np.ldexp(x.dtype.type(eps), -2 * exponent)
        x_hat, mean, var, rstd = _standardize(scaled, axes, scaled_eps, centred, total)
        return x_hat, np.ldexp(mean, exponent), np.ldexp(var, 2 * exponent), np.ldexp(rstd, -exponent)


def _standardize(
    x: Array, axes: Axes, eps: float | Array, centred: bool, total: bool
) -> tuple[Array, Array, Array, Array]:
    mean = x.mean(axis=axes, keepdims=True) if centred else np.zeros(1, x.dtype)
    x_hat = x - mean if centred else x
    squares = np.square(x_hat)
    var = (np.sum if total else np.mean)(squares, axis=axes, keepdims=True)
    rstd = reciprocal_sd(var, eps)
    return np.multiply(x_hat, rstd, out=x_hat if centred else None), mean, var, rstd


def in_range(root: Array) -> bool:
    """Whether these numbers have squares, and what they are reciprocals of, in the range of their dtype"""
    dtype = np.float32 if root.dtype.kind == "V" else root.dtype  # bfloat16 has the range of float32
    limit = np.sqrt(np.finfo(dtype).max) / 16
    return bool(((root > 1 / limit) & (root < limit)).all())


def reciprocal_sd(var: Array, eps: float | Array) -> Array:
    """1/sqrt(var + eps), and 0 where both vanish, so that a constant group gives x_hat = 0, not NaN"""
    sd: Array = np.sqrt(var + eps)
    return np.divide(1, sd, out=np.zeros_like(sd), where=sd != 0)


def across(parameter: Array | None, axes: tuple[int, ...], ndim: int) -> Array | None:
    """A parameter of these axes, in their order, shaped so that it goes with arrays of `ndim` axes"""
    if parameter is None:
        return None
    kept = tuple(a for a in range(ndim) if a not in axes)
    return np.expand_dims(parameter.transpose(np.argsort(axes)), kept)


def summed(a: Array, axes: tuple[int, ...]) -> Array:
    """The sums over all axes but these, which the result has in their order"""
    kept = tuple(k for k in range(a.ndim) if k not in axes)
    sums: Array = a.sum(axis=kept).transpose(np.argsort(np.argsort(axes)))
    return sums


def normalized_axes(x: Array, normalized_shape: int | tuple[int, ...], dim: Axes) -> tuple[int, ...]:
    """The axes of x that are normalized, counted from the first"""
    axes = np.arange(-np.size(normalized_shape), 0) if dim is None else np.atleast_1d(dim)
    return tuple(int(a) % x.ndim for a in axes)


def affine(x_hat: Array, weight: Array | None, bias: Array | None) -> Array:
    """x_hat * weight + bias; x_hat itself where there is neither"""
    if weight is None:
        return x_hat if bias is None else x_hat + bias
    y = x_hat * weight
    if bias is not None:
        y += bias
    return y
