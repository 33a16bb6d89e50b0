"""Statistics that merge."""

from collections.abc import Sequence

from .. import _channel_passes
from ..results import Moments
from ._types import ArrayLike


def moments(x: ArrayLike, axis: int | Sequence[int] | None = None, *, threads: int | None = None) -> Moments:
    """Mean and population variance over some axes.

    Of float64 data to nearly the last bit. float32 data is summed in float32 inside a tile of 4096
    elements and in float64 between tiles: errors of the order of 1e-7 standard deviations.

    Parameters
    ----------
    x : array, float32, float64, float16 or bfloat16
        Copied once if the axes that stay are not neighbours in memory.
        In host memory or on a CUDA device; there the results are `DeviceArray`, and `threads` does nothing.
    axis : int, sequence of int or None
        The axes to reduce; None is all of them.
    threads : int, optional
        How many threads to use, up to ``numba.config.NUMBA_NUM_THREADS``; the result does not depend on it.

    Returns
    -------
    Moments
        count, and mean and var in float64, of the shape of the other axes. `Moments.merge` joins
        statistics of data that never sits in one place. A variance that no float64 can hold, that of
        data with an sd above 1e154, is inf; `zscore` of such data is right all the same.

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
    return _channel_passes.moments(x, axis, threads)
