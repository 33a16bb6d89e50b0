"""Scalers with the interface of scikit-learn, over the functions of the same names.

Needs scikit-learn: ``from normkernels.sklearn import ZScore``.

They take Dask arrays and dataframes, too: a fit then computes, chunk by chunk, and what comes out is lazy, an
array, or a dataframe after ``set_output(transform="pandas")``.
"""

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Self, TypeVar

import numpy as np
from scipy import sparse  # which scikit-learn needs
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.utils.validation import (
    FLOAT_DTYPES,
    _check_sample_weight,
    check_array,
    check_is_fitted,
    validate_data,
)

from . import _whitening
from ._arrays import is_dask_array, not_lazy
from ._features import features, merged
from .functional.scaling import minmax, whiten, zscore
from .results import Array, Moments, Range

__all__ = ["MinMax", "Whiten", "ZScore"]


def _checked(estimator: Any, X: Any, *, reset: bool, **options: Any) -> Array:
    not_lazy(X, "X")
    if not reset:
        check_is_fitted(estimator)
    X = validate_data(estimator, X, reset=reset, **{"dtype": FLOAT_DTYPES, **options})
    return np.asarray(X, X.dtype.newbyteorder("="))


def _check_outputs(estimator: Any, X: Any) -> None:
    """Refuse what an estimator cannot take back; names of features are those of its input."""
    check_is_fitted(estimator)
    if len(X.shape) != 2 or X.shape[1] != estimator.n_features_in_:
        raise ValueError(f"X must have {estimator.n_features_in_} features, got shape {X.shape}")


def _lazy(X: Any) -> bool:
    """Whether X is an array or a dataframe of Dask."""
    frames = sys.modules.get("dask.dataframe")
    return is_dask_array(X) or (frames is not None and isinstance(X, frames.DataFrame))


def _dask() -> ModuleType:
    from . import _dask_estimators  # needs a package that not everybody has

    return _dask_estimators


C = TypeVar("C")


