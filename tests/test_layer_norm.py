"""LayerNorm: normalized_shape, and rows and columns of every size."""

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, assert_matches, assert_same_bits, run
from normkernels.norms import NORMS

LAYER_NORM = NORMS["layer_norm"]


def problem(shape, normalized_shape, dtype, rng, eps=1e-5):
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    weight, bias = (rng.normal(size=normalized_shape).astype(dtype) for _ in range(2))
    arguments = {"normalized_shape": normalized_shape, "weight": weight, "bias": bias, "eps": eps}
    return x, dy, arguments


def test_known_values():
    """The corners of a row of mean 2 and standard deviation 2."""
    y = nk.layer_norm(np.array([[0.0, 4.0], [4.0, 0.0]]), 2, eps=0)
    assert y.tolist() == [[-1, 1], [1, -1]]
    y = nk.layer_norm(np.array([[0.0, 4.0]]), 2, np.array([3.0, 3.0]), np.array([1.0, 10.0]), eps=0)
    assert y.tolist() == [[-2, 13]]


@pytest.mark.parametrize("eps", [0, 1e-12, 1e-5, 0.5, 100])
def test_eps(eps, rng):
    x, dy, arguments = problem((9, 40), 40, np.float32, rng, eps)
    assert_matches(LAYER_NORM, run(LAYER_NORM.kernels, x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize("normalized_shape", [(6,), (5, 6), (4, 5, 6), (3, 4, 5, 6)], ids=str)
def test_any_number_of_trailing_axes(normalized_shape, rng):
    x, dy, arguments = problem((3, 4, 5, 6), normalized_shape, np.float32, rng)
    assert_matches(LAYER_NORM, run(LAYER_NORM.kernels, x, dy, arguments), x, dy, arguments)


def test_normalized_shape_may_be_an_int_or_a_list(rng):
    x, dy, arguments = problem((3, 6), 6, np.float32, rng)
    expected = run(LAYER_NORM.kernels, x, dy, arguments)
    for normalized_shape in ((6,), [6], np.int64(6)):
        result = run(LAYER_NORM.kernels, x, dy, {**arguments, "normalized_shape": normalized_shape})
        assert_same_bits((result.y, result.grads), (expected.y, expected.grads))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_tail_of_a_vector(dtype, rng):
    """Columns from less than one vector to more than two."""
    for cols in range(1, 70):
        x, dy, arguments = problem((3, cols), cols, dtype, rng)
        assert_matches(LAYER_NORM, run(LAYER_NORM.kernels, x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize(
    ("rows", "cols"),
    [(1, 1), (1, 200_003), (3, 4095), (3, 4096), (3, 4097), (5000, 33), (300_001, 3), (1_000_000, 1)],
)
def test_rows_and_columns_of_every_size(rows, cols, rng):
    x, dy, arguments = problem((rows, cols), cols, np.float32, rng)
    assert_matches(LAYER_NORM, run(LAYER_NORM.kernels, x, dy, arguments), x, dy, arguments)


def test_permuted_rows_keep_their_layout(rng):
    """Dense in another order of the leading axes: no copy, and y has the strides of x."""
    x, dy, arguments = problem((8, 5, 33), 33, np.float32, rng)
    expected = run(LAYER_NORM.kernels, x, dy, arguments)
    x, dy = (a.transpose(1, 0, 2).copy().transpose(1, 0, 2) for a in (x, dy))
    result = run(LAYER_NORM.kernels, x, dy, arguments)
    assert_same_bits((result.y, result.grads.dx), (expected.y, expected.grads.dx))
    assert result.y.strides == result.grads.dx.strides == x.strides


def test_gradients_of_a_scaled_row_shrink_with_it(rng):
    """y does not depend on the scale of x, so dx is inverse to it; powers of two change no digit."""
    x, dy, arguments = problem((9, 40), 40, np.float32, rng, eps=0)
    one, eight = (run(LAYER_NORM.kernels, np.float32(k) * x, dy, arguments) for k in (1, 8))
    assert_same_bits(one.y, eight.y)
    assert_same_bits(one.grads.dx, 8 * eight.grads.dx)
