"""Normalization of data before it is used, forward only."""

from collections.abc import Sequence
from typing import Literal, overload

from .. import _scaling
from ..results import Array, Moments, Range, Whitening
from ._types import ArrayLike

Axis = int | Sequence[int] | None


@overload
def zscore(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Moments | None = None,
    return_statistics: Literal[False] = False,
    out: Array | None = None,
    threads: int | None = None,
) -> Array: ...
@overload
def zscore(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Moments | None = None,
    return_statistics: Literal[True],
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Array, Moments]: ...
def zscore(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Moments | None = None,
    return_statistics: bool = False,
    out: Array | None = None,
    threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Bring every slice to mean 0 and variance 1: standard scores.

    ``y = (x - mean) / sqrt(var)``, statistics over `axis`, ``var`` the population variance.

    Parameters
    ----------
    x : array, float32, float64, float16 or bfloat16
        In host memory. Copied once if the axes that stay are not neighbours there.
    axis : int, sequence of int or None
        The axes of a slice; None is all of them. With 0, every column is a slice.
    statistics : Moments, optional
        Statistics of other data to apply, of the shape of the other axes; from `zscore`, `moments` or
        `Moments.merge`. Absent: those of x.
    return_statistics : bool
        Whether to return the statistics too.
    out : array, optional
        Receives y; it may be x itself, but no part of it.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    y : array
        Of the shape and dtype of x. A slice of zero variance gives 0, also for new data.
    statistics : Moments
        Those that were applied, in float64; only with `return_statistics`.

    Raises
    ------
    TypeError
        If x is not such an array, or statistics no Moments.
    ValueError
        If an axis does not exist or is named twice, a slice without statistics has no element, or
        statistics, threads or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Moments as of `moments`: Chan, Golub & LeVeque (1979).
    """
    y, used = _scaling.zscore(x, axis, statistics, out, threads)
    return (y, used) if return_statistics else y


@overload
def minmax(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Range | None = None,
    return_statistics: Literal[False] = False,
    out: Array | None = None,
) -> Array: ...
@overload
def minmax(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Range | None = None,
    return_statistics: Literal[True],
    out: Array | None = None,
) -> tuple[Array, Range]: ...
def minmax(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    statistics: Range | None = None,
    return_statistics: bool = False,
    out: Array | None = None,
) -> Array | tuple[Array, Range]:
    """Every slice to 0..1: its smallest value gives 0 exactly, its largest 1.

    ``y = (x - min) / (max - min)``, statistics over `axis`.

    Parameters
    ----------
    x : array, float32, float64, float16 or bfloat16
        In host memory.
    axis : int, sequence of int or None
        The axes of a slice; None is all of them. With 0, every column is a slice.
    statistics : Range, optional
        Statistics of other data to apply, of the shape of the other axes; results may then leave
        0..1. Absent: those of x.
    return_statistics : bool
        Whether to return the statistics too.
    out : array, optional
        Receives y; it may be x itself, but no part of it.

    Returns
    -------
    y : array
        Of the shape and dtype of x. A slice of range 0 gives 0, also for new data; one with NaN gives NaN.
    statistics : Range
        Those that were applied: ``min`` and ``range``, in the unit and dtype of x, float32 for half
        types; only with `return_statistics`.

    Raises
    ------
    TypeError
        If x is not such an array, or statistics no Range.
    ValueError
        If an axis does not exist or is named twice, a slice without statistics has no element, or
        statistics or out breaks its rule. Nothing has been written then.
    """
    y, used = _scaling.minmax(x, axis, statistics, out)
    return (y, used) if return_statistics else y


@overload
def whiten(
    x: ArrayLike,
    method: str = "zca",
    eps: float = 1e-5,
    *,
    statistics: Whitening | None = None,
    return_statistics: Literal[False] = False,
) -> Array: ...
@overload
def whiten(
    x: ArrayLike,
    method: str = "zca",
    eps: float = 1e-5,
    *,
    statistics: Whitening | None = None,
    return_statistics: Literal[True],
) -> tuple[Array, Whitening]: ...
def whiten(
    x: ArrayLike,
    method: str = "zca",
    eps: float = 1e-5,
    *,
    statistics: Whitening | None = None,
    return_statistics: bool = False,
) -> Array | tuple[Array, Whitening]:
    """Whitening: features of mean 0 and variance 1 that are not correlated.

    ``y = (x - mean) @ matrix.T``, with the eigenvectors U and the eigenvalues var of the population
    covariance of the features::

        matrix = U diag(1/sqrt(var + eps)) Uᵀ        zca: y as near to x as can be
        matrix = diag(1/sqrt(var + eps)) Uᵀ          pca: the largest variance first

    Parameters
    ----------
    x : array, shape (samples, features), float32, float64, float16 or bfloat16
        In host memory.
    method : {"zca", "pca"}
    eps : float
        Added to the variances, in the square of the unit of x. With 0, directions in which x does not
        vary give 0.
    statistics : Whitening, optional
        Statistics of other data to apply; method and eps are not used then. Absent: those of x.
    return_statistics : bool
        Whether to return the statistics too.

    Returns
    -------
    y : array
        Of the shape and dtype of x; computed in float64. All of it is NaN if an element of x is NaN
        or infinite. Of the two signs of a row of pca's matrix, its largest element is positive.
    statistics : Whitening
        Those that were applied: ``mean`` (features,) and ``matrix`` (features, features), in float64;
        only with `return_statistics`.

    Raises
    ------
    TypeError
        If x is not such an array, or statistics no Whitening.
    ValueError
        If x has not 2 dimensions or, without statistics, no sample, or method, eps or statistics
        breaks its rule.

    Notes
    -----
    Kessy, Lewin & Strimmer (2018), "Optimal Whitening and Decorrelation", table 1.
    """
    y, used = _scaling.whiten(x, method, eps, statistics)
    return (y, used) if return_statistics else y
