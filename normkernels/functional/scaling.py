"""Normalization of data before it is used, forward only."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from collections.abc import Sequence
from typing import Literal, overload

from .. import _scaling
from .._arrays import is_dask_array
from ..results import Array, Moments, Range, Whitening
from ._types import ArrayLike

Axis = int | Sequence[int] | None


@overload
def zscore(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    ddof: int = 0,
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
    ddof: int = 0,
    statistics: Moments | None = None,
    return_statistics: Literal[True],
    out: Array | None = None,
    threads: int | None = None,
) -> tuple[Array, Moments]: ...
def zscore(
    x: ArrayLike,
    axis: Axis = 0,
    *,
    ddof: int = 0,
    statistics: Moments | None = None,
    return_statistics: bool = False,
    out: Array | None = None,
    threads: int | None = None,
) -> Array | tuple[Array, Moments]:
    """Bring every slice to mean 0 and variance 1: standard scores.

    ``y = (x - mean) / sqrt(var)``, statistics over `axis`; ``var`` is the sum of squared deviations divided
    by ``count - ddof``.

    Parameters
    ----------
    x : array, float32, float64, float16 or bfloat16
        In host memory. Integers, bools and lists are taken as float64. Or a Dask array, chunked along any
        axes, of which nothing is computed here: y and the statistics are of Dask arrays, too.
    axis : int, sequence of int or None
        The axes of a slice; None is all of them. With 0, every column is a slice.
    ddof : int
        0 for the sd of a population, 1 for that estimated from a sample, as in ``scipy.stats.zscore``.
    statistics : Moments, optional
        Statistics of other data to apply, of the shape of the other axes; from `zscore`, `moments` or
        `Moments.merge`. Absent: those of x.
    return_statistics : bool
        Whether to return the statistics too.
    out : array, optional
        Receives y; it may be x itself, but no part of it. None for a Dask array.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    y : array
        Of the shape and dtype of x. A slice of zero variance gives 0, also for new data; one with NaN gives
        NaN.
    statistics : Moments
        Those that were applied, in float64, with the population variance; only with `return_statistics`.

    Raises
    ------
    TypeError
        If x is not such an array, or statistics no Moments.
    ValueError
        If an axis does not exist or is named twice, a slice without statistics has no element, or ddof,
        statistics, threads or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Moments as of `moments`: Chan, Golub & LeVeque (1979).

    Dask keeps the chunks between the pass for the statistics and that for y, or spills them. Of data that is
    larger than its memory, take the statistics first: ``zscore(x, statistics=moments(x).compute())``.

    Memory besides the results: 64 MB, or a quarter of x if that is more; integers become a float64 array of
    their size first. Arrays with gaps, and those whose
    kept axes are not neighbours in memory, are copied in parts: a sixteenth of x, or a slice where that is
    larger.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> nk.zscore(np.array([[1.0, 10.0], [3.0, 30.0]]))
    array([[-1., -1.],
           [ 1.,  1.]])
    """
    if is_dask_array(x):
        from .. import _dask  # needs a package that not everybody has

        y, used = _dask.zscore(x, axis, ddof, statistics, out, threads)
    else:
        y, used = _scaling.zscore(x, axis, ddof, statistics, return_statistics, out, threads)
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
        In host memory. Integers, bools and lists are taken as float64. Or a Dask array, chunked along any
        axes, of which nothing is computed here: y and the statistics are of Dask arrays, too.
    axis : int, sequence of int or None
        The axes of a slice; None is all of them. With 0, every column is a slice.
    statistics : Range, optional
        Statistics of other data to apply, of the shape of the other axes; results may then leave
        0..1. Absent: those of x.
    return_statistics : bool
        Whether to return the statistics too.
    out : array, optional
        Receives y; it may be x itself, but no part of it. None for a Dask array.

    Returns
    -------
    y : array
        Of the shape and dtype of x. A slice of range 0 gives 0, also for new data; one with NaN gives NaN, as
        an infinite element does. Other elements of a slice with one are 0 or NaN.
    statistics : Range
        Those that were applied: ``min`` and ``max``, in the unit and dtype of x, float32 for half types;
        only with `return_statistics`. `Range.merge` joins those of several sets of data.

    Raises
    ------
    TypeError
        If x is not such an array, or statistics no Range.
    ValueError
        If an axis does not exist or is named twice, a slice without statistics has no element, or
        statistics or out breaks its rule. Nothing has been written then.

    Notes
    -----
    Memory besides the results: 64 MB, or a quarter of x if that is more; integers become a float64 array of
    their size first.

    Of Dask arrays larger than the memory of the workers, take the statistics first, as the page on large
    data shows.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> nk.minmax(np.array([1.0, 2.0, 5.0]))
    array([0.  , 0.25, 1.  ])
    """
    if is_dask_array(x):
        from .. import _dask  # needs a package that not everybody has

        y, used = _dask.minmax(x, axis, statistics, out)
    else:
        y, used = _scaling.minmax(x, axis, statistics, return_statistics, out)
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

    ``y = (x - mean) @ matrix.T``. With the eigenvalues var above 0 of the population covariance of the
    features, and their eigenvectors V::

        matrix = V diag(1/sqrt(var + eps)) Vᵀ        zca: y as near to x as can be
        matrix = diag(1/sqrt(var + eps)) Vᵀ          pca: the largest variance first, then rows of 0

    A direction of variance var before has ``var / (var + eps)`` after. One in which x does not vary gives 0,
    also for new data, and for any eps.

    Parameters
    ----------
    x : array, shape (samples, features), float32, float64, float16 or bfloat16
        In host memory. Integers, bools and lists are taken as float64. Or a Dask array, with all features in
        one chunk, of which nothing is computed here: y and the statistics are of Dask arrays, too.
    method : {"zca", "pca"}
    eps : float
        Added to the variances, in the square of the unit of x.
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
    The sd of a direction is right to about 1e-15 of the largest sd: its variance to 1e-9 of itself where that
    is 1e-12 of the largest variance, to 1e-3 where it is 1e-24. Where the sds of the features differ by more
    than 1e6, it is right to 1e-15 of the features that the direction is made of, whatever their units; that
    is slower, by the cube of their number. x does not vary in a direction when no more is left of its
    features, means included, than float64 rounds off.

    Of Dask arrays larger than the memory of the workers, take the statistics first, as the page on large
    data shows. Products of matrices are the BLAS library's: it decides their last bits.

    Memory besides the results: 64 MB, or 8 arrays of (features, features) in float64 if these are more.

    Kessy, Lewin & Strimmer (2018), "Optimal Whitening and Decorrelation", table 1; Demmel & Veselić (1992),
    "Jacobi's Method is More Accurate than QR".

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> nk.whiten(np.array([[1.0, 10.0], [1.0, -10.0], [-1.0, 10.0], [-1.0, -10.0]]), eps=0).round(12)
    array([[ 1.,  1.],
           [ 1., -1.],
           [-1.,  1.],
           [-1., -1.]])
    """
    if is_dask_array(x):
        from .. import _dask  # needs a package that not everybody has

        y, used = _dask.whiten(x, method, eps, statistics)
    else:
        y, used = _scaling.whiten(x, method, eps, statistics)
    return (y, used) if return_statistics else y
