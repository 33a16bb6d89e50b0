"""Local response normalization (Krizhevsky, Sutskever & Hinton 2012, section 3.3): neighbouring channels."""

from typing import NamedTuple

import numpy as np

from ..results import Grads
from .moments import Array


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
    s = k + alpha / size * window_sum(np.square(x), size // 2, (size - 1) // 2)
    rstd = s**-beta
    y = x * rstd
    return y, Saved(y, rstd, None, None, (1,), x, s, size, alpha, beta)


def local_response_norm_backward(dy: Array, saved: Saved) -> Grads:
    """dx = dy * s**-beta - 2 * alpha * beta / size * x * sum(dy * y / s), over the windows that x is in"""
    y, rstd, _, _, _, x, s, size, alpha, beta = saved
    felt = window_sum(dy * y / s, (size - 1) // 2, size // 2)
    return Grads(dy * rstd - 2 * alpha * beta / size * x * felt, None, None)


def window_sum(a: Array, before: int, after: int) -> Array:
    """Sums over the channels c - before ... c + after of axis 1"""
    padded = np.pad(a, [(before, after) if i == 1 else (0, 0) for i in range(a.ndim)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, before + after + 1, axis=1)
    sums: Array = windows.sum(axis=-1)
    return sums
