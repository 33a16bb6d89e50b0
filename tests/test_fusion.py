"""Residual and activation, fused into the norms that take them."""

import copy

import ml_dtypes
import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, LAYOUTS, accepted, assert_same_bits, assert_within, bounds, fitted, widened
from normkernels import _calls
from normkernels.cpu import tuning
from normkernels.norms import NORMS
from normkernels.reference.fused import ACTIVATIONS

FUSING = [spec for spec in NORMS.values() if spec.activation]
RESIDUAL = [spec for spec in FUSING if spec.residual]
BEFORE = [spec for spec in RESIDUAL if spec.residual == "before"]
AFTER = [spec for spec in RESIDUAL if spec.residual == "after"]


def ids(spec):
    return spec.name


def problem(spec, shape, dtype, rng, activation=None, residual=False, **options):
    """x, dy, dsum or nothing, and arguments for a fused norm"""
    shape = fitted(spec, shape)
    x, dy, other, dsum = (rng.normal(size=shape).astype(dtype) for _ in range(4))
    arguments = spec.arguments(shape, dtype, rng) | {"activation": activation} | accepted(spec, **options)
    if residual and spec.residual:
        arguments["residual"] = other
    return x, dy, ({"dsum": dsum} if spec.residual == "before" and residual else {}), arguments


def run(passes, x, dy, arguments, backward, **options):
    arguments = copy.deepcopy(arguments)
    y, saved = passes.forward(x, **arguments, **options)
    return y, passes.backward(dy, saved, **backward, **options), saved, arguments


def assert_matches(spec, got, x, dy, arguments, backward):
    """y and gradients are those of the norm in steps, in higher precision.

    The slopes of the activations stay below 1.13, those of the slopes below 0.8: an error of z adds about as
    much to everything behind it. The activations themselves err by a few ulp.
    """
    y, grads, *_ = got
    steps = spec.in_steps(spec.reference)
    want_y, want, saved, _ = run(steps, *map(widened, (x, dy, arguments, backward)))
    h = x if spec.residual != "before" or "residual" not in arguments else x + arguments["residual"]
    y_bound, grad_bounds = bounds(spec, h, 4 * np.abs(widened(dy)), saved.norm)
    ulps = 8 * float(np.finfo(max(x.dtype, np.dtype(np.float32), key=lambda d: d.itemsize)).eps)
    half = float(ml_dtypes.finfo(x.dtype).eps) if x.dtype.itemsize == 2 else 0.0
    assert_within(y, want_y, 4 * y_bound + (ulps + half) * np.abs(want_y), "y")
    for name, a, b, bound in zip(nk.Grads._fields, grads[:3], want[:3], grad_bounds, strict=True):
        assert (a is None) == (b is None), f"{name} is {a}"
        if a is not None:
            assert_within(a, b, 8 * bound + (ulps + half) * np.abs(b), name)
    if "residual" in arguments:
        bound = 8 * grad_bounds.dx if spec.residual == "before" else 4 * y_bound * np.abs(widened(dy))
        assert_within(
            grads.dresidual, want.dresidual, bound + (ulps + half) * np.abs(want.dresidual), "dresidual"
        )


# Every kind of kernel compiles again for whatever is fused: these tests are chosen so that each meets each
# fusion once, in float32, and the other dtypes meet one.
LAYER_NORM, GROUP_NORM, BATCH_NORM = (NORMS[n] for n in ("layer_norm", "group_norm", "batch_norm"))
ONE_OF_A_FAMILY = [LAYER_NORM, GROUP_NORM, BATCH_NORM]

# Columns, or rows in batches; long rows in tiles, by one thread and by several; runs short and long, few
# channels in tiles.
SHAPES = [
    (40, 33),
    (2, 60_001),
    pytest.param((2, 70_001), marks=pytest.mark.slow),
    (9, 20, 7, 7),
    (3, 10, 14, 14),
    (2, 3, 60, 70),
]


@pytest.mark.parametrize("spec", FUSING, ids=ids)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("residual", [False, True])
def test_matches_the_steps(spec, shape, residual, rng):
    if spec.name == "rms_norm" and shape[1] > 33:
        shape = SHAPES[0]  # layer norm's kernels with one argument that is None
    for activation in ACTIVATIONS:
        x, dy, backward, arguments = problem(spec, shape, np.float32, rng, activation, residual)
        got = run(spec.kernels, x, dy, arguments, backward)
        assert_matches(spec, got, x, dy, arguments, backward)


