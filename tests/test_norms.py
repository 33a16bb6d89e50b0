"""What holds for every norm, whichever they are: enumerates NORMS."""

import copy
import tracemalloc

import numpy as np
import pytest

from helpers import (
    DTYPES,
    LAYOUTS,
    accepted,
    assert_gradients,
    assert_matches,
    assert_same_bits,
    fitted,
    oracle,
    run,
)
from normkernels.norms import NORMS

# Tails of vectors, several tiles in a group, several groups in a tile, few groups, many groups.
SHAPES = [
    (5, 7),
    (3, 1000),
    (2, 9001),
    (9001, 3),
    (700, 65),
    (2, 3, 5),
    (2, 3, 4, 5),
    (3, 2, 70, 71),
    (2, 4, 3, 2, 33),
]

pytestmark = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)


def problem(spec, shape, dtype, rng, **options):
    """x, dy and arguments for a norm"""
    shape = fitted(spec, shape)
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    return x, dy, spec.arguments(shape, dtype, rng, **options)


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_matches_the_reference(spec, dtype, shape, rng):
    x, dy, arguments = problem(spec, shape, dtype, rng)
    assert_matches(spec, run(spec.kernels, x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize("absent", [("weight",), ("bias",), ("weight", "bias")], ids="+".join)
def test_weight_and_bias_may_be_absent(spec, absent, rng):
    x, dy, arguments = problem(spec, (6, 5, 33), np.float32, rng)
    absent = [name for name in absent if name in spec.parameters]
    arguments |= dict.fromkeys(absent)
    result = run(spec.kernels, x, dy, arguments)
    assert_matches(spec, result, x, dy, arguments)
    assert all(getattr(result.grads, spec.parameters[name]) is None for name in absent)


def test_backward_is_the_derivative_of_the_forward(spec, rng):
    x, dy, arguments = problem(spec, (3, 2, 5), np.float64, rng)
    arguments |= accepted(spec, r_max=1, d_max=0)  # the backward takes r and d for constants
    assert_gradients(spec.kernels, x, dy, arguments, spec.parameters)


@pytest.mark.parametrize("mean", [0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize(
    "shape", [(3, 7, 64), (20, 33, 7), (3000, 3, 2), (2, 2, 100_003), (2000, 300), (100_003, 2)], ids=str
)
def test_float32_output_is_good_to_1e_5_at_any_mean(spec, mean, shape, rng):
    """The accuracy the project promises; PyTorch and a float32 two-pass err by 4e-3 at a mean of 1e4."""
    shape = fitted(spec, shape)
    x = rng.normal(mean, 1, shape).astype(np.float32)
    arguments = {**spec.arguments(shape, np.float32, rng), **accepted(spec, weight=None, bias=None)}
    expected = oracle(spec, x, x, arguments).y
    scale = np.abs(expected).max() if spec.family == "windows" else 1  # those are no multiples of sd
    assert np.abs(spec.kernels.call(x, **arguments) - expected).max() <= 1e-5 * scale


@pytest.mark.parametrize("shape", [(1_000_000, 2), (2, 2, 500_000)], ids=str)
def test_long_sums_do_not_drift(spec, shape):
    """Equal terms round the same way: 128 of them may, a million must not."""
    shape = fitted(spec, shape)
    x, dy = np.full(shape, float(not spec.centred), np.float32), np.full(shape, 0.7, np.float32)
    arguments = spec.arguments(shape, np.float32, np.random.default_rng(0))
    got, expected = (f.grads for f in (run(spec.kernels, x, dy, arguments), oracle(spec, x, dy, arguments)))
    for name in spec.parameters.values():
        sums = getattr(got, name), getattr(expected, name)
        np.testing.assert_allclose(*sums, rtol=128 * np.finfo(np.float32).eps / 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_shot_is_the_forward_to_the_bit(spec, dtype, rng):
    x, dy, arguments = problem(spec, (40, 6, 130), dtype, rng)
    forward = run(spec.kernels, x, dy, arguments)
    y = spec.kernels.call(x, **arguments)
    assert_same_bits(y, forward.y)
    assert_same_bits(arguments, forward.arguments, "arguments")


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_have_the_shapes_and_dtypes_of_what_they_belong_to(spec, dtype, rng):
    x, dy, arguments = problem(spec, (4, 3, 5), dtype, rng)
    y, grads, *_ = run(spec.kernels, x, dy, arguments)
    pairs = [(getattr(grads, of), arguments[name]) for name, of in spec.parameters.items()]
    for result, of in [(y, x), (grads.dx, x), *pairs]:
        assert (result.shape, result.dtype) == (of.shape, of.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides_give_the_same_values(spec, layout, rng):
    x, dy, arguments = problem(spec, (6, 5, 8, 9), np.float32, rng)
    result = run(spec.kernels, LAYOUTS[layout](x), LAYOUTS[layout](dy), arguments)
    assert_matches(spec, result, x, dy, arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_x_and_dy_may_differ_in_layout(spec, layout, rng):
    x, dy, arguments = problem(spec, (6, 5, 8, 9), np.float32, rng)
    assert_matches(spec, run(spec.kernels, x, LAYOUTS[layout](dy), arguments), x, dy, arguments)
    assert_matches(spec, run(spec.kernels, LAYOUTS[layout](x), dy, arguments), x, dy, arguments)


def test_broadcast_input(spec, rng):
    x, dy, arguments = problem(spec, (6, 5, 33), np.float32, rng)
    x, dy = (np.broadcast_to(a[:, :1], a.shape) for a in (x, dy))
    assert_matches(spec, run(spec.kernels, x, dy, arguments), x, dy, arguments)


def test_strided_and_readonly_weight_and_bias(spec, rng):
    x, dy, arguments = problem(spec, (6, 5, 33), np.float32, rng)
    strided = copy.deepcopy(arguments)
    for name in spec.parameters:
        strided[name] = strided[name][..., ::-1].copy()[..., ::-1]
        strided[name].flags.writeable = False
    y, saved = spec.kernels.forward(x, **strided)
    expected = run(spec.kernels, x, dy, arguments)
    assert_same_bits((y, spec.kernels.backward(dy, saved)), (expected.y, expected.grads))


def test_inputs_may_be_readonly_and_are_not_changed(spec, rng):
    x, dy, arguments = problem(spec, (6, 5, 33), np.float32, rng)
    read = (x, dy, *(arguments[name] for name in spec.parameters))
    before = copy.deepcopy(read)
    for a in read:
        a.flags.writeable = False
    _, saved = spec.kernels.forward(x, **arguments)
    spec.kernels.backward(dy, saved)
    assert_same_bits(read, before)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_out_receives_the_result(spec, layout, rng):
    """An out of any strides, and nothing beside it is written."""
    x, dy, arguments = problem(spec, (6, 5, 8, 9), np.float32, rng)
    expected = run(spec.kernels, x, dy, arguments)
    y, dx = (LAYOUTS[layout](np.zeros_like(x)) for _ in range(2))
    result, saved = spec.kernels.forward(x, **copy.deepcopy(arguments), out=y)
    grads = spec.kernels.backward(dy, saved, out=dx)
    assert result is y
    assert grads.dx is dx
    assert_same_bits((y, grads), (expected.y, expected.grads))
    if layout == "gaps":
        assert np.isnan(y.base[..., 1::2]).all()


def test_out_may_be_the_input(spec, rng):
    x, dy, arguments = problem(spec, (40, 6, 130), np.float32, rng)
    expected = run(spec.kernels, x, dy, arguments)
    y = x.copy()
    assert spec.kernels.call(y, **copy.deepcopy(arguments), out=y) is y
    assert_same_bits(y, expected.y)
    for target in ("dy", "x"):
        arrays = {"x": x.copy(), "dy": dy.copy()}
        _, saved = spec.kernels.forward(arrays["x"], **copy.deepcopy(arguments))
        assert_same_bits(spec.kernels.backward(arrays["dy"], saved, out=arrays[target]), expected.grads)


class Dlpack:
    """Speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class ArrayProtocol:
    """Speaks `__array__` and nothing else."""

    def __init__(self, array):
        self._array = array

    def __array__(self, dtype=None, copy=None):
        return self._array


class Subclass(np.ndarray):
    """An array that is not exactly an array."""


@pytest.mark.parametrize("wrap", [Dlpack, ArrayProtocol, lambda a: a.view(Subclass)])
def test_foreign_arrays_are_taken_without_a_copy(spec, wrap, rng):
    x, dy, arguments = problem(spec, (64, 16, 1024), np.float32, rng)
    expected, out = run(spec.kernels, x, dy, arguments), np.empty_like(x)
    wrapped = {k: wrap(v) if k in spec.parameters else v for k, v in copy.deepcopy(arguments).items()}
    tracemalloc.start()
    y, saved = spec.kernels.forward(wrap(x), **wrapped, out=out)
    y_bits = y.copy()
    grads = spec.kernels.backward(wrap(dy), saved, out=out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert_same_bits((y_bits, grads), (expected.y, expected.grads))
    assert all(type(g) is np.ndarray for g in grads if g is not None)
    assert peak < 1.5 * x.nbytes  # y_bits is one
