"""The oracle itself: against the definitions in exact sums, and its own derivatives."""

import math

import numpy as np
import pytest

from helpers import assert_gradients, run
from normkernels import reference
from normkernels.norms import NORMS, Passes

DTYPES = (np.float16, np.float32, np.float64, np.longdouble)
RUNNING_AND_AFFINE = ("running_mean", "running_var", "weight", "bias")


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


def test_without_momentum_the_running_statistics_are_the_average_of_the_batches(rng):
    mean, var, seen = np.zeros(1), np.ones(1), np.array(0)
    batches = rng.normal(size=(3, 4, 1))
    for x in batches:
        reference.batch_norm(x, mean, var, training=True, momentum=None, num_batches_tracked=seen)
    assert seen == 3
    assert mean == pytest.approx(batches.mean(), rel=1e-12)
    assert var == pytest.approx(batches.var(axis=1, ddof=1).mean(), rel=1e-12)


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


def test_rms_norm_is_its_definition(rng):
    x, weight = rng.normal(3, 2, (4, 6)), rng.normal(size=6)
    for row, y in zip(x, reference.rms_norm(x, 6, weight, 0.01), strict=True):
        rms = math.sqrt(math.fsum(v * v for v in row) / 6 + 0.01)
        np.testing.assert_allclose(y, row / rms * weight, rtol=1e-14)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float32, 2.0**-23), (np.float64, 2.0**-52)])
def test_rms_norm_without_eps_takes_that_of_its_arithmetic(dtype, eps):
    x = np.full(4, np.sqrt(eps), dtype)  # the mean square is eps: 1/sqrt(2) then
    np.testing.assert_allclose(reference.rms_norm(x, 4), np.sqrt(0.5), rtol=1e-6)


@pytest.mark.parametrize("channel_axis", [1, 2, -1])
def test_group_norm_is_its_definition(channel_axis, rng):
    x, weight, bias = rng.normal(3, 2, (2, 6, 5)), rng.normal(size=6), rng.normal(size=6)
    y = reference.group_norm(np.moveaxis(x, 1, channel_axis), 2, weight, bias, channel_axis=channel_axis)
    y = np.moveaxis(y, channel_axis, 1)
    for n in range(2):
        for group in (slice(3), slice(3, 6)):
            w, b = weight[group].repeat(5), bias[group].repeat(5)
            expected = exactly_normalized(x[n, group].ravel(), w, b, 1e-5)
            np.testing.assert_allclose(y[n, group].ravel(), expected, rtol=0, atol=1e-14)


def test_group_norm_of_one_group_is_layer_norm_and_of_single_channels_instance_norm(rng):
    x = rng.normal(3, 2, (2, 6, 5))
    np.testing.assert_allclose(reference.group_norm(x, 1), reference.layer_norm(x, (6, 5)), atol=1e-14)
    np.testing.assert_allclose(reference.group_norm(x, 6), reference.instance_norm(x), atol=1e-14)


@pytest.mark.parametrize("channel_axis", [1, 2, -1])
def test_instance_norm_is_its_definition(channel_axis, rng):
    x, weight, bias = rng.normal(3, 2, (2, 3, 5)), rng.normal(size=3), rng.normal(size=3)
    arguments = {"weight": weight, "bias": bias, "channel_axis": channel_axis}
    y = np.moveaxis(reference.instance_norm(np.moveaxis(x, 1, channel_axis), **arguments), channel_axis, 1)
    for n, c in np.ndindex(2, 3):
        expected = exactly_normalized(x[n, c], [weight[c]] * 5, [bias[c]] * 5, 1e-5)
        np.testing.assert_allclose(y[n, c], expected, rtol=0, atol=1e-14)


def test_instance_norm_moves_the_running_statistics_by_the_averages_over_the_samples():
    mean, var = np.array([1.0]), np.array([10.0])
    x = np.array([[[1.0, 3.0]], [[10.0, 16.0]]])  # means 2 and 13, unbiased variances 2 and 18
    reference.instance_norm(x, mean, var, momentum=0.5)
    assert (mean, var) == (4.25, 10.0)


