"""Scalers with the interface of scikit-learn, over the functions of the same names.

Needs scikit-learn: ``from normkernels.sklearn import ZScore``.
"""

from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from .functional.moments import moments
from .functional.scaling import minmax, whiten, zscore
from .results import Array

__all__ = ["MinMax", "Whiten", "ZScore"]


class _Scaler(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """What the scalers share: the checks of X, (samples, features), float32 or float64."""

    def _checked(self, X: Any, *, reset: bool) -> Array:
        if not reset:
            check_is_fitted(self)
        checked: Array = validate_data(self, X, dtype=(np.float64, np.float32), reset=reset)
        return checked if checked.dtype.isnative else checked.astype(checked.dtype.newbyteorder("="))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class ZScore(_Scaler):
    """Features of mean 0 and variance 1; a constant feature gives 0.

    Attributes
    ----------
    statistics_ : Moments
        Count, mean and population variance of every feature.
    n_features_in_ : int
        Features seen in `fit`.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the moments of X."""
        self.statistics_ = moments(self._checked(X, reset=True), 0)
        return self

    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Merge the moments of X into those of what came before (`Moments.merge`)."""
        if not hasattr(self, "statistics_"):
            return self.fit(X)
        self.statistics_ = self.statistics_.merge(moments(self._checked(X, reset=False), 0))
        return self

    def transform(self, X: Any) -> Array:
        """(X - mean) / sd"""
        return zscore(self._checked(X, reset=False), 0, statistics=self.statistics_)

    def inverse_transform(self, X: Any) -> Array:
        """X * sd + mean"""
        X = self._checked(X, reset=False)
        _, mean, var = self.statistics_
        return np.asarray(X * np.sqrt(var) + mean, X.dtype)


class MinMax(_Scaler):
    """Features between 0 and 1; a constant feature gives 0.

    Attributes
    ----------
    statistics_ : Range
        Smallest value and range of every feature.
    n_features_in_ : int
        Features seen in `fit`.
    """

    def fit(self, X: Any, y: Any = None) -> Self:
        """Take the range of X."""
        _, self.statistics_ = minmax(self._checked(X, reset=True), 0, return_statistics=True)
        return self

    def transform(self, X: Any) -> Array:
        """(X - min) / (max - min)"""
        return minmax(self._checked(X, reset=False), 0, statistics=self.statistics_)

    def inverse_transform(self, X: Any) -> Array:
        """X * (max - min) + min"""
        X = self._checked(X, reset=False)
        return np.asarray(X * self.statistics_.range + self.statistics_.min, X.dtype)


class Whiten(_Scaler):
    """Features of mean 0 and variance 1 that are not correlated.

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
        """Take the mean and the covariance of X."""
        X = self._checked(X, reset=True)
        _, self.statistics_ = whiten(X, self.method, self.eps, return_statistics=True)
        return self

    def transform(self, X: Any) -> Array:
        """(X - mean) @ matrix.T"""
        return whiten(self._checked(X, reset=False), statistics=self.statistics_)

    def inverse_transform(self, X: Any) -> Array:
        """X @ pinv(matrix).T + mean; directions that were given 0 stay at the mean."""
        X = self._checked(X, reset=False)
        return np.asarray(X @ np.linalg.pinv(self.statistics_.matrix).T + self.statistics_.mean, X.dtype)
