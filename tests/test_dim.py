"""layer_norm and rms_norm over axes that `dim` names: at every position, in rows, and after a copy."""

import re

import numpy as np
import pytest

import normkernels as nk
from helpers import (
    DTYPES,
    FLOAT32_FIRST,
    LAYOUTS,
    assert_matches,
    assert_same_bits,
    epsilon,
    needed_besides,
    oracle,
    run,
    widened,
)
from normkernels._plan import row_plan
from normkernels.cpu import launch_positions
from normkernels.norms import NORMS
from normkernels.reference.fused import ACTIVATIONS

both = pytest.mark.parametrize("spec", [NORMS["layer_norm"], NORMS["rms_norm"]], ids=lambda s: s.name)


def problem(spec, shape, dim, dtype, rng, eps=1e-5):
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    sizes = tuple(shape[a] for a in np.atleast_1d(dim))
    learned = {name: rng.normal(size=sizes).astype(dtype) for name in spec.parameters}
    return x, dy, {"normalized_shape": sizes, "dim": dim, "eps": eps, **learned}


def moved(passes, x, dy, arguments, **options):
    """The same by moving the axes behind the others, and back."""
    arguments = dict(arguments)
    dim = arguments.pop("dim")
    last = tuple(range(-np.size(dim), 0))
    given = {k: np.moveaxis(a, dim, last) for k, a in options.items()}
    y, saved = passes.forward(np.moveaxis(x, dim, last), **arguments, **given)
    dx, *sums = passes.backward(np.moveaxis(dy, dim, last), saved)
    return np.moveaxis(y, last, dim), np.moveaxis(dx, last, dim), *sums


def test_known_values():
    """Two channels of two positions: mean 2 and standard deviation 2, mean 30 and standard deviation 10."""
    x = np.array([[[0.0, 20.0], [4.0, 40.0]]])
    y = nk.layer_norm(x, 2, np.array([1.0, 3.0]), np.array([0.0, 10.0]), eps=0, dim=1)
    assert y.tolist() == [[[-1, -1], [13, 13]]]
    assert nk.rms_norm(x, 2, eps=0, dim=1)[0, :, 0].tolist() == [0, pytest.approx(2**0.5)]


# Few positions, odd numbers of them, and several tiles of them; cols beyond 128 and 4096.
SHAPES = [
    ((2, 5, 7, 9), 1), ((3, 130, 11), 1), ((4, 768, 7, 7), 1), ((1, 96, 45, 45), 1), ((2, 5000, 9), 1),
    ((2, 257, 50), 1), ((2, 3, 9000), 1), ((2, 2, 33), -2), ((65, 8), 0), ((40, 3, 4, 15), (1, 2)),
    ((3, 4, 5, 6), [0, 1]), ((4, 5, 1, 6, 13), (1, 2, 3)), ((70, 5, 8), (1,)),
]  # fmt: skip


@both
@pytest.mark.parametrize(("shape", "dim"), SHAPES, ids=str)
def test_at_every_position(spec, shape, dim, rng):
    x, dy, arguments = problem(spec, shape, dim, np.float32, rng)
    result = run(spec.kernels, x, dy, arguments)
    assert result.saved.plan.inner > 1
    assert_matches(spec, result, x, dy, arguments)
    absent = arguments | dict.fromkeys(spec.parameters)
    assert_matches(spec, run(spec.kernels, x, dy, absent), x, dy, absent)


@both
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((3, 6, 5, 4), (2, 1)), ((3, 6, 5, 4), (0, 2)), ((3, 6, 5, 4), (3, 1)), ((3, 1, 4), 1), ((3, 5), 1),
     ((3, 130, 3), 1), ((2, 5000, 7), 1), ((40, 3, 4, 5), (1, 2)), ((65, 7), 0),
     ((4, 5, 6), (2, 0, 1)), ((4, 5, 6), (-2, -1)), ((1, 7, 1, 1), 1)],
    ids=str,
)  # fmt: skip
def test_as_rows(spec, shape, dim, rng):
    """The axes are the last ones, or copied to be so; weights have the order in which dim names them."""
    x, dy, arguments = problem(spec, shape, dim, np.float32, rng)
    result = run(spec.kernels, x, dy, arguments)
    assert result.saved.plan.inner == 1
    assert_matches(spec, result, x, dy, arguments)
    assert_same_bits((result.y, *result.grads), moved(spec.kernels, x, dy, arguments), "moved")


