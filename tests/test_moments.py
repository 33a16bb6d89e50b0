"""moments and Moments.merge."""

import math
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
    np.testing.assert_allclose(merged.var, whole.var, rtol=1e-10)  # a float64 mean of 1e6 has 1e-10 sd


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
