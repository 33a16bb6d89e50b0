"""The public functions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _passes
from .results import Array, Grads, Moments, Saved

ArrayLike = Any
"""A NumPy array, or an object in host memory with ``__array__`` or ``__dlpack__``."""


def layer_norm(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """Layer normalization: every row to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``, statistics over the
    last ``len(normalized_shape)`` dimensions, ``var`` the population variance.

    Parameters
    ----------
    x : array, shape (..., *normalized_shape), float32 or float64
        Taken as it lies where the rows are contiguous and fill memory, in any order of the leading
        axes; other strides are copied, once in each pass.
    normalized_shape : int or sequence of int
        The last dimensions of x.
    weight, bias : array, shape normalized_shape, dtype of x, optional
        Absent: ones and zeros.
    eps : float
        Added to the variance, in the square of the unit of x. With 0, a row of zero variance gives
        ``bias`` exactly.
    out : array, optional
        Receives y; it may be x itself, but no part of it.
    threads : int, optional
        How many threads to use; the result does not depend on it.

    Returns
    -------
    array
        y, of the shape and dtype of x, and of its memory layout; in C order where x was copied.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If a shape, eps, threads or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Ba, Kiros & Hinton (2016), "Layer Normalization", equation 4.
    """
    return _passes.layer_norm(x, normalized_shape, weight, bias, eps, out, threads, keep=False)[0]


def layer_norm_forward(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved]:
    """Forward pass of `layer_norm` for training.

    Parameters
    ----------
    x, normalized_shape, weight, bias, eps, out, threads
        As for `layer_norm`, but `out` must not be x: the backward needs x.

    Returns
    -------
    y : array
    saved : Saved
        What `layer_norm_backward` takes. It holds x itself: do not change x in between.

    Raises
    ------
    TypeError, ValueError
        As `layer_norm`.
    """
    return _passes.layer_norm(x, normalized_shape, weight, bias, eps, out, threads, keep=True)


def layer_norm_backward(
    dy: ArrayLike, saved: Saved, *, out: Array | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `layer_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and ``wdy = weight * dy``, per row::

        dx = (wdy - x_hat * mean(x_hat * wdy) - mean(wdy)) * rstd
        dweight = sum(dy * x_hat)        dbias = sum(dy)        over the rows

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if its strides are not those of x.
    saved : Saved
        From `layer_norm_forward`.
    out : array, optional
        Receives dx; it may be dy or x itself, but no part of them.
    threads : int, optional
        How many threads to use; the result does not depend on it.

    Returns
    -------
    Grads
        dx, dweight, dbias; None for a parameter that was not given. A row of one element has
        dx = 0 and adds nothing to dweight.

    Raises
    ------
    TypeError, ValueError
        If dy or out breaks its rule.

    Notes
    -----
    Derived step by step in docs/norms.md.
    """
    return _passes.layer_norm_backward(dy, saved, out, threads)


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
    num_batches_tracked: int | npt.NDArray[np.integer[Any]] | None = None,
    channel_axis: int = 1,
    out: Array | None = None,
    threads: int | None = None,
) -> Array:
    """Batch normalization: every channel to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``. In training the
    statistics are those of x over all axes but `channel_axis`, with the population variance; in
    evaluation they are the running statistics.

    Parameters
    ----------
    x : array, shape (N, C), (N, C, L), (N, C, H, W), (N, C, D, H, W) or any other, float32 or float64
        Channels-last is given by ``channel_axis=-1``, or as a transposed view. An array whose
        elements fill memory in some order of the axes is taken as it is; other strides are copied,
        once in each pass.
    running_mean, running_var : array, shape (C,), float32 or float64, or None
        In training updated in place, `running_var` with the unbiased variance:
        ``running = (1 - momentum) * running + momentum * new``. Both are needed in evaluation.
    weight, bias : array, shape (C,), dtype of x, optional
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
    out : array, optional
        Receives y; it may be x itself, but no part of it.
    threads : int, optional
        How many threads to use; the result does not depend on it.

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
        If a shape, eps, threads or out breaks its rule, if running statistics are missing in
        evaluation, or if a channel has one value only in training. Nothing has been written then.

    Notes
    -----
    Ioffe & Szegedy (2015), "Batch Normalization", algorithm 1.
    """
    return _passes.batch_norm(
        x, running_mean, running_var, weight, bias, training, momentum, eps,
        num_batches_tracked, channel_axis, out, threads, keep=False,
    )[0]  # fmt: skip


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
    num_batches_tracked: int | npt.NDArray[np.integer[Any]] | None = None,
    channel_axis: int = 1,
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved]:
    """Forward pass of `batch_norm` with what its backward needs.

    Parameters
    ----------
    x, running_mean, running_var, weight, bias, training, momentum, eps
        As for `batch_norm`.
    num_batches_tracked, channel_axis, out, threads
        As for `batch_norm`, but `out` must not be x: the backward needs x.

    Returns
    -------
    y : array
    saved : Saved
        What `batch_norm_backward` takes. It holds x itself: do not change x in between.

    Raises
    ------
    TypeError, ValueError
        As `batch_norm`.
    """
    return _passes.batch_norm(
        x, running_mean, running_var, weight, bias, training, momentum, eps,
        num_batches_tracked, channel_axis, out, threads, keep=True,
    )  # fmt: skip


def batch_norm_backward(
    dy: ArrayLike, saved: Saved, *, out: Array | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `batch_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and M elements per channel::

        dbias = sum(dy)        dweight = sum(dy * x_hat)
        dx = (dy - x_hat * dweight / M - dbias / M) * rstd * weight        in training
        dx = dy * rstd * weight                                            in evaluation

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if its strides are not those of x.
    saved : Saved
        From `batch_norm_forward`.
    out : array, optional
        Receives dx; it may be dy or x itself, but no part of them.
    threads : int, optional
        How many threads to use; the result does not depend on it.

    Returns
    -------
    Grads
        dx, dweight, dbias; None for a parameter that was not given.

    Raises
    ------
    TypeError, ValueError
        If dy or out breaks its rule.

    Notes
    -----
    Ioffe & Szegedy (2015), section 3; derived step by step in docs/norms.md.
    """
    return _passes.batch_norm_backward(dy, saved, out, threads)


def moments(x: ArrayLike, axis: int | Sequence[int] | None = None, *, threads: int | None = None) -> Moments:
    """Mean and population variance over some axes; of float64 data to nearly the last bit.

    Parameters
    ----------
    x : array, float32 or float64
        Copied once if the axes that stay are not neighbours in memory.
    axis : int, sequence of int or None
        The axes to reduce; None is all of them.
    threads : int, optional
        How many threads to use; the result does not depend on it.

    Returns
    -------
    Moments
        count, and mean and var in float64, of the shape of the other axes. `Moments.merge` joins
        statistics of data that never sits in one place.

    Raises
    ------
    TypeError
        If x is not such an array.
    ValueError
        If an axis does not exist or is named twice, or no element is left to reduce.

    Notes
    -----
    Chan, Golub & LeVeque (1979): corrected two-pass sums over tiles, merged by equation 2.1.
    """
    return _passes.moments(x, axis, threads)
