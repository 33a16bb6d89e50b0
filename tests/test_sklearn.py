"""The scalers with the interface of scikit-learn, where it is installed."""

import numpy as np
import pytest

import normkernels as nk
from helpers import assert_same_bits

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from normkernels.sklearn import MinMax, Whiten, ZScore  # noqa: E402

SCALERS = [ZScore(), MinMax(), Whiten(), Whiten("pca", 1e-8)]


@parametrize_with_checks(SCALERS)
def test_scikit_learn_accepts(estimator, check):
    check(estimator)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inverse(scaler, dtype, rng):
    X = rng.normal(3, 2, (100, 4)).astype(dtype)
    X[:, 2] = 7
    scaler = clone(scaler).fit(X)
    back = scaler.inverse_transform(scaler.transform(X))
    assert back.dtype == dtype
    np.testing.assert_allclose(back, X, rtol=0, atol=1e4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(ZScore(), StandardScaler()), (MinMax(), MinMaxScaler())], ids=str
)
def test_as_the_scaler_of_scikit_learn(ours, theirs, rng):
    X, new = rng.normal(3, 2, (100, 4)), rng.normal(3, 2, (10, 4))
    np.testing.assert_allclose(
        clone(ours).fit(X).transform(new), theirs.fit(X).transform(new), rtol=0, atol=1e-13
    )


def test_partial_fit_is_the_fit_of_all(rng):
    X = rng.normal(1e3, 1, (100, 4))
    parts = ZScore()
    for part in np.split(X, [1, 40]):
        assert parts.partial_fit(part) is parts
    whole = ZScore().fit(X)
    assert parts.statistics_.count == 100
    for a, b in zip(parts.statistics_[1:], whole.statistics_[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert whole.fit(X[:7]).statistics_.count == 7  # begins again


def test_parameters_reach_the_function(rng):
    X = rng.normal(size=(50, 3))
    assert_same_bits(Whiten("pca", 0.5).fit_transform(X), nk.whiten(X, "pca", 0.5))
    with pytest.raises(ValueError, match="method must be one of"):
        Whiten("lda").fit(X)


def test_in_a_pipeline(rng):
    X = rng.normal(3, 2, (50, 3))
    pipeline = make_pipeline(ZScore(), MinMax())
    np.testing.assert_allclose(pipeline.fit_transform(X), nk.minmax(nk.zscore(X)))
    assert list(pipeline.fit(X).get_feature_names_out(["a", "b", "c"])) == ["a", "b", "c"]
