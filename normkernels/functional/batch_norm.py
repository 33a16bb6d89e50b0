"""Batch normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from typing import Any, overload

from .. import _channel_passes
from ..results import Array, G, Grads, ResidualGrads, Saved
from ._types import Activation, ArrayLike


def batch_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: int | ArrayLike | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Batch normalization: every channel to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``. In training the
    statistics are those of x over all axes but `channel_axis`, with the population variance; in
    evaluation they are the running statistics.

    Parameters
    ----------
    x : array, shape (N, C), (N, C, L), (N, C, H, W) or any other; float32, float64, float16 or bfloat16
        Channels-last is given by ``channel_axis=-1``, or as a transposed view. An array whose
        elements fill memory in some order of the axes is taken as it is; other strides are copied,
        once in each pass.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    running_mean, running_var : array, shape (C,), of any of the dtypes, or None
        In training updated in place, `running_var` with the unbiased variance:
        ``running = (1 - momentum) * running + momentum * new``. Both are needed in evaluation.
    weight, bias : array, shape (C,), dtype of x (or float32 beside a half type), optional
        Absent: ones and zeros.
    training : bool
        Whether to use the statistics of x.
    momentum : float or None
        None is the cumulative average: the weight of the new batch is 1/(num_batches_tracked + 1).
    eps : float
        Added to the variance, in the square of the unit of x.
    num_batches_tracked : int or integer array of one element
        Batches seen before this one, with ``momentum=None``; an array is incremented in training.
    channel_axis : int
        The axis of the channels.
    residual : array, shape and dtype of x, optional
        Added to the output, before the activation and in the same pass, as in residual networks.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Applied to the output in the same pass; gelu is the exact one, ``z * Phi(z)``.
    out : array, optional
        Receives y; it may be x or residual itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    array
        y, of the shape and dtype of x, and of its memory layout; in C order where x was copied. An
        empty batch gives an empty array and leaves the running statistics alone.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If a shape, eps, activation, threads or out breaks its rule, if running statistics are missing in
        evaluation, or if a channel has one value only in training. Nothing has been written then.

    Notes
    -----
    Ioffe & Szegedy (2015), "Batch Normalization", algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])
    >>> running_mean, running_var = np.zeros(2), np.ones(2)
    >>> weight, bias = np.ones(2), np.array([0.0, 5.0])
    >>> nk.batch_norm(x, running_mean, running_var, weight, bias, training=True, eps=0)
    array([[-1.,  4.],
           [ 1.,  6.]])
    >>> running_mean, running_var
    (array([0.2, 2. ]), array([ 1.1, 20.9]))
    """
    return _channel_passes.batch_norm(
        "batch_norm", x, running_mean, running_var, weight, bias, training, momentum, eps, 1.0, 0.0,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=False,
    )[0]  # fmt: skip


@overload
def batch_norm_forward(
    x: ArrayLike, running_mean: ArrayLike | None, running_var: ArrayLike | None,
    weight: ArrayLike | None = ..., bias: ArrayLike | None = ..., training: bool = ...,
    momentum: float | None = ..., eps: float = ..., *,
    num_batches_tracked: int | ArrayLike | None = ..., channel_axis: int = ..., residual: None = ...,
    activation: Activation | None = ..., out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[Grads]]: ...  # fmt: skip


@overload
def batch_norm_forward(
    x: ArrayLike, running_mean: ArrayLike | None, running_var: ArrayLike | None,
    weight: ArrayLike | None = ..., bias: ArrayLike | None = ..., training: bool = ...,
    momentum: float | None = ..., eps: float = ..., *,
    num_batches_tracked: int | ArrayLike | None = ..., channel_axis: int = ..., residual: ArrayLike,
    activation: Activation | None = ..., out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[ResidualGrads]]: ...  # fmt: skip


def batch_norm_forward(
    x: ArrayLike,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
    *,
    num_batches_tracked: int | ArrayLike | None = None,
    channel_axis: int = 1,
    residual: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Any]]:
    """Forward pass of `batch_norm` with what its backward needs.

    Parameters
    ----------
    x, running_mean, running_var, weight, bias, training, momentum, eps
        As for `batch_norm`.
    num_batches_tracked, channel_axis, residual, activation, out, threads
        As for `batch_norm`, but `out` must not be x or residual: the backward needs them.

    Returns
    -------
    y : array
    saved : Saved
        What `batch_norm_backward` takes. It holds x and residual themselves: do not change them in
        between.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x, weight, bias = np.array([[1.0, 10.0], [3.0, 30.0]]), np.ones(2), np.zeros(2)
    >>> y, saved = nk.batch_norm_forward(x, None, None, weight, bias, training=True, eps=0)
    >>> saved.mean, saved.rstd
    (array([ 2., 20.]), array([1. , 0.1]))
    """
    return _channel_passes.batch_norm(
        "batch_norm", x, running_mean, running_var, weight, bias, training, momentum, eps, 1.0, 0.0,
        num_batches_tracked, channel_axis, residual, activation, out, threads, keep=True,
    )  # fmt: skip


def batch_norm_backward(
    dy: ArrayLike, saved: Saved[G], *, out: ArrayLike | None = None, threads: int | None = None
) -> G:
    """Backward pass of `batch_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and M elements per channel::

        dbias = sum(dy)        dweight = sum(dy * x_hat)
        dx = (dy - x_hat * dweight / M - dbias / M) * rstd * weight        in training
        dx = dy * rstd * weight                                            in evaluation

    where with an activation dy stands for ``dy * act'(z)``, z recomputed from x and residual; that is
    dresidual too.

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if its strides are not those of x.
    saved : Saved
        From `batch_norm_forward`.
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
    Ioffe & Szegedy (2015), section 3; derived step by step in docs/norms.md.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x, weight, bias = np.array([[1.0, 10.0], [3.0, 30.0]]), np.ones(2), np.zeros(2)
    >>> y, saved = nk.batch_norm_forward(x, None, None, weight, bias, training=True, eps=0)
    >>> dx, dweight, dbias = nk.batch_norm_backward(np.array([[1.0, 2.0], [3.0, 4.0]]), saved)
    >>> dweight, dbias
    (array([2., 2.]), array([4., 6.]))
    """
    return _channel_passes.batch_norm_backward("batch_norm", dy, saved, out, threads)