@both
def test_the_reference_is_the_one_of_rows(spec, rng):
    for shape, dim in (((3, 4, 5), 1), ((3, 4, 5), (2, 0)), ((3, 4, 5, 2), (-2, 1))):
        x, dy, arguments = problem(spec, shape, dim, np.float64, rng)
        result = run(spec.reference, x, dy, arguments)
        for got, want in zip((result.y, *result.grads), moved(spec.reference, x, dy, arguments), strict=True):
            assert (got is None) == (want is None)
            if got is not None:
                np.testing.assert_allclose(got, want, rtol=0, atol=1e-13)


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(spec, dtype, rng):
    for shape in ((2, 40, 5, 7), (2, 200, 11), (1, 3, 70)):
        x, dy, arguments = problem(spec, shape, 1, dtype, rng)
        assert_matches(spec, run(spec.kernels, x, dy, arguments), x, dy, arguments)


@both
def test_float32_weights_beside_half_types(spec, rng):
    for dtype in DTYPES[2:]:
        x, dy, arguments = problem(spec, (2, 40, 5, 7), 1, np.float32, rng)
        x, dy = x.astype(dtype), dy.astype(dtype)
        result = run(spec.kernels, x, dy, arguments)
        assert result.grads.dweight.dtype == np.float32
        assert_matches(spec, result, x, dy, arguments)


@both
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_memory_layouts(spec, layout, rng):
    x, dy, arguments = problem(spec, (9, 6, 4, 5), 1, np.float32, rng)
    x, dy = layout(x), layout(dy)
    result = run(spec.kernels, x, dy, arguments)
    assert_matches(spec, result, x, dy, arguments)
    if layout in (LAYOUTS["contiguous"], LAYOUTS["fortran"], LAYOUTS["channels_last"]):
        assert result.y.strides == result.grads.dx.strides == x.strides


@both
def test_channels_last_memory_is_taken_as_rows(spec, rng):
    x, dy, arguments = problem(spec, (3, 6, 4, 5), 1, np.float32, rng)
    x, dy = (LAYOUTS["channels_last"](a) for a in (x, dy))
    result = run(spec.kernels, x, dy, arguments)
    assert result.saved.plan.inner == 1
    assert_same_bits((result.y, *result.grads), moved(spec.kernels, x, dy, arguments), "rows")


@both
def test_last_axes_named_are_the_same_as_none(spec, rng):
    x, dy, arguments = problem(spec, (3, 4, 5), (1, 2), np.float32, rng)
    named = run(spec.kernels, x, dy, arguments)
    plain = run(spec.kernels, x, dy, arguments | {"dim": None})
    assert_same_bits((named.y, named.grads), (plain.y, plain.grads))


@both
@pytest.mark.parametrize("fused", ["activation", "residual", "residual+sum", "residual+activation"])
@pytest.mark.parametrize("dtype", FLOAT32_FIRST)
def test_fused(spec, fused, dtype, rng):
    x, dy, arguments = problem(spec, (2, 150, 5, 9), 1, dtype, rng)
    residual, dsum = (rng.normal(size=x.shape).astype(dtype) for _ in range(2))
    options, beside, h = {}, {}, x
    if "residual" in fused:
        options["residual"], h = residual, x + residual
    if "sum" in fused:
        options["sum_out"], beside["dsum"] = np.empty_like(x), dsum
    for name in ACTIVATIONS if "activation" in fused else (None,):
        y, saved = spec.kernels.forward(x, **arguments, **options, activation=name)
        grads = spec.kernels.backward(dy, saved, **beside)
        steps = spec.in_steps(spec.reference)
        expected, oracle_saved = steps.forward(widened(h), **widened(arguments), activation=name)
        if name == "relu":  # near the kink rounding decides
            dy = np.where(np.abs(expected) < 0.05, 0, dy).astype(dtype)
            grads = spec.kernels.backward(dy, saved, **beside)
        exact = steps.backward(widened(dy), oracle_saved, **widened(beside))
        tolerance = (4 if x.itemsize == 2 else 128) * epsilon(dtype)
        for got, want in zip((y, *grads[:3]), (expected, *exact), strict=True):
            if got is not None:
                np.testing.assert_allclose(widened(got), want, rtol=0, atol=tolerance * np.abs(want).max())
    if options:
        assert_same_bits(saved.x, h)
        assert grads.dresidual is grads.dx
        assert saved.x is options.get("sum_out", saved.x)


@both
def test_same_bits_for_any_threads(spec, rng):
    """In several pieces, alone or among others, and with the passing of large outputs by the caches."""
    for shape in ((6, 96, 40, 40), (40, 64, 15, 15)):
        x, dy, arguments = problem(spec, shape, 1, np.float32, rng)
        one, two = (run(spec.kernels, x, dy, arguments, threads=n) for n in (1, 2))
        assert_same_bits((one.y, one.grads, *one.saved[1:3]), (two.y, two.grads, *two.saved[1:3]))
        alone = run(spec.kernels, x[3:4], dy[3:4], arguments)
        assert_same_bits((alone.y, alone.grads.dx), (one.y[3:4], one.grads.dx[3:4]))


