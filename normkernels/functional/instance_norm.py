"""Instance normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from .. import _group_passes
from ..results import Array, Grads, Saved
from ._types import Activation, ArrayLike


def instance_norm(
    x: ArrayLike,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Instance normalization: every channel of every sample to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``; statistics per sample
    and channel, with the population variance, or the running statistics.

    Parameters
    ----------
    x : array, shape (N, C, L), (N, C, H, W) or any other; float32, float64, float16 or bfloat16
        Samples on the first axis. Taken as it lies in C order with the channels on axis 1; copied once
        in each pass otherwise, for channels-last too.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    running_mean, running_var : array, shape (C,), of any of the dtypes, or None
        With `use_input_stats` updated in place by the averages over the samples, `running_var` by
        that of the unbiased variances: ``running = (1 - momentum) * running + momentum * new``.
        Both are needed without.
    weight, bias : array, shape (C,), dtype of x (or float32 beside a half type), optional
        Absent: ones and zeros.
    use_input_stats : bool
        Whether to use the statistics of x, not the running ones.
    momentum : float
        The weight of the new statistics in the running ones.
    eps : float
        Added to the variance, in the square of the unit of x. With 0, a channel of zero variance gives
        ``bias`` exactly.
    channel_axis : int
        The axis of the channels, not the first.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Applied to the output in the same pass; gelu is the exact one, ``z * Phi(z)``.
    out : array, optional
        Receives y; it may be x itself, but no part of it.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    array
        y, of the shape and dtype of x. In memory the channels come second where x has been copied.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If a shape, eps, momentum, activation, threads or out breaks its rule, if running statistics are
        missing, or if there is one value only per sample and channel. Nothing has been written then.

    Notes
    -----
    Ulyanov, Vedaldi & Lempitsky (2016), "Instance Normalization: The Missing Ingredient for Fast
    Stylization", section 2.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])  # one sample, two channels of two elements
    >>> running_mean, running_var = np.zeros(2), np.ones(2)
    >>> nk.instance_norm(x, running_mean, running_var, np.ones(2), np.zeros(2), eps=0)
    array([[[-1.,  1.],
            [-1.,  1.]]])
    >>> running_mean
    array([0.2, 2. ])
    """
    return _group_passes.instance_norm(
        x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps,
        channel_axis, activation, out, threads, keep=False,
    )[0]  # fmt: skip


def instance_norm_forward(
    x: ArrayLike,
    running_mean: ArrayLike | None = None,
    running_var: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Grads]]:
    """Forward pass of `instance_norm` for training.

    Parameters
    ----------
    x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        As for `instance_norm`.
    channel_axis, activation, out, threads
        As for `instance_norm`, but `out` must not be x: the backward needs x.

    Returns
    -------
    y : array
    saved : Saved
        What `instance_norm_backward` takes. It holds x itself: do not change x in between.

    Raises
    ------
    TypeError, ValueError
        As `instance_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> y, saved = nk.instance_norm_forward(x, weight=np.ones(2), bias=np.zeros(2), eps=0)
    >>> saved.mean, saved.rstd
    (array([ 2., 20.]), array([1. , 0.1]))
    """
    return _group_passes.instance_norm(
        x, running_mean, running_var, weight, bias, use_input_stats, momentum, eps,
        channel_axis, activation, out, threads, keep=True,
    )  # fmt: skip


def instance_norm_backward(
    dy: ArrayLike, saved: Saved[Grads], *, out: ArrayLike | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `instance_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and means over a channel of a sample::

        dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * rstd * weight      statistics of x
        dx = dy * rstd * weight                                              running statistics
        dweight = sum(dy * x_hat)        dbias = sum(dy)        per channel

    where with an activation dy stands for ``dy * act'(z)``, z recomputed from x.

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if it is not in the memory order of y.
    saved : Saved
        From `instance_norm_forward`.
    out : array, optional
        Receives dx; it may be dy or x itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

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
    Derived step by step in docs/norms.md.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> y, saved = nk.instance_norm_forward(x, weight=np.ones(2), bias=np.zeros(2), eps=0)
    >>> dx, dweight, dbias = nk.instance_norm_backward(np.array([[[1.0, 2.0], [3.0, 4.0]]]), saved)
    >>> dweight, dbias
    (array([1., 1.]), array([3., 7.]))
    """
    return _group_passes.group_norm_backward("instance_norm", dy, saved, out, threads)