@pytest.mark.parametrize("name", ["instance_norm", "batch_renorm"])
def test_evaluation_is_that_of_batch_norm(name, rng):
    x, dy = rng.normal(3, 2, (2, 4, 3, 5))
    arguments = dict(zip(RUNNING_AND_AFFINE, rng.uniform(1, 2, (4, 3)), strict=True))
    flag = "use_input_stats" if name == "instance_norm" else "training"
    result = run(NORMS[name].reference, x, dy, arguments | {flag: False})
    expected = run(NORMS["batch_norm"].reference, x, dy, arguments)
    for a, b in zip((result.y, *result.grads), (expected.y, *expected.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)


def renormalized(x, training=True, **limits):
    """With statistics that neither limit of the defaults clips."""
    return reference.batch_renorm_forward(
        x, np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 4.0]), np.array([2.0, -1.0, 0.5]),
        np.array([3.0, 0.0, 1.0]), training, **limits,
    )  # fmt: skip


def test_batch_renorm_is_evaluation_as_long_as_nothing_is_clipped(rng):
    x = rng.normal(1, 1.5, (20, 3))
    y, saved = renormalized(x)
    assert (np.abs(np.log(saved.r)) < np.log(3)).all()
    assert (np.abs(saved.d) < 5).all()
    np.testing.assert_allclose(y, renormalized(x, training=False)[0], rtol=0, atol=1e-14)


def test_batch_renorm_clips_r_and_d(rng):
    x = 100 * rng.normal([3, -3, 0], 1, (20, 3))
    assert renormalized(x)[1].r.tolist() == [[3, 3, 3]]
    assert renormalized(x / 1e6)[1].r.tolist() == [[1 / 3, 1 / 3, 1 / 3]]
    assert renormalized(x)[1].d[0, :2].tolist() == [5, -5]


