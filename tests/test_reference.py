"""The oracle itself: against the definitions in exact sums, and its own derivatives."""

import math

import numpy as np
import pytest

from helpers import assert_gradients
from normkernels import reference
from normkernels.norms import NORMS

DTYPES = (np.float16, np.float32, np.float64, np.longdouble)


def exactly_normalized(values, weight, bias, eps):
    n = len(values)
    mean = math.fsum(values) / n
    var = math.fsum((v - mean) ** 2 for v in values) / n
    return [(v - mean) / math.sqrt(var + eps) * w + b for v, w, b in zip(values, weight, bias, strict=True)]


def test_layer_norm_is_its_definition(rng):
    x, weight, bias = rng.normal(3, 2, (4, 6)), rng.normal(size=6), rng.normal(size=6)
    expected = [exactly_normalized(row, weight, bias, 1e-5) for row in x]
    np.testing.assert_allclose(reference.layer_norm(x, 6, weight, bias), expected, rtol=0, atol=1e-14)


def test_batch_norm_is_its_definition(rng):
    x, weight, bias = rng.normal(3, 2, (4, 3, 2)), rng.normal(size=3), rng.normal(size=3)
    y = reference.batch_norm(x, None, None, weight, bias, training=True)
    for c in range(3):
        expected = exactly_normalized(x[:, c].ravel(), [weight[c]] * 8, [bias[c]] * 8, 1e-5)
        np.testing.assert_allclose(y[:, c].ravel(), expected, rtol=0, atol=1e-14)


def test_running_statistics_take_the_unbiased_variance():
    mean, var = np.array([1.0]), np.array([10.0])
    reference.batch_norm(np.array([[1.0], [3.0]]), mean, var, training=True, momentum=0.25)
    assert (mean, var) == (1.25, 8.0)  # batch: mean 2, unbiased variance 2


def test_evaluation_uses_the_running_statistics():
    mean, var = np.array([1.0]), np.array([4.0])
    y = reference.batch_norm(np.array([[5.0], [1.0]]), mean, var, eps=0)
    assert y.tolist() == [[2.0], [0.0]]
    assert (mean, var) == (1.0, 4.0)


def test_moments_are_their_definition(rng):
    x = rng.normal(5, 3, (4, 3, 2))
    count, mean, var = reference.moments(x, (0, 2))
    assert count == 8
    for c in range(3):
        values = x[:, c].ravel()
        assert mean[c] == pytest.approx(math.fsum(values) / 8, rel=1e-15)
        assert var[c] == pytest.approx(math.fsum((values - mean[c]) ** 2) / 8, rel=1e-14)


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_computes_in_the_dtype_it_is_given(name, dtype, rng):
    spec = NORMS[name]
    x, dy = rng.normal(size=(2, 4, 3, 5)).astype(dtype)
    arguments = {
        k: v.astype(dtype) if isinstance(v, np.ndarray) else v
        for k, v in spec.arguments(x.shape, np.float64, rng).items()
    }
    y, saved = spec.reference.forward(x, **arguments)
    for result in (y, *spec.reference.backward(dy, saved)):
        assert result.dtype == dtype


@pytest.mark.parametrize("name", NORMS)
def test_backward_is_the_derivative_of_the_forward(name, rng):
    spec = NORMS[name]
    x, dy = rng.normal(size=(2, 4, 3, 5)).astype(np.longdouble)
    arguments = spec.arguments(x.shape, np.float64, rng)
    assert_gradients(
        spec.reference, x, dy,
        {k: v.astype(np.longdouble) if isinstance(v, np.ndarray) else v for k, v in arguments.items()},
    )  # fmt: skip