@pytest.mark.covering(1)
@pytest.mark.parametrize("spec", ONE_OF_A_FAMILY, ids=ids)
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_other_dtypes(spec, dtype, rng):
    for activation in ACTIVATIONS:
        x, dy, backward, arguments = problem(spec, (5, 8, 14, 14), dtype, rng, activation, residual=True)
        got = run(spec.kernels, x, dy, arguments, backward)
        assert_matches(spec, got, x, dy, arguments, backward)


@pytest.mark.parametrize("spec", [*AFTER, NORMS["instance_norm"]], ids=ids)
@pytest.mark.parametrize("shape", SHAPES[3:], ids=str)
def test_in_evaluation(spec, shape, rng):
    """Also where x is infinite: dx is dy' * scale and never looks at x but through the activation."""
    options = {"training": False, "use_input_stats": False}
    x, dy, backward, arguments = problem(spec, shape, np.float32, rng, "relu", True, **options)
    got = run(spec.kernels, x, dy, arguments, backward)
    assert_matches(spec, got, x, dy, arguments, backward)
    x.flat[0] = np.inf
    dx = run(spec.kernels, x, dy, arguments, backward)[1].dx
    weight, var = arguments["weight"][0], arguments["running_var"][0]
    np.testing.assert_allclose(dx.flat[0], dy.flat[0] * weight / np.sqrt(var + 1e-5), rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "shape", "dtype"),
    [
        (NORMS["rms_norm"], (40, 33), np.float32),
        (LAYER_NORM, (40, 33), np.float32),
        (LAYER_NORM, (40, 33), ml_dtypes.bfloat16),
        (LAYER_NORM, (2, 60_001), np.float32),
        pytest.param(LAYER_NORM, (2, 70_001), np.float32, marks=pytest.mark.slow),
    ],
)
def test_a_residual_before_the_norm_is_the_norm_of_the_sum_to_the_bit(spec, shape, dtype, rng):
    x, dy, _, arguments = problem(spec, shape, dtype, rng, residual=True)
    total = x + arguments["residual"]
    y, grads, saved, _ = run(spec.kernels, x, dy, arguments, {})
    expected = run(spec.kernels, total, dy, {**arguments, "residual": None}, {})
    assert_same_bits((saved.x, y, grads[:3]), (total, expected[0], expected[1][:3]))
    assert grads.dresidual is grads.dx
    assert_same_bits(spec.kernels.call(x, **arguments), y)


@pytest.mark.parametrize("spec", AFTER, ids=ids)
def test_without_an_activation_the_gradient_of_the_residual_is_dy(spec, rng):
    x, dy, _, arguments = problem(spec, (4, 3, 5, 5), np.float32, rng, residual=True)
    _, saved = spec.kernels.forward(x, **copy.deepcopy(arguments))
    grads = spec.kernels.backward(dy, saved)
    assert grads.dresidual is dy
    place = dy.copy()  # which dx takes
    replaced = spec.kernels.backward(place, saved, out=place)
    assert_same_bits((replaced.dx, replaced.dresidual), (grads.dx, dy))
    assert_same_bits(grads[:3], run(spec.kernels, x, dy, {**arguments, "residual": None}, {})[1][:3])


@pytest.mark.covering(1)
@pytest.mark.parametrize("spec", ONE_OF_A_FAMILY, ids=ids)
@pytest.mark.parametrize("shape", [(300, 2100), (6, 40, 60, 60), (40, 64, 17, 7), (5000, 130)], ids=str)
def test_neither_threads_nor_streaming_change_a_bit(spec, shape, rng, monkeypatch):
    x, dy, backward, arguments = problem(spec, shape, np.float32, rng, "relu", residual=True)
    if spec.residual == "before":
        arguments["sum_out"] = np.empty_like(x)
    one, many = (run(spec.kernels, x, dy, arguments, backward, threads=t)[:2] for t in (1, None))
    assert_same_bits(one, many)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    monkeypatch.setattr(_calls, "_known", {})  # calls that were prepared for other bounds
    assert_same_bits(run(spec.kernels, x, dy, arguments, backward)[:2], one)
    if "sum_out" in arguments:  # outputs that meet cache lines differently cannot both be streamed
        shifted = np.empty(x.size + 1, np.float32)[1:].reshape(x.shape)
        assert_same_bits(run(spec.kernels, x, dy, arguments | {"sum_out": shifted}, backward)[:2], one)


