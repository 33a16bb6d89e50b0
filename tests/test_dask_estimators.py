"""The scalers with the interface of scikit-learn, on Dask arrays and dataframes."""

import pickle

import numba
import numpy as np
import pytest

import normkernels as nk

pytest.importorskip("sklearn")
da = pytest.importorskip("dask.array")

from sklearn import config_context  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402

from normkernels.sklearn import MinMax, Whiten, ZScore  # noqa: E402

SCALERS = [
    ZScore(),
    ZScore(with_mean=False),
    ZScore(with_std=False),
    ZScore(with_mean=False, with_std=False),
    MinMax((-2, 3)),
    Whiten(),
    Whiten("pca"),
]


@pytest.fixture
def frames():
    for needed in ("pandas", "pyarrow"):
        pytest.importorskip(needed)
    return pytest.importorskip("dask.dataframe")


def data(rng, dtype=np.float64, nan=False):
    X = rng.normal(3, 2, (90, 5)).astype(dtype)
    X[:, 2] = 7
    if nan:
        X[rng.random(X.shape) < 0.1] = np.nan
        X[:, 3], X[:20, 4] = np.nan, np.nan
    return X


def assert_fitted_alike(lazy, expected, tolerance=1e-12):
    assert set(vars(lazy)) == set(vars(expected))
    for name in ("n_samples_seen_", "mean_", "var_", "scale_", "data_min_", "data_max_", "min_"):
        value = getattr(expected, name, None)
        if value is not None:
            assert np.shape(getattr(lazy, name)) == np.shape(value), name
            np.testing.assert_allclose(getattr(lazy, name), value, tolerance, tolerance, err_msg=name)
    if isinstance(expected, Whiten):
        for a, b in zip(lazy.statistics_, expected.statistics_, strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_arrays(scaler, dtype, rng):
    nan = dtype == np.float64 and not isinstance(scaler, Whiten)
    X, new = data(rng, dtype, nan), data(rng, dtype, nan)
    expected = clone(scaler).fit(X)
    lazy = clone(scaler).fit(da.from_array(X, chunks=(20, 5)))
    tolerance = 1e-4 if dtype == np.float32 else 1e-10
    assert_fitted_alike(lazy, expected, tolerance)
    for method in ("transform", "inverse_transform"):
        y, in_memory = (getattr(lazy, method)(x) for x in (da.from_array(new, chunks=(20, 5)), new))
        assert isinstance(y, da.Array)
        assert (y.dtype, y.shape) == (in_memory.dtype, in_memory.shape)
        np.testing.assert_allclose(y.compute(), in_memory, atol=tolerance)
    np.testing.assert_allclose(
        clone(scaler).fit_transform(da.from_array(X, chunks=(20, 5))).compute(),
        expected.transform(X),
        atol=tolerance,
    )


@pytest.mark.parametrize("scaler", [ZScore(), MinMax()], ids=str)
@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_parts_in_memory_and_lazy_ones(scaler, rng):
    X = data(rng, nan=True)
    expected, mixed = clone(scaler).fit(X), clone(scaler)
    for i, part in enumerate(np.split(X, 3)):
        mixed.partial_fit(part if i == 1 else da.from_array(part, chunks=(11, 2)))
    assert_fitted_alike(mixed, expected)
    frozen = mixed.transform(da.from_array(X, chunks=(30, 5)))
    before = mixed.transform(X)
    mixed.partial_fit(X * 5)
    np.testing.assert_array_equal(frozen.compute(), before)


def test_weights(rng):
    X, weight = data(rng, nan=True), rng.integers(0, 3, 90)
    expected = ZScore().fit(X, sample_weight=weight)
    x = da.from_array(X, chunks=(20, 3))
    for w in (weight, list(weight), da.from_array(weight, chunks=7)):
        assert_fitted_alike(ZScore().fit(x, sample_weight=w), expected)
    chosen = np.ones(90, bool)
    unknown, w = x[da.from_array(chosen, chunks=20)], da.from_array(weight, chunks=20)
    assert_fitted_alike(ZScore().fit(unknown, sample_weight=w[da.from_array(chosen, chunks=20)]), expected)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \(90,\), got \(89,\)"):
        ZScore().fit(x, sample_weight=weight[1:])
    with pytest.raises(ValueError, match=r"sample_weight must have a chunk for each of the 5 of X"):
        ZScore().fit(unknown, sample_weight=weight)


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_dataframes(scaler, frames, rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(data(rng), columns=list("abcde"), index=range(5, 95))
    X["e"] = np.arange(90)
    x = frames.from_pandas(X, npartitions=4)
    expected, lazy = clone(scaler).fit(X), clone(scaler).fit(x)
    assert_fitted_alike(lazy, expected)
    assert list(lazy.feature_names_in_) == list("abcde")
    y = lazy.transform(x)
    assert isinstance(y, da.Array)
    np.testing.assert_allclose(y.compute(), expected.transform(X), atol=1e-10)
    lazy.set_output(transform="pandas")
    framed = lazy.transform(x)
    assert isinstance(framed, frames.DataFrame)
    pandas.testing.assert_frame_equal(framed.compute(), expected.set_output(transform="pandas").transform(X))
    assert list(framed.columns) == list(lazy.get_feature_names_out())
    with config_context(transform_output="pandas"):
        assert isinstance(clone(scaler).fit_transform(x), frames.DataFrame)
    with pytest.raises(ValueError, match="The feature names should match"):
        lazy.transform(x[["b", "a", "c", "d", "e"]])


@pytest.mark.parametrize("scaler", SCALERS, ids=str)
def test_dataframes_there_and_back(scaler, frames, rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(data(rng), columns=list("abcde"))
    x, fitted = frames.from_pandas(X, npartitions=4), clone(scaler).set_output(transform="pandas").fit(X)
    for given in (X, x):
        back = fitted.inverse_transform(fitted.transform(given))
        np.testing.assert_allclose(np.asarray(back), X, atol=1e-8)


def test_empty_partitions(frames, rng):
    pandas = pytest.importorskip("pandas")
    X = pandas.DataFrame(data(rng), columns=list("abcde"))
    X["a"] = np.arange(90.0)
    x = frames.from_pandas(X, npartitions=4)
    x = x[x["a"] > 40]
    for scaler in (ZScore(), MinMax(), Whiten()):
        lazy = scaler.fit(x).transform(x).compute()
        np.testing.assert_allclose(lazy, clone(scaler).fit_transform(X[X["a"] > 40]), atol=1e-10)
        framed = scaler.set_output(transform="pandas").transform(x).compute()
        np.testing.assert_allclose(framed, lazy)


def test_arrays_to_dataframes(frames, rng):
    X = data(rng)
    y = ZScore().set_output(transform="pandas").fit_transform(da.from_array(X, chunks=(20, 5)))
    assert isinstance(y, frames.DataFrame)
    assert list(y.columns) == ["x0", "x1", "x2", "x3", "x4"]
    np.testing.assert_allclose(y.compute(), ZScore().fit_transform(X), atol=1e-12)


def test_a_pipeline_is_lazy(rng):
    X = data(rng)
    pipeline = make_pipeline(ZScore(copy=False), MinMax())
    x = da.from_array(X.copy(), chunks=(20, 5))
    y = pipeline.fit(x).transform(x)
    assert isinstance(y, da.Array)
    np.testing.assert_allclose(y.compute(), nk.minmax(nk.zscore(X)), atol=1e-12)
    np.testing.assert_array_equal(x.compute(), X)  # the chunks belong to others, whatever `copy` says


@pytest.mark.parametrize("scaler", [ZScore(), MinMax(), Whiten()], ids=str)
def test_a_task_uses_one_thread(scaler, monkeypatch, rng):
    seen = []
    for method in ("transform", "inverse_transform"):
        own = getattr(type(scaler), method)
        monkeypatch.setattr(
            type(scaler), method, lambda *args, own=own: (seen.append(numba.get_num_threads()), own(*args))[1]
        )
    before = numba.get_num_threads()
    x = da.from_array(data(rng), chunks=(30, 5))
    scaler.fit(x)
    seen.clear()
    scaler.inverse_transform(scaler.transform(x)).compute(scheduler="sync")
    assert seen.count(1) == 6
    assert numba.get_num_threads() == before


def test_what_is_learned_is_once_in_a_graph(rng):
    x = da.from_array(rng.normal(size=(64, 50)), chunks=(1, 50))
    whole = Whiten().fit(x).transform(x)
    alone = Whiten().fit(x).transform(x[:1])
    grown = len(pickle.dumps(dict(whole.dask))) - len(pickle.dumps(dict(alone.dask)))
    assert grown < 32 * 50 * 50 * 8  # a matrix for half of the 64 chunks


@pytest.mark.parametrize("scaler", [ZScore(), MinMax(), Whiten()], ids=str)
def test_chunks_without_a_sample_are_no_fit(scaler, rng):
    x = da.from_array(rng.normal(size=(90, 3)), chunks=(20, 3))
    with pytest.raises(ValueError, match="at least one element"):
        scaler.fit(x[x[:, 0] > 99])
    if isinstance(scaler, ZScore):
        with pytest.raises(ValueError, match="at least one element"):
            scaler.fit(x, sample_weight=np.zeros(90))


def test_a_weight_for_all(rng):
    X = data(rng, nan=True)
    expected, x = ZScore().fit(X, sample_weight=2.5), da.from_array(X, chunks=(20, 3))
    assert_fitted_alike(ZScore().fit(x, sample_weight=2.5), expected)
    unknown = x[da.from_array(np.ones(90, bool), chunks=20)]
    assert_fitted_alike(ZScore().fit(unknown, sample_weight=2.5), expected)


X = da.ones((6, 4), chunks=(3, 2))
INFINITE = da.from_array(np.array([[1.0, np.inf], [2.0, 3.0]]))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: ZScore().fit(X[:, 0]), "Expected 2D array"),
        (lambda: ZScore().fit(X[:0]), r"X must have at least one sample, got shape \(0, 4\)"),
        (lambda: ZScore().fit(INFINITE), "contains infinity"),
        (lambda: MinMax().fit(INFINITE), "contains infinity"),
        (lambda: Whiten().fit(INFINITE), "contains infinity"),
        (lambda: Whiten().fit(X), r"features in one chunk.*rechunk\(\{1: -1\}\)"),
        (lambda: ZScore().fit(X).transform(X), r"features in one chunk.*rechunk\(\{1: -1\}\)"),
        (lambda: ZScore().fit(X).transform(X[:, :3]), "X has 3 features, but ZScore is expecting 4"),
        (lambda: ZScore().transform(X), "not fitted yet"),
        (lambda: ZScore().fit(X).inverse_transform(X[:, :3]), r"X must have 4 features, got shape \(0, 3\)"),
        (lambda: ZScore().fit(X[:, X[0] > 0]), "known number of features.*compute_chunk_sizes"),
        (lambda: MinMax((1, 0)).fit(X), r"feature_range must have its minimum first.*got \(1, 0\)"),
        (lambda: ZScore(with_mean="no").fit(X), "The 'with_mean' parameter"),
        (
            lambda: ZScore().set_output(transform="polars").fit(X).transform(X),
            "default or pandas, got 'polars'",
        ),
    ],
)
def test_bad_input_is_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_lazy_series_is_refused(frames):
    pandas = pytest.importorskip("pandas")
    series = frames.from_pandas(pandas.Series([1.0, 2.0]), npartitions=1)
    with pytest.raises(TypeError, match="X must be an array in memory"):
        ZScore().fit(series)
