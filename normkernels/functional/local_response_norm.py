"""Local response normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from .. import _local_response
from ..results import Array, Grads, Saved
from ._types import ArrayLike


def local_response_norm(
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Local response normalization: every element by the power of its neighbours across channels.

    ``y = x / d**beta`` with ``d = k + alpha/size * sum(x²)`` over the `size` channels from
    ``c - size//2`` to ``c + (size-1)//2``; channels that do not exist count as zeros.

    Parameters
    ----------
    x : array, shape (N, C, ...), float32, float64, float16 or bfloat16
        Channels on axis 1. Half types are computed in float32. Taken as it lies where it fills memory
        in any order of its axes, so channels-last too; other strides are copied, once in each pass.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    size : int
        Channels of a window, its own one included. An even window has one more before than after it.
    alpha : float
        Factor of the mean square, in 1 over the square of the unit of x.
    beta : float
        The power; 0.25, 0.5, 0.75 and 1 are fast, for they need no general power.
    k : float
        Added to the mean square.
    out : array, optional
        Receives y; it may be x itself, which is copied then, but no part of it.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    array
        y, of the shape and dtype of x, and of its memory layout; in C order where x was copied.
        Where ``d`` is 0, y is NaN for an x of 0.

    Raises
    ------
    TypeError
        If an argument is of another type, or x not an array.
    ValueError
        If a shape, size, alpha, beta, k, threads or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Krizhevsky, Sutskever & Hinton (2012), "ImageNet Classification with Deep Convolutional Neural
    Networks", section 3.3, which has ``alpha`` where this has ``alpha/size``. As in PyTorch.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[3.0, 4.0, 0.0]])  # one sample, three channels
    >>> nk.local_response_norm(x, size=3, alpha=3.0, beta=0.5, k=0.0)
    array([[0.6, 0.8, 0. ]])
    """
    return _local_response.local_response_norm(x, size, alpha, beta, k, out, threads, keep=False)[0]


def local_response_norm_forward(
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Grads]]:
    """Forward pass of `local_response_norm` for training.

    Parameters
    ----------
    x, size, alpha, beta, k, out, threads
        As for `local_response_norm`, but `out` must not be x: the backward needs x.

    Returns
    -------
    y : array
    saved : Saved
        What `local_response_norm_backward` takes. It holds x itself: do not change x in between.

    Raises
    ------
    TypeError, ValueError
        As `local_response_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[3.0, 4.0, 0.0]])
    >>> y, saved = nk.local_response_norm_forward(x, size=3, alpha=3.0, beta=0.5, k=0.0)
    >>> y
    array([[0.6, 0.8, 0. ]])
    """
    return _local_response.local_response_norm(x, size, alpha, beta, k, out, threads, keep=True)


def local_response_norm_backward(
    dy: ArrayLike, saved: Saved[Grads], *, out: ArrayLike | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `local_response_norm`; ``d`` is computed again rather than kept.

    The sum is over the windows that x is in, from ``c - (size-1)//2`` to ``c + size//2``::

        dx = dy / d**beta - 2 * alpha * beta / size * x * sum(dy * x / d**(beta + 1))

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if it is not in the memory order of y.
    saved : Saved
        From `local_response_norm_forward`.
    out : array, optional
        Receives dx; it may be dy or x itself, which is copied then, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    Grads
        dx; dweight and dbias are None.

    Raises
    ------
    TypeError, ValueError
        If dy or out breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[3.0, 4.0, 0.0]])
    >>> y, saved = nk.local_response_norm_forward(x, size=3, alpha=3.0, beta=0.5, k=0.0)
    >>> nk.local_response_norm_backward(np.array([[1.0, 0.0, 0.0]]), saved).dx.round(3)
    array([[ 0.128, -0.096,  0.   ]])
    """
    return _local_response.local_response_norm_backward(dy, saved, out, threads)
