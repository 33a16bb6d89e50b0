"""Layer normalization."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from collections.abc import Sequence
from typing import Any, overload

from .. import _row_passes
from ..results import Array, G, Grads, ResidualGrads, Saved
from ._types import Activation, ArrayLike


def layer_norm(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    dim: int | Sequence[int] | None = None,
    residual: ArrayLike | None = None,
    sum_out: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> Array:
    """Layer normalization: every row to mean 0 and variance 1, then weight and bias.

    ``y = (x - mean) * rstd * weight + bias`` with ``rstd = 1/sqrt(var + eps)``, statistics over the
    last ``len(normalized_shape)`` dimensions, or those that `dim` names, ``var`` the population variance.

    Parameters
    ----------
    x : array, shape (..., *normalized_shape), float32, float64, float16 or bfloat16
        Taken as it lies where the rows are contiguous and fill memory, in any order of the leading
        axes, or where those of `dim` are neighbours in memory; other strides are copied, once in each pass.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    normalized_shape : int or sequence of int
        The last dimensions of x, or those of `dim`.
    weight, bias : array, shape normalized_shape, dtype of x (or float32 beside a half type), optional
        Absent: ones and zeros.
    eps : float
        Added to the variance, in the square of the unit of x. With 0, a row of zero variance gives
        ``bias`` exactly.
    dim : int or sequence of int, optional
        The axes that `normalized_shape` names the sizes of, where they are not the last ones, in the order of
        the axes of weight and bias. ``dim=1`` normalizes images, (N, C, H, W), over their channels at every
        position, without moving axes. Axes that are no neighbours in memory, in this order, or have fewer
        than 8 elements behind them, are copied to be the last ones, as they are in the memory of y. On a CUDA
        device they must be the last ones in memory.
    residual : array, shape and dtype of x, optional
        Added to x before the norm, in the same pass: the result is that for ``x + residual`` to the bit.
    sum_out : array, optional
        Receives ``x + residual``; it may be x or residual itself, but no part of them.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Applied to the output in the same pass; gelu is the exact one, ``z * Phi(z)``.
    out : array, optional
        Receives y; it may be x or residual itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    array
        y, of the shape and dtype of x, and of its memory layout. Where x was copied it is in C order, or has
        the axes of `dim` last in memory.

    Raises
    ------
    TypeError
        If an argument is of another dtype, or not an array.
    ValueError
        If a shape, dim, eps, activation, threads or an output breaks its rule. Nothing has been written then.
    NotImplementedError
        If x is on a CUDA device and the axes of dim are not the last ones in memory.

    Notes
    -----
    Ba, Kiros & Hinton (2016), "Layer Normalization", equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0], [10.0, 30.0]])
    >>> weight, bias = np.array([2.0, 2.0]), np.array([0.0, 1.0])
    >>> nk.layer_norm(x, 2, weight, bias, eps=0)
    array([[-2.,  3.],
           [-2.,  3.]])

    Images of two channels and two positions, normalized over the channels:

    >>> nk.layer_norm(x.reshape(1, 2, 1, 2), 2, eps=0, dim=1)
    array([[[[-1., -1.]],
    <BLANKLINE>
            [[ 1.,  1.]]]])
    """
    return _row_passes.row_norm(
        "layer_norm", x, normalized_shape, weight, bias, eps, dim, residual, sum_out, activation, out,
        threads, keep=False,
    )[0]  # fmt: skip


@overload
def layer_norm_forward(
    x: ArrayLike, normalized_shape: int | Sequence[int], weight: ArrayLike | None = ...,
    bias: ArrayLike | None = ..., eps: float = ..., *, dim: int | Sequence[int] | None = ...,
    residual: None = ..., sum_out: None = ..., activation: Activation | None = ...,
    out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[Grads]]: ...  # fmt: skip


@overload
def layer_norm_forward(
    x: ArrayLike, normalized_shape: int | Sequence[int], weight: ArrayLike | None = ...,
    bias: ArrayLike | None = ..., eps: float = ..., *, dim: int | Sequence[int] | None = ...,
    residual: ArrayLike, sum_out: ArrayLike | None = ..., activation: Activation | None = ...,
    out: ArrayLike | None = ..., threads: int | None = ...,
) -> tuple[Array, Saved[ResidualGrads]]: ...  # fmt: skip


def layer_norm_forward(
    x: ArrayLike,
    normalized_shape: int | Sequence[int],
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    *,
    dim: int | Sequence[int] | None = None,
    residual: ArrayLike | None = None,
    sum_out: ArrayLike | None = None,
    activation: Activation | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> tuple[Array, Saved[Any]]:
    """Forward pass of `layer_norm` for training.

    Parameters
    ----------
    x, normalized_shape, weight, bias, eps, dim, residual, sum_out, activation, out, threads
        As for `layer_norm`. The backward needs what was normalized: without a residual `out` must not be x.

    Returns
    -------
    y : array
    saved : Saved
        What `layer_norm_backward` takes. ``saved.x`` is what was normalized, x itself or the sum with
        residual (in `sum_out` where that is given): do not change it in between. A residual stream that is
        updated in place by the next layer loses what this layer's backward needs. ``saved.mean`` and
        ``saved.rstd`` are flat, in the order of memory, also under `dim`.

    Raises
    ------
    TypeError, ValueError
        As `layer_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x, residual = np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]])
    >>> y, saved = nk.layer_norm_forward(x, 2, np.ones(2), np.zeros(2), residual=residual)
    >>> saved.x  # x + residual
    array([[2., 4.]])
    >>> saved.mean
    array([3.])
    """
    return _row_passes.row_norm(
        "layer_norm", x, normalized_shape, weight, bias, eps, dim, residual, sum_out, activation, out,
        threads, keep=True,
    )  # fmt: skip


def layer_norm_backward(
    dy: ArrayLike,
    saved: Saved[G],
    *,
    dsum: ArrayLike | None = None,
    out: ArrayLike | None = None,
    threads: int | None = None,
) -> G:
    """Backward pass of `layer_norm`: dx, dweight and dbias in one sweep.

    With ``x_hat = (x - mean) * rstd`` and ``wdy = weight * dy``, per row::

        dx = (wdy - x_hat * mean(x_hat * wdy) - mean(wdy)) * rstd
        dweight = sum(dy * x_hat)        dbias = sum(dy)        over the rows

    where with an activation dy stands for ``dy * act'(z)``, z recomputed from x.

    Parameters
    ----------
    dy : array, shape and dtype of y
        Copied once if its strides are not those of x.
    saved : Saved
        From `layer_norm_forward`.
    dsum : array, shape and dtype of dy, optional
        The gradient that arrives at what was normalized, x or its sum with residual, on another way:
        past the norm, along the residual stream. It is added to dx.
    out : array, optional
        Receives dx; it may be dy, dsum or ``saved.x`` itself, but no part of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    Grads, or ResidualGrads after a residual
        dx, dweight, dbias; None for a parameter that was not given. dresidual is dx, the same array: x and
        residual enter alike. A row of one element has dx = 0 and adds nothing to dweight.

    Raises
    ------
    TypeError, ValueError
        If dy, dsum or out breaks its rule.

    Notes
    -----
    Derived step by step in docs/norms.md.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x, weight, bias = np.array([[1.0, 2.0, 3.0]]), np.ones(3), np.zeros(3)
    >>> y, saved = nk.layer_norm_forward(x, 3, weight, bias)
    >>> dx, dweight, dbias = nk.layer_norm_backward(np.array([[1.0, 0.0, 0.0]]), saved)
    >>> dx.round(3)
    array([[ 0.204, -0.408,  0.204]])
    >>> dbias
    array([1., 0., 0.])
    """
    return _row_passes.row_norm_backward("layer_norm", dy, saved, dsum, out, threads)
