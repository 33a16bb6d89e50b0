"""Weight normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from .. import _group_passes
from ..results import Array, Grads, Saved
from ._types import ArrayLike


def weight_norm(
    v: ArrayLike,
    g: ArrayLike,
    dim: int | None = 0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Weight normalization: direction and length of weight vectors apart.

    ``w = g * v / ||v||`` with the Euclidean norm of every slice along `dim`.

    Parameters
    ----------
    v : array of any shape, float32, float64, float16 or bfloat16
        Taken as it lies in C order with ``dim=0`` or None; copied once in each pass otherwise.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    g : array, shape (v.shape[dim],), or that of v with ones for all other axes
        The lengths; one element with ``dim=None``. Of the dtype of v, or float32 beside a half type.
    dim : int or None
        The axis along which the slices lie, of the outputs in a layer's weight; None is one norm of
        all of v (PyTorch's functional form writes -1 for that, which is the last axis here).
    out : array, optional
        Receives w; it may be v itself, but no part of it.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    array
        w, of the shape and dtype of v; in memory `dim` comes first where v was copied. A slice of
        zeros, which has no direction, gives zeros.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If a shape, dim, threads or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Salimans & Kingma (2016), "Weight Normalization", equation 2.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> v, g = np.array([[3.0, 4.0], [5.0, 12.0]]), np.array([10.0, 26.0])
    >>> nk.weight_norm(v, g)
    array([[ 6.,  8.],
           [10., 24.]])
    """
    return _group_passes.weight_norm(v, g, dim, out, threads, keep=False)[0]


def weight_norm_forward(
    v: ArrayLike,
    g: ArrayLike,
    dim: int | None = 0,
    *,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Grads]]:
    """Forward pass of `weight_norm` for training.

    Parameters
    ----------
    v, g, dim, out, threads
        As for `weight_norm`, but `out` must not be v: the backward needs v.

    Returns
    -------
    w : array
    saved : Saved
        What `weight_norm_backward` takes. It holds v itself: do not change v in between.

    Raises
    ------
    TypeError, ValueError
        As `weight_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> v, g = np.array([[3.0, 4.0], [5.0, 12.0]]), np.array([10.0, 26.0])
    >>> w, saved = nk.weight_norm_forward(v, g)
    >>> 1 / saved.rstd  # the lengths
    array([ 5., 13.])
    """
    return _group_passes.weight_norm(v, g, dim, out, threads, keep=True)


def weight_norm_backward(
    dw: ArrayLike, saved: Saved[Grads], *, out: ArrayLike | None = None, threads: int | None = None
) -> Grads:
    """Backward pass of `weight_norm`: the gradients of v and g in one sweep.

    With ``v_hat = v / ||v||``, per slice::

        dg = sum(dw * v_hat)        dv = (dw - v_hat * dg) * g / ||v||

    Parameters
    ----------
    dw : array, shape and dtype of w
        Copied once if it is not in the memory order of w.
    saved : Saved
        From `weight_norm_forward`.
    out : array, optional
        Receives dv; it may be dw or v itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    Grads
        dv as ``dx``, dg, of the shape of g, as ``dweight``; dbias is None. Both are 0 for a slice of zeros.

    Raises
    ------
    TypeError, ValueError
        If dw or out breaks its rule.

    Notes
    -----
    Salimans & Kingma (2016), equation 3; derived step by step in docs/norms.md.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> v, g = np.array([[3.0, 4.0], [5.0, 12.0]]), np.array([10.0, 26.0])
    >>> w, saved = nk.weight_norm_forward(v, g)
    >>> dv, dg, _ = nk.weight_norm_backward(np.array([[1.0, 0.0], [0.0, 1.0]]), saved)
    >>> dv.round(3), dg.round(3)
    (array([[ 1.28 , -0.96 ],
           [-0.71 ,  0.296]]), array([0.6  , 0.923]))
    """
    return _group_passes.group_norm_backward("weight_norm", dw, saved, out, threads)
