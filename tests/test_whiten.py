"""Whitening."""

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, HALVES, epsilon, needed_besides
from normkernels import Whitening, _whitening, reference


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


def orthogonal(sds):
    """16 samples of features that are not correlated at all, of mean 0 and of these sds."""
    signs = np.ones((1, 1))
    for _ in range(4):
        signs = np.block([[signs, signs], [signs, -signs]])
    return signs[:, 1 : len(sds) + 1] * sds


@pytest.mark.parametrize("method", ["zca", "pca"])
@pytest.mark.parametrize(
    ("sds", "eps"),
    [
        ((0.02, 1e6), 1e-5),
        ((1e-3, 1e6), 1e-15),
        ((1e-3, 1e6), 0),
        ((1e-9, 1, 1e9, 1e-3), 0),
        ((1e-30, 1e30, 1e30), 1e-60),
        ((1e150, 1e170), 0),
    ],
    ids=str,
)
def test_whiten_is_right_for_each_of_very_different_features(method, sds, eps):
    y = nk.whiten(orthogonal(sds), method, eps)
    expected = np.array(sds) / np.hypot(sds, np.sqrt(eps))
    np.testing.assert_allclose(y.std(0), sorted(expected)[::-1] if method == "pca" else expected, rtol=1e-14)


@pytest.mark.parametrize("decades", [6, 12, 20])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_whiten_is_right_for_variances_over_many_decades(decades, offset, rng):
    """In directions that are no features; an error of 1e-14 of the largest sd, or of 1e-16 of the mean."""
    samples, features = 3000, 7
    z = rng.normal(size=(samples, features))
    white = np.linalg.svd(z - z.mean(0), full_matrices=False)[0] * np.sqrt(samples)
    var = np.logspace(0, -decades, features)
    axes = np.linalg.qr(rng.normal(size=(features, features)))[0]
    x = (white * np.sqrt(var)) @ axes.T + offset
    x_var = np.sort(((x - offset) @ axes).var(0))[::-1]
    for eps in (0.0, 10.0**-decades):
        y = nk.whiten(x, "pca", eps)
        error = (1e-14 + 1e-16 * offset) / np.sqrt(var) + 1e-13
        assert (np.abs(y.var(0) * (x_var + eps) / x_var - 1) <= 2 * error).all()
        correlation = (y / y.std(0)).T @ (y / y.std(0)) / samples - np.eye(features)
        assert np.abs(correlation).max() <= error[-1]


@pytest.mark.parametrize("method", ["zca", "pca"])
@pytest.mark.parametrize("spread", [0, 5, 12])
@pytest.mark.parametrize("samples", [4, 300])
def test_rank_of_dependent_features(method, spread, samples, rng):
    """Sums, differences, multiples and copies of features whose sds go over `spread` decades; a constant."""
    a = rng.normal(size=(samples, 5)) * 10.0 ** np.linspace(-spread / 2, spread / 2, 5) + 3
    x = np.stack([*a.T, a[:, 0] + a[:, 4], a[:, 1], a[:, 3] * 1e9, a[:, 2] - a[:, 3], 0.1 + 0 * a[:, 0]], 1)
    y, (_, matrix) = nk.whiten(x, method, 0, return_statistics=True)
    rank = min(5, samples - 1)
    var = np.linalg.eigvalsh(y.T @ y / samples)
    np.testing.assert_allclose(var, [0] * (10 - rank) + [1] * rank, atol=1e-10 + 1e-14 * 10**spread)
    if method == "pca":
        assert (np.abs(matrix).max(1) > 0).sum() == rank


@pytest.mark.parametrize("dtype", DTYPES)
def test_whiten_agrees_with_the_reference(dtype, rng):
    x = correlated(rng).astype(dtype)
    for method in ("zca", "pca"):
        y, expected = nk.whiten(x, method), reference.whiten(x.astype(np.float64), method)
        tolerance = 4 * epsilon(dtype) if dtype in HALVES else 1e3 * epsilon(dtype)
        error = y.astype(np.float64) - expected * np.sign((y.astype(float) * expected).sum(0))
        assert np.abs(error).max() <= tolerance


def test_whiten_does_not_see_its_parts(rng, monkeypatch):
    x = correlated(rng)
    whole = nk.whiten(x)
    monkeypatch.setattr(_whitening, "PART", 100)
    np.testing.assert_allclose(nk.whiten(x), whole, rtol=0, atol=1e-12)


def test_memory_of_whiten(monkeypatch):
    monkeypatch.setattr(_whitening, "PART", 2**14)
    x = np.ones((2**18, 4), np.float32)
    assert needed_besides(lambda: nk.whiten(x)) < 40e6 * 2**14 / 2**20
