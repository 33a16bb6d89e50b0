"""Moments of features, each of which leaves its NaN out, of samples that may have weights; and their merge.

They are 5 rows over the features: count, or sum of weights, mean and what it lost by rounding, m2 and what
that lost. A feature of which nothing was seen has rows of 0.
"""

from collections.abc import Iterable

import numpy as np

from . import _formulas
from ._moments import moments
from .results import Array, merge_pairs

# Elements of weighted data at a time.
PART = 2**18


def features(x: Array, weight: Array | None = None, threads: int | None = None) -> Array:
    """Moments of x (samples, features); weight: of every sample."""
    if weight is not None:
        rows = max(1, PART // max(1, x.shape[1]))
        starts = range(0, max(1, len(x)), rows)
        return merged(_weighted(x[i : i + rows], weight[i : i + rows]) for i in starts)
    found = _unweighted(x, threads)
    for i in np.flatnonzero(np.isnan(found[1])):
        values = x[~np.isnan(x[:, i]), i]
        found[:, i] = _unweighted(values[:, None], threads)[:, 0]
    return found


def _unweighted(x: Array, threads: int | None) -> Array:
    found = np.zeros((5, x.shape[1]))
    if len(x):
        whole = moments(x, 0, threads)
        found[0], found[1], found[2] = whole.count, whole.mean, whole._mean_low
        found[3] = whole.var * whole.count
    return found


def _weighted(x: Array, weight: Array) -> Array:
    """A corrected two-pass about the smallest value; rows are features, whose sums NumPy adds up in pairs.

    Values that are all equal thus have a variance of exactly 0, whatever the weights.
    """
    x = x.T.astype(np.float64, order="C")
    missing = np.isnan(x)
    w = np.where(missing, 0.0, weight.astype(np.float64))
    count = w.sum(1)
    divisor = np.where(count == 0, 1.0, count)
    origin = np.where(count == 0, 0.0, x.min(1, initial=np.inf, where=w > 0))
    x[missing] = 0.0
    x -= origin[:, None]
    mean = (w * x).sum(1) / divisor
    x -= mean[:, None]
    w *= x
    rest = w.sum(1) / divisor
    w *= x
    m2 = np.maximum(w.sum(1) - count * rest * rest, 0.0)
    mean, low = _formulas.two_sum(origin, mean)
    found = np.stack((count, *_formulas.two_sum(mean, low + rest), m2, np.zeros_like(m2)))
    return np.where(count == 0, 0.0, found)


def merged(parts: Iterable[Array]) -> Array:
    """Moments of all samples together, merged in this order."""
    parts = iter(parts)
    whole = next(parts)
    for part in parts:
        larger = whole[0] >= part[0]
        a, b = np.where(larger, whole, part), np.where(larger, part, whole)
        with np.errstate(invalid="ignore"):  # 0 / 0, where there is nothing on either side
            mean, m2 = merge_pairs(a[0], (a[1], a[2]), (a[3], a[4]), b[0], (b[1], b[2]), (b[3], b[4]))
        whole = np.where(b[0] == 0, a, np.stack((a[0] + b[0], *mean, *m2)))
    return whole
