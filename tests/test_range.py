"""Numbers near the ends of a dtype's range: squares that leave it, sums and differences that would."""

import ml_dtypes
import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, accepted, bounds, fitted, oracle, rounding, run, widened
from normkernels import jit
from normkernels.norms import NORMS
from normkernels.reference.fused import ACTIVATIONS

every_norm = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)

# Rows and columns; runs short and long, few channels in tiles; long rows in tiles.
SHAPES = [(300, 12), (6, 10, 20), (5, 12, 200), (3, 2, 9000), (1, 2, 40_000)]
SCALES = {"large": 1e200, "largest": 1e305, "small": 1e-200, "smallest": 1e-300, "mixed": None}


def problem(spec, shape, scale, dtype, rng):
    """x with groups of this scale, or of several; dy, and arguments that add nothing to the variance."""
    shape = fitted(spec, shape)
    x, dy = rng.normal(1, 1, size=(2, *shape))
    axis = 1 if spec.family == "channels" else 0
    scales = np.resize([1e200, 1e-200, 1.0] if scale is None else [scale], shape[axis])
    x *= np.expand_dims(scales, [a for a in range(len(shape)) if a != axis])
    arguments = spec.arguments(shape, dtype, rng) | accepted(spec, eps=0, r_max=1, d_max=0)
    if spec.name != "batch_renorm":
        arguments |= accepted(spec, running_mean=None, running_var=None)
    return x.astype(dtype), dy.astype(dtype), arguments


def assert_right(spec, x, dy, arguments, of="kernels"):
    got, expected = run(getattr(spec, of), x, dy, arguments), oracle(spec, x, dy, arguments)
    y, grads = bounds(spec, x, dy, expected.saved)
    if spec.family == "windows":
        saved = expected.saved._replace(x_hat=np.abs(expected.y), x=-np.abs(expected.saved.x))
        grads = grads._replace(dx=8 * rounding(x.dtype, 1) * spec.reference.backward(np.abs(dy), saved).dx)
    lost = 4 * float(ml_dtypes.finfo(x.dtype).smallest_subnormal)
    for a, b, bound in zip((got.y, *got.grads), (expected.y, *expected.grads), (y, *grads), strict=True):
        if a is not None:
            assert (np.abs(a - b) <= bound + lost).all()


@every_norm
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_float64_of_any_size(spec, scale, rng):
    for shape in SHAPES:
        assert_right(spec, *problem(spec, shape, scale, np.float64, rng))


@every_norm
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16])
def test_elements_further_apart_than_the_largest_number(spec, dtype, rng):
    """x - mean leaves the range; x does not. (The norm of long rows would itself be beyond it.)"""
    for shape in SHAPES if spec.centred and dtype is not ml_dtypes.bfloat16 else SHAPES[:1]:
        x, dy, arguments = problem(spec, shape, 1.0, dtype, rng)
        sign = rng.choice([1, 1, 1, -1], size=x.shape)
        x = (sign * rng.uniform(0.8, 0.99, x.shape) * float(ml_dtypes.finfo(dtype).max)).astype(dtype)
        assert_right(spec, x, dy, arguments)


