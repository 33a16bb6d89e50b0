"""moments and Moments.merge."""

import copy
import math
import pickle
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, LAYOUTS, assert_same_bits, epsilon
from normkernels import reference


def exact_variance(values):
    """Correct to the last digits: values - mean is exact here, and what the mean had lost is taken off."""
    n = len(values)
    deviations = values - math.fsum(values) / n
    return math.fsum(deviations**2) / n - (math.fsum(deviations) / n) ** 2


def exact_at_1e7(x):
    """Mean and variance, as fractions, of float64 numbers around 1e7: there, all are multiples of 2**-29."""
    steps = ((x - 1e7) * 2**29).astype(np.int64).ravel().tolist()
    n, s, q = len(steps), sum(steps), sum(i * i for i in steps)
    return Fraction(s, n) / 2**29 + 10**7, Fraction(q * n - s * s, n * n) / 4**29


def relative_error(value, exact):
    return abs(float((Fraction(float(value)) - exact) / exact))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "axis", [None, 0, 1, 3, -1, -2, (0,), (0, 2, 3), (3, 1), (-1, 0), (0, 1, 2, 3)], ids=str
)
def test_matches_the_reference_over_any_axes(axis, dtype, rng):
    x = rng.normal(3, 2, (6, 5, 8, 9)).astype(dtype)
    result, expected = nk.moments(x, axis), reference.moments(x.astype(np.longdouble), axis)
    assert result.count == expected.count
    eps = epsilon(dtype)
    for a, b in zip(result[1:], expected[1:], strict=True):
        assert (a.shape, a.dtype) == (b.shape, np.float64)
        np.testing.assert_allclose(a, b, rtol=10 * eps, atol=10 * eps)


def test_axis_defaults_to_columns_as_in_zscore(rng):
    x = rng.normal(size=(4, 5))
    assert_same_bits(nk.moments(x), nk.moments(x, 0))
    assert_same_bits(nk.moments(x), nk.zscore(x, return_statistics=True)[1])


@pytest.mark.parametrize(("axis", "kind"), [(None, np.float64), (0, np.ndarray)])
def test_merged_moments_are_of_the_same_kind(axis, kind, rng):
    x = rng.normal(size=(4, 5))
    once = nk.moments(x, axis)
    for m in (once, once.merge(once), sum([once, once]), nk.zscore(x, axis, return_statistics=True)[1]):
        assert (type(m.mean), type(m.var), type(m.count)) == (kind, kind, int)


def test_sum_is_the_merge_of_all(rng):
    parts = [nk.moments(part) for part in np.split(rng.normal(size=(40, 3)), [5, 6])]
    assert_same_bits(sum(parts), parts[0].merge(parts[1]).merge(parts[2]))
    assert_same_bits(sum(parts), parts[0] + parts[1] + parts[2])
    for other in (1, "a"):
        with pytest.raises(TypeError):
            other + parts[0]


def test_variance_of_a_sample(rng):
    x = rng.normal(size=(40, 3))
    for ddof in (0, 1, 5):
        np.testing.assert_allclose(nk.moments(x).variance(ddof), x.var(0, ddof=ddof), rtol=1e-14)
    with pytest.raises(ValueError, match="ddof must be 0 or more and below the count, 1, got 1"):
        nk.moments([1.0]).variance(1)


def test_nan_stays_in_its_group(rng):
    x = rng.normal(size=(40, 3))
    x[7, 1] = np.nan
    assert (
        np.isnan(nk.moments(x).mean).tolist() == np.isnan(nk.moments(x).var).tolist() == [False, True, False]
    )


@pytest.mark.parametrize("n", [2, 3, 100, 4096, 4097, 50_000, 1_000_003])
def test_variance_at_a_mean_of_1e8_sd(n, rng):
    """Relative error at most 2e-14: a mean kept in float64 alone would cost more."""
    x = rng.normal(1e8, 1, n)
    assert nk.moments(x).var == pytest.approx(exact_variance(x), rel=2e-14)