@pytest.mark.parametrize("spec", RESIDUAL, ids=ids)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_residual_and_gradients_may_lie_in_any_way(spec, layout, rng):
    x, dy, backward, arguments = problem(spec, (6, 5, 8, 9), np.float32, rng, "silu", residual=True)
    expected = run(spec.kernels, x, dy, arguments, backward)[:2]
    other = {**arguments, "residual": LAYOUTS[layout](arguments["residual"])}
    if spec.residual == "before":
        other["sum_out"] = LAYOUTS[layout](np.zeros_like(x))
        backward = {"dsum": LAYOUTS[layout](backward["dsum"])}
    y, saved = spec.kernels.forward(x, **other)
    assert_same_bits((y, spec.kernels.backward(dy, saved, **backward)), expected)
    if spec.residual == "before":
        assert saved.x is other["sum_out"]
        assert_same_bits(saved.x, x + arguments["residual"])


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        *((spec, (40, 33)) for spec in BEFORE),
        (LAYER_NORM, (2, 60_001)),
        pytest.param(LAYER_NORM, (2, 70_001), marks=pytest.mark.slow),
    ],
)
def test_the_sum_may_replace_x_or_the_residual(spec, shape, rng):
    """The residual stream of a transformer is updated in place, and y may take the place of x."""
    x, dy, backward, arguments = problem(spec, shape, np.float32, rng, residual=True)
    y, grads, saved, _ = run(spec.kernels, x, dy, arguments, backward)
    for place in ("x", "residual"):
        arrays = {"x": x.copy(), "residual": arguments["residual"].copy()}
        other = arrays["residual" if place == "x" else "x"]
        call = {**arguments, **arrays, "sum_out": arrays[place], "out": other}
        got, kept = spec.kernels.forward(**call)
        assert got is other
        assert kept.x is arrays[place]
        assert_same_bits((got, kept.x), (y, saved.x))
        dsum = backward["dsum"].copy()
        assert_same_bits(spec.kernels.backward(dy, kept, dsum=dsum, out=dsum), grads)


@pytest.mark.parametrize("spec", AFTER, ids=ids)
def test_out_may_be_the_residual(spec, rng):
    x, _, _, arguments = problem(spec, (4, 3, 30, 30), np.float32, rng, "relu", residual=True)
    expected = spec.kernels.call(x, **copy.deepcopy(arguments))
    place = arguments["residual"].copy()
    arguments["residual"] = place
    assert_same_bits(spec.kernels.call(x, **arguments, out=place), expected)


@pytest.mark.parametrize("spec", BEFORE, ids=ids)
def test_dsum_without_a_residual_is_the_gradient_past_the_norm(spec, rng):
    x, dy, _, arguments = problem(spec, (40, 33), np.float32, rng)
    _, saved = spec.kernels.forward(x, **arguments)
    plain, past = spec.kernels.backward(dy, saved), spec.kernels.backward(dy, saved, dsum=dy)
    np.testing.assert_allclose(past.dx, plain.dx + dy, rtol=1e-5, atol=1e-6)
    assert isinstance(past, nk.Grads)


@pytest.mark.parametrize("spec", FUSING, ids=ids)
@pytest.mark.parametrize("shape", [(0, 6, 4), (3, 6, 0)], ids=str)
def test_nothing_at_all(spec, shape, rng):
    x, dy, backward, arguments = problem(spec, shape, np.float32, rng, "gelu", residual=True)
    if spec.family == "rows" and shape[-1] == 0:
        arguments["normalized_shape"] = (0,)
    y, grads, *_ = run(spec.kernels, x, dy, arguments, backward)
    assert y.shape == grads.dx.shape == shape


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activations_to_a_few_ulp_at_any_magnitude(activation, dtype):
    """With statistics of 0 and 1 and eps 0 the norm hands z through; far tails keep their digits."""
    z = np.concatenate([np.linspace(-110, 110, 30_001), np.geomspace(1e-30, 1, 999), [0.0]]).astype(dtype)
    x = np.stack([z, -z], axis=1)
    statistics = np.zeros(2), np.ones(2)
    y, saved = nk.batch_norm_forward(x, *statistics, eps=0.0, activation=activation)
    slopes = nk.batch_norm_backward(np.ones_like(x), saved).dx
    function, slope = ACTIVATIONS[activation]
    wide = x.astype(np.float64)
    want, want_slope = function(wide), slope(wide)
    tiny, ulp = float(np.finfo(dtype).tiny), float(np.finfo(dtype).eps)
    subnormal = 128 * tiny * ulp  # of the sigmoid, times z
    if dtype == np.float64:  # erfc(z/sqrt(2)) of the reference errs by the rounding of its argument
        ulp = ulp * np.maximum(1, wide**2 / 4)
    assert (np.abs(y - want) <= 6 * ulp * np.abs(want) + subnormal).all()
    # Where the slope vanishes, what it is the difference of does not.
    terms = np.abs(want_slope) + np.abs(want)
    assert (np.abs(slopes - want_slope) <= 8 * ulp * terms + subnormal).all()


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_stays_nan(activation):
    """In the backward too: relu hands dy on, as PyTorch's does."""
    x = np.ones((4, 3), np.float32)
    x[1, 1] = np.nan
    y, saved = nk.batch_norm_forward(x, np.zeros(3), np.ones(3), eps=0.0, activation=activation)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    dx = nk.batch_norm_backward(np.full_like(x, 3), saved).dx
    assert dx[1, 1] == 3 if activation == "relu" else np.isnan(dx[1, 1])
    assert np.isfinite(dx[0]).all()


