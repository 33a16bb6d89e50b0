"""Batch renormalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from typing import Any, overload

from .. import _channel_passes
from ..results import Array, G, Grads, ResidualGrads, Saved
from ._types import Activation, ArrayLike


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
    num_batches_tracked: int | ArrayLike | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
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

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> running_mean, running_var = np.array([2.0, 19.0]), np.array([4.0, 100.0])
    >>> weight, bias = np.ones(2), np.zeros(2)
    >>> nk.batch_renorm(x, running_mean, running_var, weight, bias, training=True, eps=0)
    array([[-0.5, -0.9],
           [ 0.5,  1.1]])
    """
    return _channel_passes.batch_norm(
        "batch_renorm", x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=False,
    )[0]  # fmt: skip


@overload
def batch_renorm_forward(
    x: ArrayLike, running_mean: ArrayLike, running_var: ArrayLike, weight: ArrayLike | None = ...,
    bias: ArrayLike | None = ..., training: bool = ..., momentum: float | None = ..., eps: float = ...,
    r_max: float = ..., d_max: float = ..., *, num_batches_tracked: int | ArrayLike | None = ...,
    channel_axis: int = ..., residual: None = ..., activation: Activation | None = ...,
    out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[Grads]]: ...  # fmt: skip


@overload
def batch_renorm_forward(
    x: ArrayLike, running_mean: ArrayLike, running_var: ArrayLike, weight: ArrayLike | None = ...,
    bias: ArrayLike | None = ..., training: bool = ..., momentum: float | None = ..., eps: float = ...,
    r_max: float = ..., d_max: float = ..., *, num_batches_tracked: int | ArrayLike | None = ...,
    channel_axis: int = ..., residual: ArrayLike, activation: Activation | None = ...,
    out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[ResidualGrads]]: ...  # fmt: skip


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
    num_batches_tracked: int | ArrayLike | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Any]]:
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

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> running_mean, running_var = np.array([2.0, 19.0]), np.array([4.0, 100.0])
    >>> weight, bias = np.ones(2), np.zeros(2)
    >>> y, saved = nk.batch_renorm_forward(x, running_mean, running_var, weight, bias, training=True)
    >>> r, d = saved.renorm
    >>> r.round(3), d.round(3)
    (array([0.5, 1. ]), array([0. , 0.1]))
    """
    return _channel_passes.batch_norm(
        "batch_renorm", x, running_mean, running_var, weight, bias, training, momentum, eps, r_max, d_max,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=True,
    )  # fmt: skip


def batch_renorm_backward(
    dy: ArrayLike, saved: Saved[G], *, out: ArrayLike | None = None, threads: int | None = None
) -> G:
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

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> running_mean, running_var = np.array([2.0, 19.0]), np.array([4.0, 100.0])
    >>> weight, bias = np.ones(2), np.zeros(2)
    >>> y, saved = nk.batch_renorm_forward(x, running_mean, running_var, weight, bias, training=True)
    >>> dx, dweight, dbias = nk.batch_renorm_backward(np.array([[1.0, 2.0], [3.0, 4.0]]), saved)
    >>> dbias
    array([4., 6.])
    """
    return _channel_passes.batch_norm_backward("batch_renorm", dy, saved, out, threads)
