"""The scalers with the interface of scikit-learn, where it is installed."""

import warnings

import numpy as np
import pytest

import normkernels as nk
from helpers import assert_same_bits

sklearn = pytest.importorskip("sklearn")

from scipy import sparse  # noqa: E402
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


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_inverse_of_features_in_very_different_units(method, rng):
    sds = np.array([1e-9, 1.0, 1e9, 1e16, 0.0])
    X = rng.normal(size=(200, 5)) * sds + 10 * sds
    scaler = Whiten(method, eps=0.0).fit(X)
    back = scaler.inverse_transform(scaler.transform(X))
    assert (np.abs(back - X).max(0) <= 1e-10 * sds).all()


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_inverse_of_data_frames(scaler, rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(rng.normal(size=(50, 3)), columns=["a", "b", "c"])
    scaler = clone(scaler).set_output(transform="pandas").fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y in (scaler.transform(X), scaler.transform(X).to_numpy()):
            np.testing.assert_allclose(scaler.inverse_transform(y), X, atol=1e-10)
    with pytest.raises(ValueError, match="3 features"):
        Whiten().fit(X).inverse_transform(np.ones((2, 2)))


def test_constant_features_with_any_weights(rng):
    X, weight = np.tile(rng.random(1000), (200, 1)), rng.random(200)
    fitted = ZScore().fit(X, sample_weight=weight)
    assert (fitted.var_ == 0).all()
    assert_same_bits(fitted.mean_, X[0])
    for part in np.split(np.arange(200), 4):
        fitted.partial_fit(X[part], sample_weight=weight[part])
    assert (fitted.scale_ == 1).all()


@pytest.mark.parametrize(
    "options", [{}, {"with_std": False}, {"with_mean": False, "with_std": False}], ids=str
)
def test_statistics_can_be_used(options, rng):
    X = rng.normal(3, 2, (50, 4))
    statistics = ZScore(**options).fit(X).statistics_
    np.testing.assert_allclose(nk.zscore(X, statistics=statistics), nk.zscore(X), atol=1e-12)
    assert (statistics + nk.moments(X)).count == 100
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"one count for all groups, got counts of shape \(4,\)"):
        ZScore().fit(X).statistics_ + nk.moments(X)


def with_nan(X, rng):
    X = X.copy()
    X[rng.random(X.shape) < 0.1] = np.nan
    X[:, 3], X[:5, 4] = np.nan, np.nan
    return X


