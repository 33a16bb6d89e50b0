"""Group normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from .. import _group_passes
from ..results import Array, Grads, Saved
from ._types import Activation, ArrayLike


def group_norm(
    x: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Group normalization: every group of a sample's channels to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``; statistics per sample
    over ``C / num_groups`` neighbouring channels and all other axes, ``var`` the population variance.

    Parameters
    ----------
    x : array, shape (N, C), (N, C, L), (N, C, H, W) or any other, float32, float64, float16 or bfloat16
        Samples on the first axis. Taken as it lies in C order with the channels on axis 1; copied once
        in each pass otherwise, for channels-last too.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    num_groups : int
        Divides C. 1 is layer norm over (C, ...), C is instance norm.
    weight, bias : array, shape (C,), dtype of x (or float32 beside a half type), optional
        Absent: ones and zeros.
    eps : float
        Added to the variance, in the square of the unit of x. With 0, a group of zero variance gives
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
        y, of the shape and dtype of x. In memory the channels come second. A group of one element
        gives ``bias`` exactly, where PyTorch raises.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If num_groups does not divide C, or a shape, eps, activation, threads or out breaks its rule.
        Nothing has been written then.

    Notes
    -----
    Wu & He (2018), "Group Normalization", equations 1, 2 and 7.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])  # one sample, four channels
    >>> nk.group_norm(x, 2, np.ones(4), np.zeros(4), eps=0)
    array([[-1.,  1., -1.,  1.]])
    """
    return _group_passes.group_norm(
        x, num_groups, weight, bias, eps, channel_axis, activation, out, threads, keep=False
    )[0]


def group_norm_forward(
    x: ArrayLike,
    num_groups: int,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Grads]]:
    """Forward pass of `group_norm` for training.

    Parameters
    ----------
    x, num_groups, weight, bias, eps, channel_axis, activation, out, threads
        As for `group_norm`, but `out` must not be x: the backward needs x.

    Returns
    -------
    y : array
    saved : Saved
        What `group_norm_backward` takes. It holds x itself: do not change x in between.

    Raises
    ------
    TypeError, ValueError
        As `group_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> y, saved = nk.group_norm_forward(x, 2, np.ones(4), np.zeros(4), eps=0)
    >>> saved.mean  # of each group
    array([ 2., 20.])
    """
    return _group_passes.group_norm(
        x, num_groups, weight, bias, eps, channel_axis, activation, out, threads, keep=True
    )


def group_norm_backward(
    dy: ArrayLike, saved: Saved[Grads], *, out: ArrayLike | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `group_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and ``wdy = weight * dy``, per group of a sample::

        dx = (wdy - x_hat * mean(x_hat * wdy) - mean(wdy)) * rstd
        dweight = sum(dy * x_hat)        dbias = sum(dy)        per channel

    where with an activation dy stands for ``dy * act'(z)``, z recomputed from x.

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if it is not in the memory order of y.
    saved : Saved
        From `group_norm_forward`.
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
    >>> x = np.array([[1.0, 3.0, 10.0, 30.0]])
    >>> y, saved = nk.group_norm_forward(x, 2, np.ones(4), np.zeros(4), eps=0)
    >>> dx, dweight, dbias = nk.group_norm_backward(np.array([[1.0, 2.0, 3.0, 4.0]]), saved)
    >>> dweight, dbias
    (array([-1.,  2., -3.,  4.]), array([1., 2., 3., 4.]))
    """
    return _group_passes.group_norm_backward("group_norm", dy, saved, out, threads)
