"""Normalizing data before a model sees it: forward only."""

from typing import Literal

import numpy as np

from .moments import Array, reciprocal_sd, standardize


def zscore(x: Array, axis: int | tuple[int, ...] | None = 0) -> Array:
    """(x - mean) / sd, population sd; 0 where all values along `axis` are equal"""
    x_hat, *_ = standardize(x, axis, 0)
    x_hat *= np.ptp(x, axis=axis, keepdims=True) != 0
    return x_hat


def minmax(x: Array, axis: int | tuple[int, ...] | None = 0) -> Array:
    """(x - min) / (max - min), from 0 to 1; 0 where all values along `axis` are equal"""
    low = x.min(axis=axis, keepdims=True)
    extent = x.max(axis=axis, keepdims=True) - low
    y: Array = np.divide(x - low, extent, out=np.zeros_like(x), where=extent != 0)
    return y


def whiten(x: Array, method: Literal["zca", "pca"] = "zca", eps: float = 1e-5) -> Array:
    """(x - mean) @ W.T with W cov W.T = 1 but for eps; samples by features, float32 or float64

    With x - mean = U diag(s) V.T and lambda = s²/n, W is diag(1/sqrt(lambda + eps)) V.T for PCA, largest
    lambda first and the sign of each output undetermined, and V times that for ZCA, the W closest to doing
    nothing. An s that is mere rounding beside the largest counts as 0, and so does its output.
    """
    u, s, vt = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    s[s <= max(x.shape) * np.finfo(x.dtype).eps * s.max(initial=0)] = 0
    y: Array = u * (s * reciprocal_sd(s * s / len(x), eps))
    y = y @ vt if method == "zca" else np.pad(y, ((0, 0), (0, x.shape[1] - len(s))))
    return y