def test_batch_renorm_within_limits_of_1_and_0_is_batch_norm(rng):
    x, dy = rng.normal(1, 2, (2, 4, 3, 5))
    arguments = dict(zip(RUNNING_AND_AFFINE, rng.uniform(1, 2, (4, 3)), strict=True))
    renorm = run(
        NORMS["batch_renorm"].reference, x, dy, arguments | {"r_max": 1.0, "d_max": 0.0, "training": True}
    )
    norm = run(NORMS["batch_norm"].reference, x, dy, arguments | {"training": True})
    running = ([a.arguments[k] for k in ("running_mean", "running_var")] for a in (renorm, norm))
    np.testing.assert_allclose(*running, rtol=1e-14)
    for a, b in zip((renorm.y, *renorm.grads), (norm.y, *norm.grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


def test_batch_renorm_takes_r_and_d_as_constants(rng):
    """What is left is batch norm with weight * r and weight * d + bias."""
    x, dy = rng.normal(1, 1.5, (2, 20, 3))
    y, saved = renormalized(x)
    grads = reference.batch_renorm_backward(dy, saved)
    weight, bias, r, d = (a.reshape(3) for a in (saved.weight, saved.bias, saved.r, saved.d))
    expected, batch_saved = reference.batch_norm_forward(x, None, None, weight * r, weight * d + bias, True)
    dx, dweight, dbias = reference.batch_norm_backward(dy, batch_saved)
    for a, b in zip((y, *grads), (expected, dx, dweight * r + dbias * d, dbias), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm_gives_every_slice_its_length(dim, rng):
    v = rng.normal(size=(3, 4, 2))
    g = rng.normal(size=() if dim is None else v.shape[dim])
    w = reference.weight_norm(v, g, dim)
    slices = [(v, w)] if dim is None else zip(np.moveaxis(v, dim, 0), np.moveaxis(w, dim, 0), strict=True)
    for (a, b), length in zip(slices, g.ravel(), strict=True):
        np.testing.assert_allclose(b, a * (length / math.sqrt(math.fsum(a.ravel() ** 2))), rtol=1e-14)


def test_weight_norm_of_a_slice_of_zeros_is_zero(rng):
    v, g = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[7.0], [10.0]])
    w, saved = reference.weight_norm_forward(v, g)
    assert w[0].tolist() == [0, 0]
    dv, dg, _ = reference.weight_norm_backward(rng.normal(size=(2, 2)), saved)
    assert dv[0].tolist() == [0, 0]
    assert dg[0, 0] == 0
    assert dg.shape == g.shape


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_local_response_norm_is_its_definition(size, rng):
    x = rng.normal(size=(2, 5, 3))
    y = reference.local_response_norm(x, size, 0.5, 0.6, 2.0)
    for n, c, i in np.ndindex(x.shape):
        window = (j for j in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= j < 5)
        s = 2.0 + 0.5 / size * math.fsum(x[n, j, i] ** 2 for j in window)
        assert y[n, c, i] == pytest.approx(x[n, c, i] / s**0.6, rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zscore_and_minmax_of_equal_values_are_zero(dtype, rng):
    x = rng.normal(size=(10, 2)).astype(dtype)
    x[:, 1] = 0.1  # the mean of ten of these is not 0.1
    z, unit = reference.zscore(x), reference.minmax(x)
    assert z.dtype == unit.dtype == dtype
    assert not z[:, 1].any()
    assert not unit[:, 1].any()
    np.testing.assert_allclose(z[:, 0], (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(), atol=1e-6)
    assert (unit[:, 0].min(), unit[:, 0].max()) == (0, 1)


def test_zscore_and_minmax_along_other_axes():
    x = np.array([[1.0, 3.0], [10.0, 30.0]])
    assert reference.zscore(x, 1).tolist() == [[-1, 1], [-1, 1]]
    assert reference.minmax(x, None).tolist() == [[0, 2 / 29], [9 / 29, 1]]


def test_whitened_data_is_uncorrelated(rng):
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + 5
    for method in ("zca", "pca"):
        y = reference.whiten(x, method, eps=0)
        np.testing.assert_allclose(y.mean(axis=0), 0, atol=1e-13)
        np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(3), atol=1e-12)


def test_whitening_by_pca_goes_by_falling_variance_and_by_zca_is_symmetric(rng):
    x = rng.normal(size=(50, 3)) @ rng.normal(size=(3, 3)) + 5
    variances = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    y = reference.whiten(x, "pca", eps=0.5)
    np.testing.assert_allclose(y.var(axis=0), variances / (variances + 0.5), rtol=1e-12)
    w = np.linalg.lstsq(x - x.mean(axis=0), reference.whiten(x, eps=0.5))[0]
    np.testing.assert_allclose(w, w.T, atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(w), 1 / np.sqrt(variances + 0.5), rtol=1e-12)


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
    grads = spec.reference.backward(dy, saved)
    for gradient in ("dx", *spec.parameters.values()):
        assert getattr(grads, gradient).dtype == dtype
    assert y.dtype == dtype


# Where batch renorm clips both, r and d do not change with x, as its backward assumes.
CLIPPED = {"batch_renorm": {"running_mean": np.full(3, -50.0), "running_var": np.full(3, 1e-4)}}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("affine", [True, False])
def test_backward_is_the_derivative_of_the_forward(name, affine, rng):
    spec = NORMS[name]
    x, dy = rng.normal(size=(2, 4, 3, 5)).astype(np.longdouble)
    arguments = spec.arguments(x.shape, np.float64, rng) | CLIPPED.get(name, {})
    if not affine:
        arguments = {k: v for k, v in arguments.items() if k not in ("weight", "bias")}
    assert_gradients(
        spec.reference, x, dy,
        {k: v.astype(np.longdouble) if isinstance(v, np.ndarray) else v for k, v in arguments.items()},
        spec.parameters,
    )  # fmt: skip


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_backward_of_several_groups(channel_axis, rng):
    shape = (2, 6, 3) if channel_axis == 1 else (2, 3, 6)
    x, dy = rng.normal(size=(2, *shape)).astype(np.longdouble)
    weight, bias = rng.normal(size=(2, 6)).astype(np.longdouble)
    arguments = {"num_groups": 3, "weight": weight, "bias": bias, "channel_axis": channel_axis}
    assert_gradients(NORMS["group_norm"].reference, x, dy, arguments)


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_backward_of_weight_norm(dim, rng):
    spec = NORMS["weight_norm"]
    v, dw = rng.normal(size=(2, 3, 4, 2)).astype(np.longdouble)
    g = rng.normal(size=1 if dim is None else v.shape[dim]).astype(np.longdouble)
    assert_gradients(spec.reference, v, dw, {"g": g, "dim": dim}, spec.parameters)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 9])
def test_backward_of_local_response_norm(size, rng):
    x, dy = rng.normal(size=(2, 2, 5, 3)).astype(np.longdouble)
    passes = Passes(
        reference.local_response_norm,
        reference.local_response_norm_forward,
        reference.local_response_norm_backward,
    )
    assert_gradients(passes, x, dy, {"size": size, "alpha": 0.5, "beta": 0.6, "k": 2.0})
