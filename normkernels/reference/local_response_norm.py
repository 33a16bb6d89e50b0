"""Local response normalization (Krizhevsky, Sutskever & Hinton 2012, section 3.3): neighbouring channels."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array, in_range


class Saved(NamedTuple):
    x_hat: Array
    rstd: Array
    """s ** -beta"""
    weight: None
    bias: None
    axes: tuple[int, ...]
    x: Array
    s: Array
    """k + alpha / size * sum(x²) over the window of each channel"""
    root: Array | None
    """s ** -0.5, which is in range where s is not; None where all of s is"""
    size: int
    alpha: float
    beta: float


def local_response_norm(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array:
    """y = x / (k + alpha / size * sum(x²)) ** beta over `size` channels about each, zeros beyond the ends"""
    return local_response_norm_forward(x, size, alpha, beta, k)[0]


def local_response_norm_forward(
    x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> tuple[Array, Saved]:
    """`local_response_norm`, and what its backward needs"""
    with np.errstate(over="ignore", divide="ignore"):
        s = k + alpha / size * window_sum(np.square(x), size // 2, (size - 1) // 2)
        rstd, root = s**-beta, None
        y = x * rstd
        if not in_range(s):
            root = _root(x, size, alpha, k)
            rstd, y = root**beta * root**beta, x * root * root ** (2 * beta - 1)
    return y, Saved(y, rstd, None, None, (1,), x, s, root, size, alpha, beta)


def _root(x: Array, size: int, alpha: float, k: float) -> Array:
    """s ** -0.5, of windows scaled before squaring"""
    seen = windows(x, size // 2, (size - 1) // 2)
    exponent = np.frexp(np.maximum(np.abs(seen).max(-1), abs(k) ** 0.5))[1]
    scaled = np.square(np.ldexp(seen, -exponent[..., None])).sum(-1)
    s = np.ldexp(x.dtype.type(k), -2 * exponent) + alpha / size * scaled
    root: Array = np.ldexp(s**-0.5, -exponent)
    return root


def local_response_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = dy * s**-beta - 2 * alpha * beta / size * x * sum(dy * y / s), over the windows that x is in"""
    y, rstd, _, _, _, x, s, root, size, alpha, beta = saved
    window = (size - 1) // 2, size // 2
    if root is None:
        felt = x * window_sum(dy * y / s, *window)
    else:
        felt = (x[..., None] * windows(root, *window) * windows(dy * y * root, *window)).sum(-1)
    return Grads(dy * rstd - 2 * alpha * beta / size * felt, None, None)


def window_sum(a: Array, before: int, after: int) -> Array:
    """Sums over the channels c - before ... c + after of axis 1"""
    sums: Array = windows(a, before, after).sum(axis=-1)
    return sums


def windows(a: Array, before: int, after: int) -> Array:
    """The channels c - before ... c + after of axis 1, zeros beyond the ends, on a last axis of their own"""
    padded = np.pad(a, [(before, after) if i == 1 else (0, 0) for i in range(a.ndim)])
    return np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1)
