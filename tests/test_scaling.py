"""zscore, minmax and whiten."""

import functools

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, HALVES, LAYOUTS, assert_same_bits, epsilon
from normkernels import Range, Whitening

AXES = [None, 0, 1, -1, (0, 2), (3, 1), (1, 2), (0, 1, 2, 3)]


def expected_zscore(x, axis):
    x = x.astype(np.longdouble)
    return (x - x.mean(axis, keepdims=True)) / x.std(axis, keepdims=True)


def expected_minmax(x, axis):
    x = x.astype(np.longdouble)
    low = x.min(axis, keepdims=True)
    return (x - low) / (x.max(axis, keepdims=True) - low)


BOTH = pytest.mark.parametrize(
    ("function", "expected"),
    [(nk.zscore, expected_zscore), (nk.minmax, expected_minmax)],
    ids=["zscore", "minmax"],
)


@pytest.mark.covering(2)
@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", AXES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_axes_and_strides(function, expected, axis, dtype, layout, rng):
    x = LAYOUTS[layout](rng.normal(3, 2, (6, 5, 8, 9)).astype(dtype))
    y = function(x, axis)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    tolerance = 4 * epsilon(dtype) if dtype in HALVES else 50 * epsilon(dtype)
    np.testing.assert_allclose(y.astype(np.longdouble), expected(x, axis), rtol=0, atol=tolerance)
    for out in (np.empty_like(x), LAYOUTS[layout](np.zeros_like(x)), x):
        result = function(x, axis, out=out)
        assert result is out
        assert_same_bits(np.ascontiguousarray(out), np.ascontiguousarray(y))


@BOTH
@pytest.mark.parametrize("axis", AXES, ids=str)
def test_statistics_of_the_data_give_the_same_again(function, expected, axis, rng):
    x = rng.normal(3, 2, (6, 5, 8, 9)).astype(np.float32)
    y, statistics = function(x, axis, return_statistics=True)
    again, same = function(x, axis, statistics=statistics, return_statistics=True)
    assert_same_bits(again, y)
    assert same is statistics
    assert_same_bits(function(x, axis), y)


@BOTH
def test_statistics_apply_to_new_data(function, expected, rng):
    x, new = rng.normal(3, 2, (50, 4)), rng.normal(3, 2, (7, 4))
    together = np.concatenate([x, new])
    statistics = function(x, return_statistics=True)[1]
    moved = function(together, statistics=statistics)
    np.testing.assert_allclose(moved[:50], expected(x, 0), atol=1e-13)
    assert_same_bits(function(new, statistics=statistics), moved[50:].copy())
    assert function(new[:0], statistics=statistics).shape == (0, 4)


def test_zscore_takes_merged_moments(rng):
    x = rng.normal(1e4, 1, (1000, 3))
    y, statistics = nk.zscore(x, return_statistics=True)
    assert_same_bits(statistics, nk.moments(x, 0))
    merged = nk.moments(x[:300], 0).merge(nk.moments(x[300:], 0))
    np.testing.assert_allclose(nk.zscore(x, statistics=merged), y, atol=1e-11)


@pytest.mark.parametrize("mean", [0.0, 2000.0, 1e8])
def test_zscore_far_from_0(mean, rng):
    y = nk.zscore(rng.normal(mean, 1, 100_000))
    assert abs(y.mean()) < 1e-7
    assert y.std() == pytest.approx(1, rel=1e-7)


def test_minmax_reaches_0_and_1_exactly(rng):
    x = rng.normal(3, 2, (1000, 60)).astype(np.float32)
    y, statistics = nk.minmax(x, return_statistics=True)
    assert_same_bits((y.min(0), y.max(0)), (np.zeros(60, np.float32), np.ones(60, np.float32)))
    assert isinstance(statistics, Range)
    assert_same_bits(statistics.min, x.min(0))


@pytest.mark.covering(2)
@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, 0.1, -1e4 / 3, 1e30, 6e4])
def test_constant_slices_give_0(function, expected, dtype, value, rng):
    x = rng.normal(size=(333, 3)).astype(dtype)
    with np.errstate(over="ignore"):
        x[:, 1] = value
    if not np.isfinite(x.astype(float)).all():
        pytest.skip("out of the range of float16")
    y, statistics = function(x, return_statistics=True)
    assert (y[:, 1] == 0).all()
    tolerance = 4 * epsilon(dtype) if dtype in HALVES else 1e-5
    np.testing.assert_allclose(
        y[:, ::2].astype(float), expected(x[:, ::2], 0).astype(float), rtol=0, atol=tolerance
    )
    assert (function(x + 1, statistics=statistics)[:, 1] == 0).all()


@BOTH
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_stays_in_its_slice(function, expected, value, rng):
    x = rng.normal(size=(40, 3))
    y = function(x)
    x[7, 1] = value
    spoilt = function(x)
    assert np.isnan(spoilt[7, 1])
    assert_same_bits(spoilt[:, ::2].copy(), y[:, ::2].copy())


@BOTH
def test_no_slices(function, expected):
    assert function(np.empty((3, 0))).shape == (3, 0)


def test_zscore_threads(rng):
    x = rng.normal(size=(3000, 257)).astype(np.float32)
    assert_same_bits(nk.zscore(x, threads=1), nk.zscore(x))