PAIRS = [
    (ZScore(), StandardScaler()),
    (ZScore(with_mean=False), StandardScaler(with_mean=False)),
    (ZScore(with_std=False), StandardScaler(with_std=False)),
    (ZScore(with_mean=False, with_std=False), StandardScaler(with_mean=False, with_std=False)),
    (MinMax(), MinMaxScaler()),
    (MinMax((-2, 3)), MinMaxScaler((-2, 3))),
    (MinMax(clip=True), MinMaxScaler(clip=True)),
]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=str)
@pytest.mark.parametrize("nan", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.filterwarnings("ignore:All-NaN slice", "ignore:invalid value:RuntimeWarning:sklearn")
def test_as_the_scaler_of_scikit_learn(ours, theirs, nan, dtype, parts, rng):
    X, new = rng.normal(3, 20, (90, 6)), rng.normal(3, 30, (10, 6))
    X[:, 2] = 7
    X, new = X.astype(dtype), new.astype(dtype)
    if nan and dtype is not np.int64:
        X, new = with_nan(X, rng), with_nan(new, rng)
    ours, theirs = clone(ours), clone(theirs)
    if parts == 1:
        ours.fit(X)
        theirs.fit(X)
    for part in np.split(X, parts) if parts > 1 else ():
        assert ours.partial_fit(part) is ours
        theirs.partial_fit(part)
    tolerance = 1e-5 if dtype is np.float32 else 1e-12
    assert set(vars(theirs)) == {name for name in vars(ours) if name != "_seen"}
    for name, value in vars(theirs).items():
        if name.endswith("_") and value is not None:
            assert np.shape(getattr(ours, name)) == np.shape(value), name
            np.testing.assert_allclose(getattr(ours, name), value, tolerance, tolerance, err_msg=name)
    for data in (X, new):
        y, expected = ours.transform(data), theirs.transform(data)
        assert y.dtype == expected.dtype
        np.testing.assert_allclose(y, expected, rtol=0, atol=50 * tolerance)
        np.testing.assert_allclose(ours.inverse_transform(y), theirs.inverse_transform(expected), atol=1e-3)
    assert list(ours.get_feature_names_out()) == list(theirs.get_feature_names_out())


def test_sample_weights_and_sparse_matrices_as_in_scikit_learn(rng):
    X, weight = rng.normal(size=(50, 3)), rng.integers(1, 4, 50)
    ours, theirs = ZScore().partial_fit(X[:20]), StandardScaler().partial_fit(X[:20])
    for scaler in (ours, theirs):
        scaler.partial_fit(X[20:40], sample_weight=weight[20:40]).partial_fit(X[40:])
    np.testing.assert_allclose(ours.transform(X), theirs.transform(X), atol=1e-12)
    np.testing.assert_allclose(ours.fit(X, None, weight).mean_, np.average(X, 0, weight), rtol=1e-12)
    S = sparse.csr_array(X * (X > 1))
    y = ZScore(with_mean=False).fit(S).transform(S)
    np.testing.assert_allclose(y.toarray(), StandardScaler(with_mean=False).fit_transform(S).toarray())


def test_weights_and_repeated_samples_are_the_same(rng):
    X, weight = with_nan(rng.normal(1e7, 1, (200, 6)), rng), rng.integers(0, 4, 200)
    X[:, 3] = 7
    repeated = ZScore().fit(np.repeat(X, weight, axis=0))
    for parts in (1, 5):
        weighted = ZScore()
        for part, w in zip(np.split(X, parts), np.split(weight, parts), strict=True):
            weighted.partial_fit(part, sample_weight=w)
        np.testing.assert_array_equal(weighted.n_samples_seen_, repeated.n_samples_seen_)
        np.testing.assert_allclose(weighted.mean_, repeated.mean_, rtol=1e-15)
        np.testing.assert_allclose(weighted.var_, repeated.var_, rtol=1e-14)
    frame = rng.normal(1e7, 1, (100_000, 3)).astype(np.float64)
    var = ZScore().fit(frame, sample_weight=np.full(len(frame), 2.5)).var_
    np.testing.assert_allclose(var, nk.moments(frame).var, rtol=1e-14)


def test_weights_of_nothing():
    X = np.array([[1.0, np.nan], [2.0, 3.0], [4.0, np.nan]])
    scaler = ZScore().fit(X, sample_weight=[1.0, 0.0, 3.0])
    assert scaler.n_samples_seen_.tolist() == [4.0, 0.0]
    np.testing.assert_array_equal(scaler.mean_, [3.25, np.nan])
    scaler.partial_fit([[3.25, 5.0]])
    assert scaler.n_samples_seen_.tolist() == [5.0, 1.0]
    np.testing.assert_array_equal(scaler.mean_, [3.25, 5.0])
    with pytest.raises(ValueError, match="sample_weight.shape"):
        ZScore().fit(X, sample_weight=[1.0, 2.0])


def test_parts_lose_nothing(rng):
    X = rng.normal(1e7, 1, (1000, 7, 3))
    scaler = ZScore()
    for part in X:
        scaler.partial_fit(part)
    np.testing.assert_allclose(scaler.var_, nk.moments(X, (0, 1)).var, rtol=1e-15)
    assert_same_bits((scaler.statistics_ + scaler.statistics_)._pairs()[0], scaler.statistics_._pairs()[0])


@pytest.mark.parametrize("scaler", [ZScore(copy=False), MinMax(copy=False)], ids=str)
def test_without_a_copy(scaler, rng):
    X = rng.normal(size=(50, 3))
    expected = clone(scaler).set_params(copy=True).fit_transform(X)
    assert np.shares_memory(scaler.fit(X).transform(X), X)
    assert_same_bits(X, expected)


def test_variance_beside_a_large_mean(rng):
    X = 1e10 + rng.normal(size=(1000, 2))
    expected = (X - 1e10).var(0)
    np.testing.assert_allclose(ZScore().fit(X).var_, expected, rtol=1e-9)
    np.testing.assert_allclose(ZScore().fit_transform(X).std(0), 1, rtol=1e-5)


def test_minmax_reaches_its_ends(rng):
    X = rng.normal(size=(100, 50))
    y = MinMax().fit_transform(X)
    assert set(y.min(0)) == {0}
    assert set(y.max(0)) == {1}


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_data_frames(scaler, rng):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rng.normal(size=(20, 2)), columns=["a", "b"], index=range(5, 25))
    out = clone(scaler).set_output(transform="pandas").fit_transform(frame)
    method = getattr(scaler, "method", None)
    assert list(out.columns) == (["a", "b"] if method is None else [f"{method}0", f"{method}1"])
    assert list(out.index) == list(frame.index)
    np.testing.assert_array_equal(out.to_numpy(), clone(scaler).fit_transform(frame.to_numpy()))


def test_partial_fit_is_the_fit_of_all(rng):
    X = rng.normal(1e3, 1, (100, 4))
    parts = ZScore()
    for part in np.split(X, [1, 40]):
        assert parts.partial_fit(part) is parts
    whole = ZScore().fit(X)
    assert parts.statistics_.count == parts.n_samples_seen_ == 100
    for a, b in zip(parts.statistics_[1:], whole.statistics_[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert whole.fit(X[:7]).statistics_.count == 7  # begins again


def test_partial_fit_on_parts_of_a_memory_map(tmp_path, rng):
    X = np.memmap(tmp_path / "x.bin", np.float32, "w+", shape=(1000, 3))
    X[:] = rng.normal(1e3, 1, X.shape)
    parts, ends = ZScore(), MinMax()
    for i in range(0, len(X), 100):
        parts.partial_fit(X[i : i + 100])
        ends.partial_fit(X[i : i + 100])
    np.testing.assert_allclose(parts.var_, np.var(X, 0, np.float64), rtol=1e-6)
    assert_same_bits(ends.data_max_, np.asarray(X.max(0)))
    assert parts.transform(X).dtype == np.float32


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


@pytest.mark.parametrize("ends", [(-0.3, 0.1), (-1, 0.3), (-0.9, 0.05)])
def test_both_ends_of_a_range_are_exact(ends):
    X = np.random.default_rng(0).normal(size=(50, 4))
    y = MinMax(feature_range=ends).fit_transform(X)
    np.testing.assert_array_equal(y.min(0), ends[0])
    np.testing.assert_array_equal(y.max(0), ends[1])
