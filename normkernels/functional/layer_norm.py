"""Layer normalization."""

from collections.abc import Sequence

from .. import _passes
from ..results import Array, Grads, Saved
from ._types import ArrayLike


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
    x : array, shape (..., *normalized_shape), float32, float64, float16 or bfloat16
        Taken as it lies where the rows are contiguous and fill memory, in any order of the leading
        axes; other strides are copied, once in each pass.
    normalized_shape : int or sequence of int
        The last dimensions of x.
    weight, bias : array, shape normalized_shape, dtype of x (or float32 beside a half type), optional
        Absent: ones and zeros.
    eps : float
        Added to the variance, in the square of the unit of x. With 0, a row of zero variance gives
        ``bias`` exactly.
    out : array, optional
        Receives y; it may be x itself, but no part of it.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

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
    return _passes.row_norm("layer_norm", x, normalized_shape, weight, bias, eps, out, threads, keep=False)[0]


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
    return _passes.row_norm("layer_norm", x, normalized_shape, weight, bias, eps, out, threads, keep=True)


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
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

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
    return _passes.row_norm_backward("layer_norm", dy, saved, out, threads)