@both
@pytest.mark.parametrize("shape", [(5, 64, 15, 15), (5, 64, 16, 16), (2, 3, 71, 71)])
def test_stores_past_the_caches_change_nothing(spec, shape, rng, monkeypatch):
    x, dy, arguments = problem(spec, shape, 1, np.float32, rng)
    expected = run(spec.kernels, x, dy, arguments)
    seen = []
    for gathered in (False, True):
        monkeypatch.setattr(
            launch_positions, "_stores", lambda plan, tile, g=gathered: (True, g and tile == plan.inner)
        )
        seen.append(run(spec.kernels, x, dy, arguments))
    for result in seen:
        assert_same_bits((result.y, result.grads), (expected.y, expected.grads))


@both
def test_out_may_be_an_input(spec, rng):
    x, dy, arguments = problem(spec, (3, 40, 5, 7), 1, np.float32, rng)
    expected = run(spec.kernels, x, dy, arguments)
    own = x.copy()
    assert spec.kernels.call(own, **arguments, out=own) is own
    assert_same_bits(own, expected.y)
    _, saved = spec.kernels.forward(x, **arguments)
    own = dy.copy()
    assert spec.kernels.backward(own, saved, out=own).dx is own
    assert_same_bits(own, expected.grads.dx)
    scattered = np.zeros((3, 40, 5, 14), np.float32)[..., ::2]
    assert spec.kernels.call(x, **arguments, out=scattered) is scattered
    assert_same_bits(scattered, expected.y)
    residual = rng.normal(size=x.shape).astype(np.float32)
    y = spec.kernels.call(x, **arguments, residual=residual)
    total, into = residual.copy(), x.copy()
    spec.kernels.call(into, **arguments, residual=total, sum_out=total, out=into)
    assert_same_bits((into, total), (y, x + residual))


@both
@pytest.mark.parametrize("scale", [1e200, 1e305, 1e-200, 1e-300, None])
def test_float64_of_any_size(spec, scale, rng):
    """Positions of one scale, or of several side by side."""
    x, dy, arguments = problem(spec, (2, 150, 3, 3), 1, np.float64, rng, eps=0)
    x *= np.resize([1e200, 1e-200, 1.0], (3, 3)) if scale is None else scale
    got, expected = run(spec.kernels, x, dy, arguments), oracle(spec, x, dy, arguments)
    rstd = expected.saved.rstd
    np.testing.assert_allclose(got.y, expected.y.astype(float), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        (got.grads.dx / rstd).astype(float), (expected.grads.dx / rstd).astype(float), atol=1e-11
    )
    np.testing.assert_allclose(got.grads.dweight, expected.grads.dweight.astype(float), atol=1e-11)