def _of_chunks(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that takes Dask data chunk by chunk."""

    @functools.wraps(method)
    def taking_chunks(self: Any, X: Any, *args: Any, **options: Any) -> Any:
        if not _lazy(X):
            return method(self, X, *args, **options)
        if method.__name__ == "inverse_transform":
            _check_outputs(self, _dask().sample(X))
        else:
            _checked(self, _dask().sample(X), reset=False, ensure_min_samples=0)
        return _dask().mapped(self, method.__name__, X)

    return taking_chunks


def _takes_dask(scaler: type[C]) -> type[C]:
    """Make the transforms of a scaler take Dask data; its fit does so by itself."""
    for name in ("transform", "inverse_transform"):
        setattr(scaler, name, _of_chunks(getattr(scaler, name)))
    in_memory = scaler.fit_transform  # type: ignore[attr-defined]

    @functools.wraps(in_memory)
    def fit_transform(self: Any, X: Any, y: Any = None, **options: Any) -> Any:
        return self.fit(X, y, **options).transform(X) if _lazy(X) else in_memory(self, X, y, **options)

    scaler.fit_transform = fit_transform  # type: ignore[attr-defined]
    return scaler


def _without_array_api(tags: Any) -> Any:
    tags.array_api_support = False
    return tags


@_takes_dask
class ZScore(StandardScaler):  # type: ignore[misc]
    """A `sklearn.preprocessing.StandardScaler` with the mean and variance of `normkernels.moments`.

    The variance stays accurate where the mean is large beside it, however many parts `partial_fit` saw.
    Parameters, attributes, sample weights, NaN and constant features are as there, except that a feature is
    constant only if its values are equal; sparse matrices are left to it.

    Attributes
    ----------
    statistics_ : Moments
        ``n_samples_seen_``, ``mean_`` and ``var_``.
    """

    mean_: Any
    var_: Any
    scale_: Any
    n_samples_seen_: Any
    _seen: Array | None
    """As `_features.features`; None where scikit-learn's own formulas took the last part."""

    @property
    def statistics_(self) -> Moments:
        check_is_fitted(self)
        count, mean, low, m2, m2_low = self._before()
        none = count == 0
        with np.errstate(invalid="ignore"):  # 0 / 0, of a feature of which nothing was seen
            var = (m2 + m2_low) / count
        return Moments(self.n_samples_seen_, np.where(none, np.nan, mean), var)._with_pairs(low, m2, m2_low)

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:
        """Merge the moments of X into those of what came before."""
        self._validate_params()
        first = not hasattr(self, "n_samples_seen_")
        if sparse.issparse(X):
            super().partial_fit(X, y, sample_weight)
            self._seen = None
            return self
        if _lazy(X):
            _checked(self, _dask().sample(X), reset=first, ensure_min_samples=0)
            self._add(_dask().feature_moments(X, sample_weight), first, whole=sample_weight is None)
            return self
        X = _checked(self, X, reset=first, ensure_all_finite="allow-nan")
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
        self._add(features(X, sample_weight), first, whole=sample_weight is None)
        return self

    def _add(self, seen: Array, first: bool, whole: bool) -> None:
        """Merge the moments of more samples; whole: their counts are integers."""
        if not first:
            seen = merged((self._before(), seen))
            whole = whole and np.asarray(self.n_samples_seen_).dtype.kind != "f"
        count = np.where(seen[0] > 0, seen[0], np.nan)
        self.mean_, self.var_ = np.where(seen[0] > 0, seen[1], np.nan), (seen[3] + seen[4]) / count
        count = seen[0].astype(np.int64) if whole else seen[0]
        self.n_samples_seen_ = count if np.ptp(count) else count[0]
        self.scale_ = np.where(self.var_ == 0, 1.0, np.sqrt(self.var_))
        self._seen = seen
        if not self.with_std:
            self.var_, self.scale_ = None, None
            self.mean_ = self.mean_ if self.with_mean else None

    def _before(self) -> Array:
        if self._seen is not None:
            return self._seen
        nothing = np.zeros(self.n_features_in_)
        seen = self.n_samples_seen_ + nothing
        mean, var = (nothing if value is None else value for value in (self.mean_, self.var_))
        return np.where(seen > 0, (seen, mean, nothing, var * seen, nothing), 0.0)

    def transform(self, X: Any, copy: bool | None = None) -> Any:
        """``(X - mean_) / scale_``"""
        check_is_fitted(self)
        if sparse.issparse(X):
            return super().transform(X, copy)
        copy = self.copy if copy is None else copy
        X = _checked(self, X, reset=False, ensure_all_finite="allow-nan", force_writeable=not copy)
        mean = self.mean_ if self.with_mean else np.zeros(X.shape[1])
        var = np.square(self.scale_) if self.with_std else np.ones(X.shape[1])
        # Not from the pool of buffers: what a scaler gives stays with its user.
        return zscore(X, statistics=Moments(1, mean, var), out=np.empty_like(X) if copy else X)

    def __sklearn_tags__(self) -> Any:
        return _without_array_api(super().__sklearn_tags__())


@_takes_dask
class MinMax(MinMaxScaler):  # type: ignore[misc]
    """A `sklearn.preprocessing.MinMaxScaler` that takes the smallest and largest value to the ends exactly.

    Parameters, attributes, NaN, constant features and what is refused are as there.

    Attributes
    ----------
    statistics_ : Range
        ``data_min_`` and ``data_max_``.
    """

    n_samples_seen_: Any

    @property
    def statistics_(self) -> Range:
        check_is_fitted(self)
        return Range(self.data_min_, self.data_max_)

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Widen the range by what is in X."""
        if not _lazy(X):
            super().partial_fit(X, y)
            return self
        self._validate_params()
        low, high = self.feature_range
        if low >= high:
            raise ValueError(
                f"feature_range must have its minimum first, below its maximum, got {(low, high)}"
            )
        before = getattr(self, "n_samples_seen_", 0)
        _checked(self, _dask().sample(X), reset=not before, ensure_min_samples=0)
        count, ends = _dask().feature_range(X)
        super().partial_fit(ends)
        self.n_samples_seen_ = before + count
        return self

    def transform(self, X: Any) -> Any:
        """``(X - data_min_) / data_range_``, in ``feature_range``."""
        options = {"ensure_all_finite": "allow-nan", "force_writeable": not self.copy}
        X = _checked(self, X, reset=False, **options)
        constant = self.data_range_ < 10 * np.finfo(self.data_range_.dtype).eps  # as scikit-learn has it
        unscaled = X[:, constant] - self.data_min_[constant]
        y = minmax(X, statistics=self.statistics_, out=None if self.copy else X)
        y[:, constant] = unscaled
        low, high = self.feature_range
        if (low, high) != (0, 1):
            top = y == 1
            y *= high - low
            y += low
            y[top] = high
        return np.clip(y, low, high, out=y) if self.clip else y

    def __sklearn_tags__(self) -> Any:
        return _without_array_api(super().__sklearn_tags__())


@_takes_dask
class Whiten(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of mean 0 and variance 1 that are not correlated, named ``zca0``, ``zca1``, … or ``pca0``, …

    Parameters
    ----------
    method : {"zca", "pca"}
        As for `normkernels.whiten`.
    eps : float
        Added to the variances, in the square of the unit of X.

    Attributes
    ----------
    statistics_ : Whitening
        Mean of every feature, and the matrix.
    n_features_in_ : int
        Features seen in `fit`.
    """

    def __init__(self, method: str = "zca", eps: float = 1e-5) -> None:
        self.method = method
        self.eps = eps

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the mean and the matrix of X."""
        if _lazy(X):
            _checked(self, _dask().sample(X), reset=True, ensure_min_samples=0)
            self.statistics_ = _dask().whitening(X, self.method, self.eps)
        else:
            X = _checked(self, X, reset=True)
            _, self.statistics_ = whiten(X, self.method, self.eps, return_statistics=True)
        self._inverse = _whitening.inverse(self.statistics_.matrix, self.method)
        return self

    def transform(self, X: Any) -> Array:
        """``(X - mean) @ matrix.T``"""
        return whiten(_checked(self, X, reset=False), statistics=self.statistics_)

    def inverse_transform(self, X: Any) -> Array:
        """``X @ pinv(matrix).T + mean``; directions that were given 0 stay at the mean."""
        not_lazy(X, "X")
        X = check_array(X, dtype=FLOAT_DTYPES)
        _check_outputs(self, X)
        return np.asarray(X @ self._inverse.T + self.statistics_.mean, X.dtype)

    def get_feature_names_out(self, input_features: Any = None) -> Array:
        """Names of the outputs: the method and a number."""
        check_is_fitted(self)
        return np.array([f"{self.method}{i}" for i in range(self.n_features_in_)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