@pytest.mark.parametrize("spec", FUSING, ids=ids)
def test_without_weight_and_bias(spec, rng):
    x, dy, backward, arguments = problem(spec, (40, 33), np.float32, rng, "relu", residual=True)
    arguments |= accepted(spec, weight=None, bias=None)
    assert_matches(spec, run(spec.kernels, x, dy, arguments, backward), x, dy, arguments, backward)


@pytest.mark.parametrize("spec", FUSING, ids=ids)
def test_dx_may_take_the_place_of_dy_or_of_what_was_normalized(spec, rng):
    x, dy, backward, arguments = problem(spec, (9, 20, 7, 7), np.float32, rng, "gelu", residual=True)
    expected = run(spec.kernels, x, dy, arguments, backward)[1]
    for place in ("dy", "x"):
        _, saved = spec.kernels.forward(x.copy(), **copy.deepcopy(arguments))
        gradient = dy.copy()
        out = gradient if place == "dy" else saved.x
        assert_same_bits(spec.kernels.backward(gradient, saved, **backward, out=out), expected)


PLAIN = {"x": np.ones((4, 6), np.float32), "normalized_shape": 6}
BATCH = {"x": np.ones((4, 6), np.float32), "running_mean": np.zeros(6), "running_var": np.ones(6)}
OTHER = np.ones((4, 6), np.float32)


@pytest.mark.parametrize(
    ("function", "changes", "error", "message"),
    [
        (nk.layer_norm, {"activation": "tanh"}, ValueError, "activation must be None, relu.*got 'tanh'"),
        (nk.batch_norm, {"activation": 3}, TypeError, "activation must be .*got 3"),
        (nk.layer_norm, {"residual": OTHER[:2]}, ValueError, r"residual must .*\(4, 6\), got \(2, 6\)"),
        (nk.batch_norm, {"residual": OTHER.astype(np.float64)}, TypeError, "residual must .*got float64"),
        (nk.layer_norm, {"residual": [1.0]}, TypeError, "residual must be an array.*got list"),
        (nk.layer_norm, {"sum_out": OTHER}, ValueError, "sum_out must be None without a residual"),
        (nk.rms_norm, {"residual": OTHER, "sum_out": OTHER[:2]}, ValueError, r"sum_out must .*got \(2, 6\)"),
        (nk.rms_norm, {"residual": OTHER, "sum_out": OTHER, "out": OTHER}, ValueError, "sum_out must not"),
        (nk.batch_norm_forward, {"residual": OTHER, "out": OTHER}, ValueError, "out must not overlap"),
        (nk.batch_norm, {"residual": BATCH["running_mean"]}, ValueError, "residual must"),
    ],
)  # fmt: skip
def test_bad_input(function, changes, error, message):
    good = copy.deepcopy(BATCH if "batch" in function.__name__ else PLAIN)
    with pytest.raises(error, match=message):
        function(**(good | changes))
    assert_same_bits(OTHER, np.ones((4, 6), np.float32))


def test_bad_dsum():
    _, saved = nk.layer_norm_forward(**PLAIN)
    with pytest.raises(ValueError, match=r"dsum must have the shape of x, \(4, 6\), got \(6,\)"):
        nk.layer_norm_backward(OTHER, saved, dsum=OTHER[0])


def test_the_gradient_of_the_residual_survives_an_out_in_the_place_of_dy(rng):
    """Also where dx takes the long way to out, because their strides differ."""
    x, dy, residual = (rng.normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in range(3))
    _, saved = nk.batch_norm_forward(x, None, None, training=True, residual=residual)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(dy, 1, -1)), -1, 1)
    grads = nk.batch_norm_backward(last, saved, out=last)
    assert grads.dx is last
    assert_same_bits(grads.dresidual, dy)
