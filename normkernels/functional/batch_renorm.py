"""Batch renormalization."""

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _channel_passes
from ..results import Array, Grads, ResidualGrads, Saved
from ._types import ArrayLike


def batch_renorm(
    x: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    num_batches_tracked: int | npt.NDArray[np.integer[Any]] | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """Batch renormalization: batch norm that is corrected towards the running statistics in training.

    ``y = (x_hat * r + d) * weight + bias`` with ``x_hat = (x - mean) * rstd`` of the batch and, per
    channel, both taken as constants by the backward::

        r = clip(sd / running_sd, 1 / r_max, r_max)
        d = clip((mean - running_mean) / running_sd, -d_max, d_max)

    where ``sd = sqrt(var + eps)``. While nothing is clipped, y is what evaluation would give.

    Parameters
    ----------
    x, weight, bias, training, momentum, eps
        As for `batch_norm`.
    running_mean, running_var : array, shape (C,), of any of the dtypes
        Needed in training too, where they decide r and d and are then updated in place.
    r_max, d_max : float
        How far the correction may go, at least 1 and 0. With ``r_max=1, d_max=0`` this is `batch_norm`,
        to the bit; training usually begins there and relaxes both.
    num_batches_tracked, channel_axis, residual, activation, out, threads
        As for `batch_norm`.

    Returns
    -------
    array
        As `batch_norm`.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm`, and if r_max, d_max or the running statistics break their rule.

    Notes
    -----
    Ioffe (2017), "Batch Renormalization", algorithm 1.
    """
    return _channel_passes.batch_norm(
        "batch_renorm", x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=False,
    )[0]  # fmt: skip


def batch_renorm_forward(
    x: ArrayLike,
    running_mean: ArrayLike,
    running_var: ArrayLike,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    num_batches_tracked: int | npt.NDArray[np.integer[Any]] | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved]:
    """Forward pass of `batch_renorm` with what its backward needs.

    Parameters
    ----------
    x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max
        As for `batch_renorm`.
    num_batches_tracked, channel_axis, residual, activation, out, threads
        As for `batch_renorm`, but `out` must not be x or residual: the backward needs them.

    Returns
    -------
    y : array
    saved : Saved
        What `batch_renorm_backward` takes. It holds x and residual themselves: do not change them in
        between.

    Raises
    ------
    TypeError, ValueError
        As `batch_renorm`.
    """
    return _channel_passes.batch_norm(
        "batch_renorm", x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=True,
    )  # fmt: skip


def batch_renorm_backward(
    dy: ArrayLike, saved: Saved, *, out: Array | None = None, threads: int | None = None
) -> Grads | ResidualGrads:
    """Backward pass of `batch_renorm`: dx, dweight and dbias in one sweep; r and d are constants.

    With M elements per channel, in training::

        dbias = sum(dy)        dweight = sum(dy * (x_hat * r + d))
        dx = (dy - x_hat * sum(dy * x_hat) / M - dbias / M) * rstd * r * weight

    where with an activation dy stands for ``dy * act'(z)``, z recomputed from x and residual; that is
    dresidual too.

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if its strides are not those of x.
    saved : Saved
        From `batch_renorm_forward`.
    out : array, optional
        Receives dx; it may be dy or x itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    Grads, or ResidualGrads after a residual
        dx, dweight, dbias; None for a parameter that was not given. Without an activation dresidual is
        dy itself, and a copy of it only where `out` takes its place.

    Raises
    ------
    TypeError, ValueError
        If dy or out breaks its rule.

    Notes
    -----
    Ioffe (2017), section 3; derived step by step in docs/norms.md.
    """
    return _channel_passes.batch_norm_backward("batch_renorm", dy, saved, out, threads)
