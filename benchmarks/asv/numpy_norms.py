"""The norms in plain NumPy: what `track_speedup_vs_numpy` compares with, the same at every commit."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .cases import CASES, GROUPS, inputs

EPS = 1e-5


def standardize(
    norm: str, axes: tuple[int, ...], x: np.ndarray, weight: np.ndarray, bias: Any
) -> tuple[Callable[[], Any], Callable[[np.ndarray], Any]]:
    """Forward and backward of a norm with the statistics of x over `axes`."""
    centred = norm != "rms_norm"
    own = tuple(i for i in range(x.ndim) if weight.shape[i] == 1)  # axes that share a weight
    r, d = np.float32(1), np.float32(0)
    x_hat = rstd = x

    def forward() -> Any:
        nonlocal x_hat, rstd, r, d
        mean = x.mean(axis=axes, keepdims=True) if centred else np.float32(0)
        x_hat = x - mean
        rstd = 1 / np.sqrt(np.square(x_hat).mean(axis=axes, keepdims=True) + (EPS if centred else 1e-6))
        x_hat *= rstd
        if norm == "batch_renorm":  # beside running statistics of 0 and 1
            r = np.clip(1 / rstd / np.sqrt(np.float32(1 + EPS)), 1 / 3, 3)
            d = np.clip(mean / np.sqrt(np.float32(1 + EPS)), -5, 5)
            return (x_hat * r + d) * weight + bias
        return x_hat * weight + bias

    def backward(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        wdy = dy * weight
        dx = wdy - x_hat * (x_hat * wdy).mean(axis=axes, keepdims=True)
        if centred:
            dx -= wdy.mean(axis=axes, keepdims=True)
        dx *= rstd * r
        z = x_hat * r + d if norm == "batch_renorm" else x_hat
        return dx, (dy * z).sum(axis=own), dy.sum(axis=own)

    return forward, backward


def weight_norm(v: np.ndarray, g: np.ndarray) -> tuple[Callable[[], Any], Callable[[np.ndarray], Any]]:
    rstd = v_hat = v

    def forward() -> Any:
        nonlocal rstd, v_hat
        rstd = 1 / np.sqrt(np.square(v).sum(axis=1, keepdims=True))
        v_hat = v * rstd
        return v_hat * g[:, None]

    def backward(dw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dg = (dw * v_hat).sum(axis=1, keepdims=True)
        return (dw - v_hat * dg) * (rstd * g[:, None]), dg[:, 0]

    return forward, backward


def local_response_norm(x: np.ndarray, size: int) -> tuple[Callable[[], Any], Callable[[np.ndarray], Any]]:
    alpha, beta = 1e-4, 0.75
    s = y = x

    def window_sum(a: np.ndarray) -> Any:
        padded = np.pad(a, [(0, 0), (size // 2, size // 2), (0, 0), (0, 0)])
        return sum(padded[:, i : i + a.shape[1]] for i in range(size))

    def forward() -> Any:
        nonlocal s, y
        s = 1 + alpha / size * window_sum(np.square(x))
        y = x * s**-beta
        return y

    def backward(dy: np.ndarray) -> tuple[np.ndarray]:
        return (dy * s**-beta - 2 * alpha * beta / size * x * window_sum(dy * y / s),)

    return forward, backward


def numpy_call(case: str, batch: int, pass_: str) -> Callable[[], Any]:
    """A function that runs one pass in NumPy: `cases.call` of the same case, without the package."""
    norm = CASES[case].norm
    x, dy, arguments = inputs(case, batch)
    if norm == "weight_norm":
        forward, backward = weight_norm(x, arguments["g"])
    elif norm == "local_response_norm":
        forward, backward = local_response_norm(x, arguments["size"])
    else:
        weight, bias = arguments["weight"], arguments.get("bias", np.float32(0))
        if norm == "group_norm":
            x, dy = (a.reshape(batch, GROUPS, -1, *a.shape[2:]) for a in (x, dy))
            weight, bias = (a.reshape(1, GROUPS, -1, 1, 1) for a in (weight, bias))
            axes: tuple[int, ...] = (2, 3, 4)
        elif norm in ("layer_norm", "rms_norm"):
            weight, axes = weight[None, None], (2,)
        else:
            weight, bias = (a[None, :, None, None] for a in (weight, bias))
            axes = (2, 3) if norm == "instance_norm" else (0, 2, 3)
        forward, backward = standardize(norm, axes, x, weight, bias)
    if pass_ == "forward":
        return forward
    forward()
    return lambda: backward(dy)
