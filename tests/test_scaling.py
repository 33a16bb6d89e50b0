"""zscore and minmax, and bad input of whiten too."""

import functools

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, HALVES, LAYOUTS, assert_same_bits, epsilon, needed_besides
from normkernels import Range, Whitening, _plan, _scaling

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


@pytest.mark.parametrize("statistics", [None, nk.moments([0.0, 1.0, 5.0])], ids=["own", "given"])
def test_zscore_with_ddof(statistics):
    x = np.array([1.0, 2.0, 6.0])
    m = nk.moments(x) if statistics is None else statistics
    expected = (x - m.mean) / np.sqrt(m.var * 3 / 2)
    np.testing.assert_allclose(nk.zscore(x, ddof=1, statistics=statistics), expected, rtol=1e-15)


@pytest.mark.parametrize("function", [nk.zscore, nk.minmax, nk.whiten, nk.moments])
def test_integers_bools_and_lists_are_float64(function):
    x = np.array([[1, 0], [0, 1], [1, 1]])
    expected = function(x.astype(np.float64))
    for same in (x, x.astype(bool), x.astype(np.uint8), x.tolist(), tuple(x)):
        assert_same_bits(function(same), expected)


@pytest.mark.parametrize("axis", [None, 0, (0, 2)], ids=str)
def test_merged_ranges_are_that_of_the_whole(axis, rng):
    x = rng.normal(size=(7, 3, 5)).astype(np.float32)
    parts = [nk.minmax(part, axis, return_statistics=True)[1] for part in np.split(x, [1, 4])]
    whole = nk.minmax(x, axis, return_statistics=True)[1]
    assert_same_bits(sum(parts), whole)
    assert_same_bits(parts[0] + parts[1] + parts[2], whole)
    assert_same_bits(whole.range, whole.max - whole.min)
    assert type(sum(parts).min) is type(whole.min)
    with pytest.raises(ValueError, match="other must have the shape"):
        whole.merge(Range(np.ones(9), np.ones(9)))
    with pytest.raises(TypeError, match="other must be a Range, got Moments"):
        whole.merge(nk.moments(x))


@pytest.mark.parametrize("size", [3e38, 1.5e308])
def test_minmax_of_a_range_beyond_the_largest_number(size):
    x = np.array([[-size, 1], [0, 2], [size, 3]], np.float32 if size < 1e300 else np.float64)
    assert nk.minmax(x).tolist() == [[0, 0], [0.5, 0.5], [1, 1]]


def cases(size):
    """Arrays that are taken in parts of fewer than `size` elements, and the axes of a slice."""
    wide = np.ones((3, 5 * size))
    return [
        (np.ones((1, 3, 2 * size)), 0),
        (np.ones((2 * size, 3)), 1),
        (wide, 0),
        (wide[:, ::2], 0),
        (wide[:, ::2], 1),
        (np.ones((30, 3, size // 10)), 1),
    ]


def parts_of(elements, monkeypatch):
    for module in (_plan, _scaling):
        monkeypatch.setattr(module, "PART", elements)


@pytest.mark.parametrize("case", range(6))
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("function", [nk.zscore, nk.minmax, nk.moments])
def test_parts_change_no_bits(function, dtype, case, rng, monkeypatch):
    x, axis = cases(1000)[case]
    x = x.astype(dtype)
    x[...] = rng.normal(3, 2, x.shape)
    options = {} if function is nk.moments else {"return_statistics": True}
    expected = function(x, axis, **options)
    parts_of(1000, monkeypatch)
    assert_same_bits(function(x, axis, **options), expected)
    if function is not nk.moments:
        gaps = np.zeros((*x.shape, 2), dtype)[..., 0]
        assert_same_bits(function(x, axis, out=gaps), expected[0])
        assert_same_bits(function(x, axis, statistics=expected[1]), expected[0])
        assert_same_bits(function(x, axis, out=x), expected[0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("function", [nk.zscore, nk.minmax, nk.moments])
@pytest.mark.parametrize("case", range(6))
def test_memory_is_bounded(function, case, dtype, monkeypatch):
    """By 128 bytes for an element of a part, or a quarter of x; of the size that parts have, 64 MB."""
    parts_of(2**14, monkeypatch)
    x, axis = cases(2**17)[case]
    x = x.astype(dtype)
    function(x, axis)  # compiled
    nk.release_buffers()
    assert needed_besides(lambda: function(x, axis)) < max(128 * 2**14, x.nbytes / 4)


def test_memory_of_many_columns():
    x = np.ones((1, 3, 2**20), np.float32)
    assert needed_besides(lambda: nk.zscore(x)) < 128 * _plan.PART


X = np.ones((4, 3))
ZSCORE, MINMAX, WHITEN = (functools.partial(f, X) for f in (nk.zscore, nk.minmax, nk.whiten))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nk.zscore(["a"]), TypeError, "x must be real numbers, got <U1"),
        (lambda: nk.zscore([[1.0], [2.0, 3.0]]), ValueError, "lists of equal lengths"),
        (lambda: nk.minmax(X.astype(complex)), TypeError, "x must be real numbers, got complex128"),
        (lambda: nk.whiten(X.astype(object)), TypeError, "x must be real numbers, got object"),
        (lambda: nk.zscore({1.0}), TypeError, "x must be an array.*set"),
        (lambda: ZSCORE(ddof=4), ValueError, "ddof must be 0 or more and below the count, 4, got 4"),
        (lambda: ZSCORE(ddof=-1), ValueError, "ddof must be 0 or more .*got -1"),
        (lambda: ZSCORE(ddof=0.5), TypeError, "ddof must be an integer, got 0.5"),
        (lambda: ZSCORE(2), ValueError, "axis must be in -2..1 .*got 2"),
        (lambda: nk.zscore(5), ValueError, "^x must have at least 1 dimension, unless axis is None, got 0$"),
        (lambda: nk.moments(5), ValueError, "^x must have at least 1 dimension, unless axis is None, got 0$"),
        (lambda: nk.weight_norm(X[0, 0], X[0]), ValueError, "^v must have at least 1 .* dim is None, got 0$"),
        (lambda: MINMAX((0, 0)), ValueError, "axis must not name an axis twice"),
        (lambda: nk.zscore(X[:0]), ValueError, r"at least one element per slice, got shape \(0, 3\)"),
        (lambda: nk.minmax(X[:0]), ValueError, r"at least one element per slice, got shape \(0, 3\)"),
        (lambda: ZSCORE(statistics=(X, X)), TypeError, "statistics must be a Moments, got tuple"),
        (lambda: ZSCORE(statistics=nk.moments(X, 1)), ValueError, r"mean must have shape \(3,\), got \(4,\)"),
        (lambda: MINMAX(statistics=nk.moments(X, 0)), TypeError, "statistics must be a Range, got Moments"),
        (
            lambda: MINMAX(statistics=Range(X[0], X[0].astype(int))),
            TypeError,
            "statistics.max must be floating-point numbers, got int64",
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
    fitted = nk.Range(np.array([1.0, 0.0]), np.array([1.0, 2.0]))
    y = nk.minmax(np.array([[np.nan, 1.0], [5.0, np.nan]]), statistics=fitted)
    np.testing.assert_array_equal(y, [[np.nan, 0.5], [0.0, np.nan]])


@pytest.mark.filterwarnings("error")
def test_an_infinite_element_is_no_warning():
    np.testing.assert_array_equal(nk.minmax([1.0, np.inf, 3.0]), [0, np.nan, 0])
    with pytest.raises(TypeError, match=r"x must be real numbers, got datetime64\[D\]"):
        nk.zscore(np.array(["2020"], "M8[D]"))