def test_moments_of_any_size(rng):
    x = rng.normal(3, 1, (40, 5)) * [1e140, 1e-140, 1e250, 1e-250, 1.0]
    for axis, values in ((0, x), (1, x.T), ((0, 1), x[:, None])):
        mean, var = nk.moments(values, axis)[1:]
        exact = x.astype(np.longdouble)
        np.testing.assert_allclose(mean, exact.mean(0).astype(np.float64), rtol=1e-14)
        with np.errstate(over="ignore", under="ignore"):
            np.testing.assert_allclose(var, exact.var(0).astype(np.float64), rtol=1e-13)
    y, exact = nk.zscore(x, 0), x / [1e140, 1e-140, 1e250, 1e-250, 1.0]
    np.testing.assert_allclose(y, (exact - exact.mean(0)) / exact.std(0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("value", [1e-170, -3.7, 1e300])
def test_constant_is_not_what_varies_too_little_to_be_squared(value):
    """Both have variance 0 in float64."""
    n = 333
    x = np.full((n, 3), value)
    others = [0, 2] if value == 1e-170 else []
    x[-1, others] *= 1.001
    expected = np.zeros((n, 3))
    expected[:, others] = -1 / np.sqrt(n - 1)
    expected[-1, others] *= 1 - n
    y, (_, mean, var) = nk.zscore(x, 0, return_statistics=True)
    rows = nk.zscore(x.T, 1), nk.layer_norm(np.ascontiguousarray(x.T), n, eps=0)
    for got in (y, *(row.T for row in rows)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=0)  # the mean is 2e4 sd
    assert not var.any()
    constant = [c for c in range(3) if c not in others]
    assert (mean[constant] == value).all()


def test_running_statistics_that_float64_cannot_hold_are_inf(rng):
    """The variance of numbers with an sd of 1e200 is 1e400."""
    x, mean, var = rng.normal(size=(8, 1)) * 1e200, np.zeros(1), np.ones(1)
    assert np.isfinite(nk.batch_norm(x, mean, var, training=True)).all()
    np.testing.assert_allclose(mean, 0.1 * x.mean(0))
    assert var == np.inf


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_in_the_user_s_own_code(scale, rng):
    x = rng.normal(3, 1, 500)
    out, ones = np.empty_like(x), np.ones_like(x)
    jit.layer_norm(x * scale, ones, None, 0.0, out)
    np.testing.assert_allclose(out, (x - x.mean()) / x.std(), rtol=0, atol=1e-13)
    jit.rms_norm(x * scale, ones, None, 0.0, out)
    np.testing.assert_allclose(out, x / np.sqrt((x * x).mean()), rtol=0, atol=1e-13)
    means = jit.moments(x * scale)[0], jit.channel_moments(x.reshape(5, 1, 100) * scale, 0)[0]
    np.testing.assert_allclose(means, x.mean() * scale, rtol=1e-14)


# Activations at their limits: what a given mean and rstd make of infinite elements.
LIMITS = {"relu": (0, np.inf), "sigmoid": (0, 1), "silu": (0, np.inf), "gelu": (0, np.inf)}
SLOPES = {"relu": (0, 1), "sigmoid": (0, 0), "silu": (0, 1), "gelu": (0, 1)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_slopes_reach_their_limits(name, dtype):
    large = float(ml_dtypes.finfo(dtype).max) / 2
    x = np.array([[-np.inf, np.inf], [-large, large], [np.nan, 1]]).astype(dtype)
    given = np.zeros(2, np.float32), np.ones(2, np.float32)
    y, saved = nk.batch_norm_forward(x, *given, eps=0, activation=name)
    dx = nk.batch_norm_backward(np.ones_like(x), saved).dx
    np.testing.assert_array_equal(y[0], np.array(LIMITS[name], dtype))
    np.testing.assert_array_equal(dx[:2], np.array([SLOPES[name]] * 2, dtype))
    assert np.isnan([y[2, 0], dx[2, 0] + (name == "relu") * np.nan]).all()
    activate, slope = ACTIVATIONS[name]
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(activate(widened(x[0])), LIMITS[name])
        np.testing.assert_array_equal(slope(widened(x[:2])), [SLOPES[name]] * 2)


@every_norm
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_the_reference_is_right_in_float64_too(spec, scale, rng):
    for shape in SHAPES[:2]:
        assert_right(spec, *problem(spec, shape, scale, np.float64, rng), of="reference")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", ["residual", "x", "apart"])
def test_a_long_row_whose_sum_is_written_in_place(target, threads):
    x, residual = (1e200 * np.random.default_rng(s).normal(size=(1, 40_000)) for s in range(2))
    small = (x + residual) * 1e-200
    expected = (small - small.mean()) / small.std()
    places = {"x": x, "residual": residual, "apart": np.empty_like(x)}
    y = nk.layer_norm(x, 40_000, residual=residual, sum_out=places[target], threads=threads)
    np.testing.assert_allclose(y, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_a_momentum_of_zero_leaves_statistics_alone(name):
    x = 1e200 * np.random.default_rng(0).normal(size=(4, 3, 50))
    mean, var = np.zeros(3), np.ones(3)
    arguments = {"training": True} if name == "batch_norm" else {}
    getattr(nk, name)(x, mean, var, momentum=0.0, **arguments)
    assert (mean == 0).all()
    assert (var == 1).all()
