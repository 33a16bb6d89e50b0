"""The edge semantics, and the known failures of others, one test each."""

import ml_dtypes
import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, accepted, assert_matches, assert_same_bits, epsilon, fitted, oracle, run
from normkernels.norms import NORMS

LAYER_NORM, BATCH_NORM = NORMS["layer_norm"], NORMS["batch_norm"]

every_norm = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
every_centred_norm = pytest.mark.parametrize(
    "spec", [spec for spec in NORMS.values() if spec.centred], ids=lambda spec: spec.name
)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def groups(spec, values, dtype=np.float32):
    """Two groups of the same values, in the shape a norm takes, and plain arguments."""
    x = np.stack([values, values], axis=1 if spec.family == "channels" else 0).astype(dtype)
    if spec.family == "groups":
        x = x[None]
    plain = accepted(spec, weight=None, bias=None)
    if spec.name != "batch_renorm":
        plain |= accepted(spec, running_mean=None, running_var=None)
    return x, spec.arguments(x.shape, dtype, np.random.default_rng(0)) | plain


def assert_accurate(spec, values, **options):
    """y in float32 is the exact normalization of the float32 values, to 1e-5 of the largest."""
    x, arguments = groups(spec, values)
    arguments |= accepted(spec, **options)
    expected = oracle(spec, x, x, arguments).y
    atol = 1e-5 * max(1, np.abs(expected).max())
    np.testing.assert_allclose(spec.kernels.call(x, **arguments), expected, rtol=0, atol=atol)


# Edge semantics


def test_running_var_takes_the_unbiased_variance():
    mean, var = np.zeros(1), np.ones(1)
    nk.batch_norm(np.array([[1.0], [3.0]]), mean, var, training=True, momentum=1)
    assert (mean, var) == (2, 2)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1)], ids=str)
def test_one_value_per_channel_cannot_train(shape):
    mean, var = np.zeros(3), np.ones(3)
    with pytest.raises(ValueError, match=r"more than one value per channel.*got"):
        nk.batch_norm(np.ones(shape), mean, var, training=True)
    assert_same_bits((mean, var), (np.zeros(3), np.ones(3)))
    assert nk.batch_norm(np.ones(shape), mean, var).shape == shape


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 1, 4000)], ids=str)
@pytest.mark.parametrize(("size", "eps"), [(1e150, 1e-5), (1e-9, 1e-5), (0.0, 0.0), (0.0, 1e-5)])
def test_running_var_of_instance_norm_is_the_variance_itself(shape, size, eps):
    """Not what can be had back from rstd, which has lost it beside eps."""
    x = size * np.random.default_rng(0).standard_normal(shape)
    mean, var = np.zeros(1), np.zeros(1)
    nk.instance_norm(x, mean, var, momentum=1.0, eps=eps)
    np.testing.assert_allclose(var, x.var(-1, ddof=1).mean(0), rtol=1e-13)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(0, 3), (0, 3, 4), (5, 3, 0), (2, 3, 0, 0)], ids=str)
def test_empty_batch_leaves_the_statistics_alone(shape, training):
    mean, var, tracked = np.zeros(3), np.ones(3), np.zeros(1, np.int64)
    options = {"momentum": None, "num_batches_tracked": tracked} if training else {}
    x, weight = np.empty(shape), np.ones(3)
    y, saved = nk.batch_norm_forward(x, mean, var, weight, weight, training, **options)
    grads = nk.batch_norm_backward(x, saved)
    assert y.shape == grads.dx.shape == shape
    assert_same_bits((mean, var, tracked), (np.zeros(3), np.ones(3), np.zeros(1, np.int64)))
    assert_same_bits(tuple(grads[1:]), (np.zeros(3), np.zeros(3)))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3)], ids=str)
def test_no_rows_give_no_rows(shape):
    weight = np.ones(3)
    y, saved = nk.layer_norm_forward(np.empty(shape), 3, weight, weight)
    grads = nk.layer_norm_backward(y, saved)
    assert y.shape == grads.dx.shape == shape
    assert_same_bits(tuple(grads[1:]), (np.zeros(3), np.zeros(3)))


