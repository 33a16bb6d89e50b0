"""Dask arrays and dataframes for estimators: statistics of chunks, and chunks that an estimator transforms.

A fit computes; what comes out of an estimator is lazy.
"""

import copy
import math
from typing import Any

import dask.array as da
import numba
import numpy as np
from dask.delayed import delayed
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import FLOAT_DTYPES, check_array

from . import _dask
from ._features import features, merged
from .functional.scaling import whiten
from .results import Array, Whitening


def sample(X: Any) -> Any:
    """No rows of X, in memory: what dtypes and names of features are known by."""
    if math.isnan(X.shape[1] if len(X.shape) > 1 else 0):
        raise ValueError(
            f"X must have a known number of features, got shape {X.shape}: use X.compute_chunk_sizes()"
        )
    return np.empty((0, *X.shape[1:]), X.dtype) if isinstance(X, da.Array) else X._meta


def array(X: Any, nan: bool) -> Any:
    """X as an array of numbers, whose chunks are checked when they are computed; nan: NaN is allowed."""
    meta = _numbers(sample(X), nan)
    if not isinstance(X, da.Array):
        return X.map_partitions(_numbers, nan, meta=meta)
    if X.shape[0] == 0:
        raise ValueError(f"X must have at least one sample, got shape {X.shape}")
    return X.map_blocks(_numbers, nan, dtype=meta.dtype, meta=meta)


def _numbers(block: Any, nan: bool) -> Array:
    finite = "allow-nan" if nan else True
    X = check_array(block, dtype=FLOAT_DTYPES, ensure_all_finite=finite, ensure_min_samples=0)
    return np.asarray(X, X.dtype.newbyteorder("="))


def feature_moments(X: Any, weight: Any) -> Array:
    """As `_features.features` of all samples."""
    return _rows(array(X, nan=True), _moments_of, 5, merged, weight)


def _is_empty(rows: Array) -> bool:
    """Whether no sample has been counted for any feature; row 0 has the counts."""
    return bool(rows.shape[1]) and not rows[0].any()


def feature_range(X: Any) -> tuple[int, Any]:
    """The number of samples, and two samples of the smallest and the largest values, NaN left out."""
    x = array(X, nan=True)
    rows = _rows(x, _range_of, 3, _merged_ranges)
    ends = rows[1:].astype(x.dtype)
    if not isinstance(X, da.Array):
        ends = type(X._meta)(ends, columns=X.columns)
    return int(rows[0].max(initial=0)), ends


def whitening(X: Any, method: str, eps: float) -> Whitening:
    """The statistics of `whiten`."""
    _, lazy = whiten(array(X, nan=False), method, eps, return_statistics=True)
    return Whitening(*da.compute(*lazy))


def _rows(x: Any, of_block: Any, count: int, add: Any, weight: Any = None) -> Array:
    """Rows of numbers over the features, of all chunks together."""
    options = {"dtype": np.float64, "meta": np.empty((0, 0)), "align_arrays": False}
    weights = () if weight is None else (_weights(weight, x), "i")
    parts = da.blockwise(of_block, "ij", x, "ij", *weights, **options)
    whole = _dask.reduced(parts, (0,), _identity, _is_empty, add)
    return np.asarray(whole.map_blocks(_identity, new_axis=0, chunks=((count,), x.chunks[1])).compute())


def _identity(value: Any, *_: Any) -> Any:
    return value


def _weights(weight: Any, x: Any) -> Any:
    """Weights of samples, in chunks that lie beside those of x."""
    if np.ndim(weight) == 0 and not hasattr(weight, "dask"):
        return x[:, 0].map_blocks(_constant, weight, dtype=np.float64)
    weight = weight.to_dask_array() if hasattr(weight, "to_dask_array") else da.asarray(weight)
    if math.isnan(x.shape[0] + sum(weight.shape)):
        if weight.ndim != 1 or weight.numblocks != x.numblocks[:1]:
            raise ValueError(
                f"sample_weight must have a chunk for each of the {x.numblocks[0]} of X, whose sizes are not "
                f"known, got {weight.numblocks} chunks"
            )
        return weight
    if weight.shape != x.shape[:1]:
        raise ValueError(f"sample_weight must have shape {x.shape[:1]}, got {weight.shape}")
    return weight.rechunk((x.chunks[0],))


def _constant(x: Array, weight: float) -> Array:
    return np.full(x.shape, weight, np.float64)


def _moments_of(x: Array, weight: Array | None = None) -> Array:
    if weight is not None:
        weight = _numbers(weight[:, None], nan=False)[:, 0]
        if len(weight) != len(x):
            raise ValueError(f"sample_weight must have shape {x.shape[:1]} in this chunk, got {weight.shape}")
    return features(x, weight, 1)


def _range_of(x: Array) -> Array:
    """Rows of count, smallest, largest; NaN where there is nothing else."""
    low, high = (f.reduce(x, axis=0, initial=np.nan) for f in (np.fmin, np.fmax))
    return np.stack((np.full(x.shape[1], float(len(x))), low, high)).astype(np.float64)


def _merged_ranges(parts: Any) -> Array:
    counts, lows, highs = np.moveaxis(np.stack(list(parts)), 1, 0)
    return np.stack((counts.sum(0), np.fmin.reduce(lows), np.fmax.reduce(highs)))


def mapped(estimator: Any, method: str, X: Any) -> Any:
    """What a method gives chunk by chunk: an array, or a dataframe if `set_output` says so."""
    dense = _get_output_config("transform", estimator)["dense"] if method == "transform" else "default"
    if dense not in ("default", "pandas"):
        raise ValueError(f"the output of Dask data must be default or pandas, got {dense!r}")
    frames, lazy_array = dense == "pandas", isinstance(X, da.Array)
    own = copy.copy(estimator)  # what it learns later is not in these chunks
    vars(own).pop("_sklearn_output_config", None)
    own.set_output(transform="pandas" if frames and not lazy_array else "default")
    if "copy" in own.get_params():
        own.set_params(copy=True)
    own = delayed(own, pure=True)  # once in the graph, not in every task
    numbers = _numbers(sample(X), nan=True)
    if lazy_array:
        if X.numblocks[1] != 1:
            rule = "X must have its features in one chunk"
            raise ValueError(f"{rule}, got chunks of {X.chunks[1]}: use X.rechunk({{1: -1}})")
        y = X.map_blocks(_by, own, method, numbers, dtype=numbers.dtype, meta=numbers)
        return _frame(y, estimator) if frames else y
    meta = numbers
    if frames:
        meta = X._meta.iloc[:0, :0].reindex(columns=estimator.get_feature_names_out()).astype(numbers.dtype)
    return X.map_partitions(_by, own, method, meta, meta=meta, align_dataframes=False)


def _frame(y: Any, estimator: Any) -> Any:
    import dask.dataframe as dd  # needs more than arrays do

    return dd.from_dask_array(y, columns=list(estimator.get_feature_names_out()))


def _by(block: Any, estimator: Any, method: str, nothing: Any) -> Any:
    if not len(block):
        return nothing
    before = numba.get_num_threads()
    numba.set_num_threads(1)  # Dask has several tasks at once
    try:
        return getattr(estimator, method)(block)
    finally:
        numba.set_num_threads(before)
