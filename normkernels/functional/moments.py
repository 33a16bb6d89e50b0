"""Statistics that merge."""

from __future__ import annotations  # help() shows ArrayLike, not the protocols that it is

from collections.abc import Sequence

from .. import _moments
from .._arrays import is_dask_array
from ..results import Moments
from ._types import ArrayLike


def moments(x: ArrayLike, axis: int | Sequence[int] | None = 0, *, threads: int | None = None) -> Moments:
    """Mean and population variance over some axes.

    Of float64 data to nearly the last bit. float32 data is summed in float32 inside a tile of 4096
    elements and in float64 between tiles: errors of the order of 1e-7 standard deviations.

    Parameters
    ----------
    x : array, float32, float64, float16 or bfloat16
        In host memory, where integers, bools and lists are taken as float64,
        or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
        Or a Dask array, chunked along any axes: mean and var are then Dask arrays, and ``compute()`` of
        the result gives Moments, with the same bits for any scheduler and number of workers.
    axis : int, sequence of int or None
        The axes to reduce; None is all of them. With 0, every column is a group.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.
        For a chunk of a Dask array it is 1 by default.

    Returns
    -------
    Moments
        count, and mean and var in float64, of the shape of the other axes: scalars where there is none. A
        group with NaN gives NaN. `Moments.merge`, ``+`` and ``sum`` join statistics of data that never sits
        in one place, and lose nothing, whatever the number of parts. A variance that no float64 can hold,
        that of data with an sd above 1e154, is inf; `zscore` of such data is right all the same.

    Raises
    ------
    TypeError
        If x is not such an array.
    ValueError
        If an axis does not exist or is named twice, or no element is left to reduce.

    Notes
    -----
    Chan, Golub & LeVeque (1979): corrected two-pass sums over tiles, merged by equation 2.1.

    Memory besides the results: 64 MB, or a quarter of x if that is more; integers become a float64 array of
    their size first. Arrays with gaps, and those whose
    kept axes are not neighbours in memory, are copied in parts: a sixteenth of x, or a group where that is
    larger.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> nk.moments([1, 2, 6])
    Moments(count=3, mean=np.float64(3.0), var=np.float64(4.666666666666667))
    >>> sum(nk.moments(part) for part in ([1], [2, 6])).variance(ddof=1)
    np.float64(7.0)
    """
    if is_dask_array(x):
        from .. import _dask  # needs a package that not everybody has

        lazy: Moments = _dask.moments(x, axis, threads)
        return lazy
    return _moments.moments(x, axis, threads)