@pytest.mark.covering(2)
@every_centred_norm
@every_dtype
@pytest.mark.parametrize("eps", [0, 1e-5])
@pytest.mark.parametrize("value", [0.1, 1e30, -3.7e-20, 16777216])
@pytest.mark.parametrize("n", [2, 33, 4097, 10_000])
def test_zero_variance_returns_bias_exactly(spec, dtype, eps, value, n, rng):
    largest = float(ml_dtypes.finfo(dtype).max)
    x, arguments = groups(spec, np.full(n, min(value, largest)), dtype)
    full = spec.arguments(x.shape, dtype, rng)
    given = {"weight": full["weight"], "bias": full["bias"], "eps": eps, **accepted(spec, r_max=1, d_max=0)}
    y = spec.kernels.call(x, **arguments | given)
    bias = full["bias"].reshape(-1, 1) if spec.family == "groups" else full["bias"]
    assert_same_bits(y, np.broadcast_to(bias, x.shape).copy())


@every_dtype
@pytest.mark.parametrize("eps", [0, 1e-5])
def test_row_of_one_element_returns_bias_exactly(dtype, eps, rng):
    x, dy = rng.normal(size=(2, 300, 1)).astype(dtype)
    weight, bias = np.array([3.3], dtype), np.array([0.7], dtype)
    y, saved = nk.layer_norm_forward(x, 1, weight, bias, eps)
    dx, dweight, dbias = nk.layer_norm_backward(dy, saved)
    assert (y == bias).all()
    assert not dweight.any()
    assert not dx.any()
    np.testing.assert_allclose(dbias, [dy.sum(dtype=np.longdouble)], rtol=0, atol=300 * epsilon(dtype))


@every_norm
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, bool, np.complex64, ">f4", ">f8", object])
def test_integers_and_foreign_byte_orders_are_type_errors(spec, dtype):
    x, arguments = groups(spec, np.arange(4))
    with pytest.raises(TypeError, match=r"must .*float32.*got"):
        spec.kernels.call(np.ones(x.shape, dtype), **arguments)


@every_centred_norm
def test_eps_zero_with_zero_variance_has_no_gradient(spec):
    x, arguments = groups(spec, np.full(50, 0.1))
    dy = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    grads = run(spec.kernels, x, dy, arguments | accepted(spec, eps=0)).grads
    assert not grads.dx.any()