def test_elements_further_apart_than_the_largest_number(rng):
    spec = NORMS["layer_norm"]
    for dtype in (np.float32, np.float64):
        x, dy, arguments = problem(spec, (2, 150, 9), 1, dtype, rng, eps=0)
        x = (
            rng.choice([1, 1, 1, -1], x.shape) * rng.uniform(0.8, 0.99, x.shape) * np.finfo(dtype).max
        ).astype(dtype)
        got, expected = run(spec.kernels, x, dy, arguments), oracle(spec, x, dy, arguments)
        np.testing.assert_allclose(got.y, expected.y.astype(float), rtol=0, atol=1e4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("value", [0.0, -3.7, 1e30, 1e-30])
def test_constant_positions_give_the_bias(value, rng):
    x, _, arguments = problem(NORMS["layer_norm"], (2, 150, 9), 1, np.float32, rng, eps=0)
    x[..., ::2] = value
    y = nk.layer_norm(x, **arguments)
    assert (y[..., ::2] == arguments["bias"][:, None]).all()
    assert np.isfinite(y).all()


def test_zero_positions_give_zero():
    x = np.zeros((2, 150, 9), np.float32)
    x[..., 1] = 3
    y = nk.rms_norm(x, 150, eps=0, dim=1)
    assert (y[..., 1] == 1).all()
    assert not np.delete(y, 1, 2).any()


def test_a_single_column_gives_the_bias_and_no_gradient(rng):
    x, dy, arguments = problem(NORMS["layer_norm"], (3, 1, 4), 1, np.float32, rng)
    result = run(NORMS["layer_norm"].kernels, x, dy, arguments)
    assert (result.y == arguments["bias"]).all()
    assert not result.grads.dx.any()
    assert not result.grads.dweight.any()


def test_a_mean_far_from_zero(rng):
    x = (1e4 + rng.normal(size=(2, 300, 10))).astype(np.float32)
    exact = x.astype(np.float64)
    expected = (exact - exact.mean(1, keepdims=True)) / exact.std(1, keepdims=True)
    np.testing.assert_allclose(nk.layer_norm(x, 300, eps=0, dim=1), expected, rtol=0, atol=3e-6)


def test_nan_and_infinity_stay_at_their_positions(rng):
    x = rng.normal(size=(2, 150, 9)).astype(np.float32)
    expected = nk.layer_norm(x, 150, dim=1)
    x[0, 7, 2], x[1, 140, 4] = np.nan, np.inf
    y = nk.layer_norm(x, 150, dim=1)
    assert np.isnan(y[0, :, 2]).all()
    assert np.isnan(y[1, :, 4]).all()
    others = np.ones(x.shape, bool)
    others[0, :, 2] = others[1, :, 4] = False
    assert_same_bits(y[others], expected[others])


@both
def test_no_elements(spec):
    for shape in ((0, 3, 4), (2, 3, 0)):
        x, dy, arguments = problem(spec, shape, 1, np.float32, np.random.default_rng(0))
        result = run(spec.kernels, x, dy, arguments)
        assert result.y.shape == result.grads.dx.shape == shape
        assert not result.grads.dweight.any()


@pytest.mark.parametrize(
    ("error", "shape", "dim", "message"),
    [
        (ValueError, 4, 4, "dim must be in -4..3 for 4 dimensions, got 4"),
        (ValueError, 4, -5, "dim must be in -4..3 for 4 dimensions, got -5"),
        (ValueError, (3, 3), (1, -3), "dim must not name an axis twice, got (1, -3)"),
        (ValueError, 3, (1, 2), "dim must name an axis for each of normalized_shape, (3,), got (1, 2)"),
        (ValueError, (), (), "dim must name an axis for each of normalized_shape, (), got ()"),
        (ValueError, 4, 1, "normalized_shape must be the sizes of the axes of dim, (3,), got (4,)"),
        (
            ValueError,
            (3, 4),
            (2, 1),
            "normalized_shape must be the sizes of the axes of dim, (4, 3), got (3, 4)",
        ),
        (TypeError, 3, 1.0, "dim must be an integer, got 1.0"),
        (TypeError, 3, "1", "dim must be an integer, got '1'"),
    ],
)
def test_wrong_axes(error, shape, dim, message):
    x = np.ones((2, 3, 4, 5))
    out = np.zeros_like(x)
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        nk.layer_norm(x, shape, dim=dim, out=out)
    assert not out.any()


def test_weights_have_the_sizes_in_the_order_of_dim():
    with pytest.raises(ValueError, match=re.escape("weight must have shape (4, 3), got (3, 4)")):
        nk.layer_norm(np.ones((2, 3, 4)), (4, 3), np.ones((3, 4)), dim=(2, 1))


def test_small_calls_are_no_mixture(rng):
    """A call with dim after one without, of one shape."""
    x = rng.normal(size=(9, 9))
    for _ in range(3):
        rows, cols = nk.layer_norm(x, 9), nk.layer_norm(x, 9, dim=0)
        np.testing.assert_allclose(cols, nk.layer_norm(x.T.copy(), 9).T, atol=1e-14)
        assert np.abs(rows - cols).max() > 0.1
        grads = [nk.layer_norm_backward(x, nk.layer_norm_forward(x, 9, dim=d)[1]).dx for d in (1, 0)]
        expected = nk.layer_norm_backward(x.T.copy(), nk.layer_norm_forward(x.T.copy(), 9)[1]).dx.T
        np.testing.assert_allclose(grads[1], expected, atol=1e-13)


def test_no_copy_of_x(rng):
    """Besides y: statistics, and room for a piece."""
    x = rng.normal(size=(4, 96, 64, 64)).astype(np.float32)
    nk.layer_norm(x, 96, dim=1)
    assert needed_besides(lambda: nk.layer_norm(x, 96, dim=1)) < x.nbytes / 16


@pytest.mark.parametrize(
    ("cols", "inner"), [(96, 3136), (192, 784), (384, 196), (768, 49), (3, 9000), (5000, 300), (2, 8)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_tiles_share_a_sample_in_whole_cache_lines(cols, inner, dtype):
    x = np.empty((2, cols, inner), dtype)
    plan = row_plan(x.shape, x.strides, x.dtype, (1,))
    tile = launch_positions.tile_of(plan)
    assert 1 <= tile <= min(inner, 4096)
    assert tile == inner or tile * x.itemsize % 64 == 0


@pytest.mark.parametrize(("shape", "dim"), [((3, [4]), None), ((3, 4), (1, [2])), ([3, [4]], (1, 2))])
def test_ragged_lists_are_type_errors_of_ours(shape, dim):
    with pytest.raises(TypeError, match="(normalized_shape|dim) must be an integer"):
        nk.layer_norm(np.ones((2, 3, 4)), shape, dim=dim)