def correlated(rng, samples=500, features=6):
    return rng.normal(size=(samples, features)) @ rng.normal(size=(features, features)) + 5


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_white_is_white(method, rng):
    x = correlated(rng)
    y = nk.whiten(x, method, 0)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(6), atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_whiten_keeps_the_dtype(dtype, rng):
    x = correlated(rng).astype(dtype)
    y = nk.whiten(x, eps=0.1)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, nk.whiten(x.astype(float), eps=0.1).astype(dtype))


def test_zca_is_nearest_and_pca_ordered(rng):
    x = correlated(rng)
    zca, pca = (nk.whiten(x, m, 0, return_statistics=True)[1] for m in ("zca", "pca"))
    assert isinstance(zca, Whitening)
    np.testing.assert_allclose(zca.matrix, zca.matrix.T, atol=1e-12)
    assert np.linalg.eigvalsh(zca.matrix).min() > 0
    assert (np.diff(np.linalg.norm(pca.matrix, axis=1)) > 0).all()  # rstd: the largest variance first
    assert (np.take_along_axis(pca.matrix, np.abs(pca.matrix).argmax(1)[:, None], 1) > 0).all()
    np.testing.assert_allclose(zca.matrix @ zca.matrix, pca.matrix.T @ pca.matrix, rtol=1e-9)


def test_eps_is_added_to_the_variance(rng):
    x = rng.normal(size=(10_000, 1)) * 3
    y = nk.whiten(x, eps=16.0)
    np.testing.assert_allclose(y, (x - x.mean()) / np.sqrt(x.var() + 16), rtol=1e-12)


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_directions_without_variance_give_0(method, rng):
    x = correlated(rng)
    x = np.concatenate([x, x[:, :1] + x[:, 1:2], np.ones((500, 1))], 1)
    y = nk.whiten(x, method, 0)
    var = np.linalg.eigvalsh(y.T @ y / len(y))
    np.testing.assert_allclose(var, [0, 0, 1, 1, 1, 1, 1, 1], atol=1e-7)
    assert (nk.whiten(np.ones((4, 3)), method, 0) == 0).all()


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_whiten_statistics_apply_to_new_data(method, rng):
    x = correlated(rng)
    y, statistics = nk.whiten(x, method, return_statistics=True)
    np.testing.assert_allclose(nk.whiten(x[3:5], statistics=statistics), y[3:5], rtol=1e-12)
    mean, matrix = statistics
    np.testing.assert_allclose(y, (x - mean) @ matrix.T, rtol=1e-12)
    assert nk.whiten(x[:0], statistics=statistics).shape == (0, 6)


@pytest.mark.parametrize("method", ["zca", "pca"])
def test_whiten_of_nan_is_nan(method, rng):
    x = correlated(rng)
    x[3, 2] = np.nan
    assert np.isnan(nk.whiten(x, method)).all()


X = np.ones((4, 3))
ZSCORE, MINMAX, WHITEN = (functools.partial(f, X) for f in (nk.zscore, nk.minmax, nk.whiten))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nk.zscore([1.0]), TypeError, "x must be an array.*list"),
        (lambda: nk.minmax(X.astype(int)), TypeError, "x must be float32.*int64"),
        (lambda: ZSCORE(2), ValueError, "axis must be in -2..1 .*got 2"),
        (lambda: MINMAX((0, 0)), ValueError, "axis must not name an axis twice"),
        (lambda: nk.zscore(X[:0]), ValueError, r"at least one element per slice, got shape \(0, 3\)"),
        (lambda: nk.minmax(X[:0]), ValueError, r"at least one element per slice, got shape \(0, 3\)"),
        (lambda: ZSCORE(statistics=(X, X)), TypeError, "statistics must be a Moments, got tuple"),
        (lambda: ZSCORE(statistics=nk.moments(X, 1)), ValueError, r"mean must have shape \(3,\), got \(4,\)"),
        (lambda: MINMAX(statistics=nk.moments(X, 0)), TypeError, "statistics must be a Range, got Moments"),
        (
            lambda: MINMAX(statistics=Range(X[0], X[0].astype(int))),
            TypeError,
            "statistics.range must be floating-point numbers, got int64",
        ),
        (lambda: ZSCORE(out=X[:2]), ValueError, r"out must have shape \(4, 3\), got \(2, 3\)"),
        (lambda: MINMAX(out=X.astype(np.float32)), TypeError, "out must have the dtype of x"),
        (lambda: ZSCORE(threads=0), ValueError, "threads must be in .*got 0"),
        (lambda: nk.whiten(X[0]), ValueError, "x must have 2 dimensions, samples and features, got 1"),
        (lambda: nk.whiten(X[:0]), ValueError, r"at least one sample, got shape \(0, 3\)"),
        (lambda: WHITEN("lda"), ValueError, "method must be one of .*, got 'lda'"),
        (lambda: WHITEN(eps=-1.0), ValueError, "eps must not be negative, got -1.0"),
        (
            lambda: WHITEN(statistics=Whitening(X[0], X)),
            ValueError,
            r"statistics.matrix must have shape \(3, 3\), got \(4, 3\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert (X == 1).all()


def test_minmax_keeps_nan_where_the_fitted_slice_was_constant():
    fitted = nk.Range(np.array([1.0, 0.0]), np.array([0.0, 2.0]))
    y = nk.minmax(np.array([[np.nan, 1.0], [5.0, np.nan]]), statistics=fitted)
    np.testing.assert_array_equal(y, [[np.nan, 0.5], [0.0, np.nan]])