@every_norm
def test_partial_overlap_of_out_is_a_value_error(spec):
    memory = np.arange(60, dtype=np.float32)
    before = memory.copy()
    shape = fitted(spec, (10, 4 // 2 ** (spec.min_ndim - 2)))
    x, target = memory[:40].reshape(shape), memory[20:].reshape(shape)
    arguments = spec.arguments(x.shape, np.float32, np.random.default_rng(0))
    for out in (target, x[::-1]):
        with pytest.raises(ValueError, match=r"out must .*overlap.*got"):
            spec.kernels.call(x, **arguments, out=out)
    assert_same_bits(memory, before)


@every_norm
def test_forward_may_not_overwrite_what_backward_needs(spec):
    x = np.arange(40, dtype=np.float32).reshape(fitted(spec, (10, 4 // 2 ** (spec.min_ndim - 2))))
    arguments = spec.arguments(x.shape, np.float32, np.random.default_rng(0))
    with pytest.raises(ValueError, match="out must"):
        spec.kernels.forward(x, **arguments, out=x)
    assert_same_bits(x.ravel(), np.arange(40, dtype=np.float32))


@pytest.mark.parametrize("spec", [s for s in NORMS.values() if s.family != "windows"], ids=lambda s: s.name)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_give_nan(spec, value, rng):
    """Not 0 and not an old value: a compiler that assumes finite numbers would return one."""
    values = rng.normal(size=5000)
    values[4500] = value
    x, arguments = groups(spec, values)
    result = run(spec.kernels, x, np.ones_like(x), arguments)
    whole = spec.centred or np.isnan(value)  # a norm of inf divides all finite elements to 0
    assert np.isnan(result.y if whole else result.y[~np.isfinite(x)]).all()
    assert np.isnan(result.grads.dx if whole else result.grads.dx[~np.isfinite(x)]).all()


# Known failures of others


@every_norm
def test_mean_of_2000_does_not_swamp_the_variance(spec, rng):
    """E[x²] - E[x]² in float32 gave a variance of 48425 here."""
    assert_accurate(spec, rng.normal(2000, 0.1, 10_000))


@every_norm
def test_sd_of_a_hundredth_about_a_hundred_is_not_zero(spec, rng):
    assert_accurate(spec, rng.normal(100, 0.01, 3000))


@every_norm
@pytest.mark.parametrize("n", [4, 4096, 9000])
def test_rows_of_40000_to_40003(spec, n):
    assert_accurate(spec, 40_000 + np.arange(n) % 4)


@pytest.mark.covering(2)
@every_norm
@pytest.mark.parametrize("n", [2, 64, 10_000])
@pytest.mark.parametrize("scale", [1e30, 1e38, 1e-18, 1e-37])
def test_squares_that_leave_the_range_of_float32(spec, n, scale):
    """±1e30: the variance of 1e60 is not a float32, the output of ±1 is."""
    assert_accurate(spec, scale * (-1.0) ** np.arange(n), eps=0)


@pytest.mark.covering(2)
@every_norm
@pytest.mark.parametrize(("scale", "dy_scale"), [(3e37, 1), (1e33, 65536), (1e-25, 1e-20)])
@pytest.mark.parametrize("shape", [(300, 12), (8, 12, 20), (8, 12, 200), (4, 3, 9000)], ids=str)
def test_gradients_of_large_and_small_data(spec, scale, dy_scale, shape, rng):
    """dy * (x - mean) leaves the range of float32 where dy * x_hat does not."""
    shape = fitted(spec, shape)
    x, dy = (rng.normal(size=shape).astype(np.float32) * np.float32(s) for s in (scale, dy_scale))
    arguments = spec.arguments(shape, np.float32, rng) | accepted(spec, eps=0, r_max=1, d_max=0)
    got, expected = (f.grads for f in (run(spec.kernels, x, dy, arguments), oracle(spec, x, dy, arguments)))
    for a, b in zip(got[1:], expected[1:], strict=True):
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@every_norm
def test_one_outlier_among_small_values(spec, rng):
    """The pivot, the largest value, and the rest have nothing in common."""
    values = rng.normal(size=5000)
    for position in (0, 4, 4999):
        assert_accurate(spec, np.where(np.arange(5000) == position, 1e7, values))


@every_norm
def test_a_pivot_far_from_the_mean(spec, rng):
    """The first elements of a tile say nothing about it."""
    values = rng.normal(1e4, 1, 9000)
    values[:8] = values[4096:4104] = 0
    assert_accurate(spec, values)


@every_norm
def test_a_ramp(spec):
    assert_accurate(spec, np.arange(200_000))


@every_norm
def test_tiny_eps_is_not_lost(spec, rng):
    """In half precision 1e-12 is zero, and a constant group divides by it; here eps is float64."""
    values = 1e-6 * rng.normal(size=500)
    assert_accurate(spec, values, eps=1e-12)
    if spec.centred:
        x, arguments = groups(spec, np.full(500, 3.0))
        assert not spec.kernels.call(x, **arguments | accepted(spec, eps=1e-300, r_max=1, d_max=0)).any()


@every_norm
def test_dx_of_a_constant_row_is_right(spec, rng):
    """rstd is 1/sqrt(eps) = 316 there, and every rounding error of x_hat would show 316 times."""
    x, arguments = groups(spec, np.full(1000, 4321.123))
    dy = rng.normal(size=x.shape).astype(np.float32)
    assert_matches(spec, run(spec.kernels, x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_a_slice_of_zeros_has_no_direction(dim, rng):
    v, dw = np.zeros((3, 40), np.float32), rng.normal(size=(3, 40)).astype(np.float32)
    g = np.ones(1 if dim is None else v.shape[dim], np.float32)
    w, saved = nk.weight_norm_forward(v, g, dim)
    grads = nk.weight_norm_backward(dw, saved)
    assert not w.any()
    assert not grads.dx.any()
    assert not grads.dweight.any()