@pytest.mark.parametrize("shape", [(1000, 50), (30, 50, 300)], ids=str)
def test_variance_at_a_mean_of_1e8_sd_by_channel(shape, rng):
    x = rng.normal(1e8, 1, shape)
    var = nk.moments(x, tuple(i for i in range(x.ndim) if i != 1)).var
    for c in range(shape[1]):
        assert var[c] == pytest.approx(exact_variance(x[:, c].ravel()), rel=2e-14)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout, rng):
    x = rng.normal(3, 2, (6, 5, 8, 9))
    expected = reference.moments(x, (0, 2))
    for a, b in zip(nk.moments(LAYOUTS[layout](x), (0, 2)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("pieces", [2, 7])
def test_merged_pieces_are_the_whole(pieces, rng):
    x = rng.normal(1e6, 1, (1000, 3))
    cuts = np.sort(rng.integers(0, len(x), pieces - 1))
    merged = reduce(nk.Moments.merge, (nk.moments(part, 0) for part in np.split(x, cuts) if len(part)))
    whole = nk.moments(x, 0)
    assert merged.count == whole.count == 1000
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-15)
    np.testing.assert_allclose(merged.var, whole.var, rtol=1e-14)


def test_merge_of_unequal_counts():
    merged = nk.moments(np.array([1.0, 2.0, 3.0])).merge(nk.moments(np.array([10.0])))
    assert merged.count == 4
    assert merged.mean == 4
    assert merged.var == 12.5


def test_merge_with_nothing_changes_nothing():
    some, nothing = nk.moments(np.array([1.0, 2.0, 6.0])), nk.Moments(0, np.zeros(()), np.zeros(()))
    assert_same_bits(some.merge(nothing), some)
    assert_same_bits(nothing.merge(some), some)


def test_merge_wants_equal_shapes():
    with pytest.raises(ValueError, match="shape"):
        nk.moments(np.ones((4, 3)), 0).merge(nk.moments(np.ones((4, 2)), 0))


def test_nothing_has_no_moments():
    with pytest.raises(ValueError, match=r"at least one element.*got shape \(3, 0\)"):
        nk.moments(np.empty((3, 0)), 1)


def test_population_variance():
    count, mean, var = nk.moments(np.array([1.0, 3.0]))
    assert (count, mean, var) == (2, 2, 1)
    assert type(count) is int


def test_one_value_has_no_variance():
    assert nk.moments(np.array([0.1])) == (1, 0.1, 0)


@pytest.mark.parametrize("columns", [False, True])
def test_parts_merge_to_the_variance_of_the_whole(columns, rng):
    x = rng.normal(1e7, 1, (13, 100_001))
    mean, var = exact_at_1e7(x)
    of_rows = nk.moments(np.ascontiguousarray(x.T), 0) if columns else None
    parts = [nk.moments(part) for part in x]
    if columns:
        single = zip(of_rows.mean, of_rows.var, of_rows._mean_low, strict=True)
        parts = [nk.Moments(100_001, m, v)._with_low(low) for m, v, low in single]
    for some in (parts, parts[::-1], parts[::2] + parts[1::2]):
        whole = sum(some)
        assert whole.count == x.size
        assert relative_error(whole.var, var) < 1e-15
        assert abs(Fraction(float(whole.mean)) + Fraction(float(whole._mean_low)) - mean) < 1e-16
    tree = parts
    while len(tree) > 1:
        tree = [sum(tree[i : i + 2]) for i in range(0, len(tree), 2)]
    assert relative_error(tree[0].var, var) < 1e-15


def test_a_chain_of_parts_loses_nothing(rng):
    """Far outliers come first, and every sum has hundreds of thousands of terms."""
    x = rng.normal(1e7, 1, (20_000, 15))
    x[0] += 1e6
    _, var = exact_at_1e7(x)
    chain = sum(nk.moments(part) for part in x)
    assert relative_error(chain.var, var) < 2e-15
    assert relative_error(chain.merge(nk.moments(x, None)).var, var) < 2e-15


def test_a_million_parts(rng):
    """A thousand groups of a thousand parts each, which then are merged."""
    x = rng.normal(1e7, 1, (1000, 1000, 3))
    _, var = exact_at_1e7(x)
    groups = sum(nk.moments(part, 1) for part in x)
    (mean, mean_low), (m2, m2_low) = groups._pairs()
    single = zip(mean, mean_low, m2, m2_low, strict=True)
    whole = sum(nk.Moments._of_pairs(groups.count, (a, b), (c, d)) for a, b, c, d in single)
    assert whole.count == x.size
    assert relative_error(whole.var, var) < 1e-15


@pytest.mark.slow
def test_a_chain_of_a_million_parts(rng):
    x = rng.normal(1e7, 1, (1_000_000, 2))
    _, var = exact_at_1e7(x)
    pairs = nk.moments(x, 1)
    single = zip(pairs.mean, pairs.var, pairs._mean_low, strict=True)
    whole = sum(nk.Moments(2, m, v)._with_low(low) for m, v, low in single)
    assert whole.count == x.size
    assert relative_error(whole.var, var) < 1e-15


def test_what_a_mean_lost_travels_along(rng):
    x = rng.normal(1e7, 1, (2, 50, 3))
    a, b = (nk.moments(part) for part in x)
    assert np.any(a._mean_low)
    for made in (a, a + b):
        for other in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
            assert_same_bits(other, made)
            assert_same_bits(other + b, made + b)
            assert_same_bits((other + b)._pairs(), (made + b)._pairs())


def test_moments_are_a_tuple_of_three(rng):
    a = nk.moments(rng.normal(1e7, 1, 50)) + nk.moments(rng.normal(1e7, 1, 50))
    count, mean, var = a
    assert a == (count, mean, var)
    assert a._fields == ("count", "mean", "var")
    assert repr(a).startswith("Moments(count=100, mean=np.float64(")
    assert a._asdict() == {"count": count, "mean": mean, "var": var}
    made = nk.Moments(count, mean, var)
    assert made + a == a.merge(made)
    moved = a._replace(mean=mean + 1)  # what the old mean had lost is not the new one's
    assert moved._pairs() == nk.Moments(count, mean + 1, var)._pairs()


def test_merges_of_what_is_not_finite():
    huge, some = nk.moments([-1e200, 1e200]), nk.moments([1.0, 2.0])
    for a, b in ((huge, some), (some, huge)):
        for merged in (a.merge(b), a.merge(b).merge(some)):
            assert merged.var == np.inf
            assert np.isfinite(merged.mean)
    nan = nk.moments([1.0, np.nan]).merge(some)
    assert np.isnan(nan.mean)
    assert np.isnan(nan.var)
    far = nk.moments([1e200]).merge(some)
    assert (far.var, far.mean) == (np.inf, pytest.approx(1e200 / 3))
