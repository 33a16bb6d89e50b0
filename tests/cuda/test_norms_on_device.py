"""The matrix of norms on a device: the same values as on the CPU, in every dtype, layout and form."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from on_device import HOST, passes, to_device, to_host

from helpers import (
    DTYPES,
    LAYOUTS,
    assert_matches,
    assert_same_bits,
    fitted,
    oracle,
    run,
)
from normkernels._ahead import EVALUATION
from normkernels.cuda import config, devices, launch_channels, launch_groups, launch_rows, rows
from normkernels.norms import NORMS

# Whole vectors, ends within vectors, several rows to a team, images, channels of few elements.
SHAPES = [(5, 7), (3, 64), (2, 4, 3, 2), (40, 3), (2, 300), (2, 3, 5), (2, 4, 4, 8), (3, 2, 7, 7)]
if not (HOST or devices.simulated()):
    SHAPES += [
        (3, 1000), (2, 9001), (9001, 3), (700, 65), (3, 2, 70, 71), (64, 4096), (5, 262_144), (4, 100_003),
        (8, 64, 28, 28), (1, 32, 512, 512), (2, 3, 1000, 1000),
    ]  # fmt: skip
# Without a device all is slow: other dtypes take the same paths with other vectors.
OF_DTYPE = {np.float32: len(SHAPES), np.float64: 4} if HOST or devices.simulated() else {}
CASES = [
    (dtype, shape) for dtype in DTYPES for shape in SHAPES[: OF_DTYPE.get(dtype, 3 if OF_DTYPE else None)]
]

STRIDES = [name for name in LAYOUTS if name != "misaligned"]  # a copy to the device aligns
pytestmark = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)


def problem(spec, shape, dtype, rng, **options):
    """x, dy and arguments for a norm"""
    shape = fitted(spec, shape)
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    return x, dy, spec.arguments(shape, dtype, rng, **options)


@pytest.mark.parametrize(("dtype", "shape"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_matches_the_reference(spec, dtype, shape, rng):
    x, dy, arguments = problem(spec, shape, dtype, rng)
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)


def test_evaluation_normalizes_with_the_running_statistics(spec, rng):
    if spec.name not in EVALUATION:
        pytest.skip("its statistics are those of x")
    x, dy, arguments = problem(spec, (2, 3, 5), np.float32, rng)
    arguments[EVALUATION[spec.name]] = False
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)


@pytest.mark.skipif(HOST or devices.simulated(), reason="test_long_rows has smaller ones, for small devices")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_rows_that_no_device_holds(spec, dtype, rng):
    if spec.name not in ("layer_norm", "rms_norm"):
        pytest.skip("other norms have larger arrays above")
    x, dy, arguments = problem(spec, (3, 3_000_002), dtype, rng)
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize("layout", STRIDES)
def test_any_strides_give_the_same_values(spec, layout, rng):
    x, dy, arguments = problem(spec, (2, 4, 3, 2), np.float32, rng)
    result = run(passes(spec), LAYOUTS[layout](x), LAYOUTS[layout](dy), arguments)
    assert_matches(spec, result, x, dy, arguments)
    assert_matches(spec, run(passes(spec), x, LAYOUTS[layout](dy), arguments), x, dy, arguments)


@pytest.mark.parametrize("absent", [("weight",), ("bias",), ("weight", "bias")], ids="+".join)
def test_weight_and_bias_may_be_absent(spec, absent, rng):
    x, dy, arguments = problem(spec, (3, 4, 6), np.float32, rng)
    absent = [name for name in absent if name in spec.parameters]
    arguments |= dict.fromkeys(absent)
    result = run(passes(spec), x, dy, arguments)
    assert_matches(spec, result, x, dy, arguments)
    assert all(getattr(result.grads, spec.parameters[name]) is None for name in absent)


@pytest.mark.parametrize("mean", [0, 1e4])
@pytest.mark.parametrize("shape", [(3, 7, 12), (5, 2, 9)], ids=str)
def test_float32_output_is_good_to_1e_5_at_any_mean(spec, mean, shape, rng):
    shape = fitted(spec, shape)
    x = rng.normal(mean, 1, shape).astype(np.float32)
    arguments = spec.arguments(shape, np.float32, rng)
    expected = oracle(spec, x, x, arguments).y
    scale = np.abs(expected).max() if spec.family == "windows" else 10
    assert np.abs(passes(spec).call(x, **arguments) - expected).max() <= 1e-5 * scale


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_run_after_run_and_in_one_shot(spec, dtype, rng):
    x, dy, arguments = problem(spec, (4, 3, 10), dtype, rng)
    first, again = (run(passes(spec), x, dy, arguments) for _ in range(2))
    assert_same_bits((first.y, first.grads), (again.y, again.grads))
    assert_same_bits(passes(spec).call(x, **copy.deepcopy(arguments)), first.y)


@pytest.mark.parametrize("layout", STRIDES)
def test_out_receives_the_result(spec, layout, rng):
    """An out of any strides, poisoned, and nothing beside it is written."""
    x, dy, arguments = problem(spec, (2, 3, 4, 5), np.float32, rng)
    expected = run(passes(spec), x, dy, arguments)
    y, dx = (to_device(LAYOUTS[layout](np.full_like(x, np.nan))) for _ in range(2))
    on_device = {name: to_device(value) for name, value in copy.deepcopy(arguments).items()}
    result, saved = spec.kernels.forward(to_device(x), **on_device, out=y)
    grads = spec.kernels.backward(to_device(dy), saved, out=dx)
    assert result is y
    assert grads.dx is dx
    assert_same_bits((to_host(y), to_host(dx)), (expected.y, expected.grads.dx))


def test_out_may_be_the_input(spec, rng):
    x, dy, arguments = problem(spec, (4, 3, 10), np.float32, rng)
    expected = run(passes(spec), x, dy, arguments)
    on_device = {name: to_device(value) for name, value in copy.deepcopy(arguments).items()}
    y = to_device(x)
    assert spec.kernels.call(y, **on_device, out=y) is y
    assert_same_bits(to_host(y), expected.y)
    for target in ("dy", "x"):
        arrays = {"x": to_device(x), "dy": to_device(dy)}
        on_device = {name: to_device(value) for name, value in copy.deepcopy(arguments).items()}
        _, saved = spec.kernels.forward(arrays["x"], **on_device)
        grads = spec.kernels.backward(arrays["dy"], saved, out=arrays[target])
        assert_same_bits(to_host(grads), expected.grads)


def test_threads_are_those_of_the_cpu(spec, rng):
    x, dy, arguments = problem(spec, (4, 3), np.float32, rng)
    few, many = (run(passes(spec), x, dy, arguments, threads=n) for n in (None, 10**6))
    assert_same_bits((few.y, few.grads), (many.y, many.grads))
    for n, error, rule in [(0, ValueError, "1 or more"), ("2", TypeError, "an integer")]:
        with pytest.raises(error, match=f"^threads must be {rule}, got {n!r}$"):
            passes(spec).forward(x, **copy.deepcopy(arguments), threads=n)


def test_an_empty_batch_gives_empty_arrays(spec, rng):
    x, dy, arguments = problem(spec, (4, 3, 10), np.float32, rng)
    result = run(passes(spec), x[:0], dy[:0], arguments) if spec.name != "weight_norm" else None
    if result is not None:
        assert result.y.shape == x[:0].shape
        assert_same_bits(result.arguments, arguments)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.float32, (2, 300)), (np.float32, (2, 2, 9, 9)), (np.float16, (2, 2, 161))],
    ids=["rows", "images", "half types"],
)
def test_a_row_of_several_blocks(spec, dtype, shape, rng, monkeypatch):
    """Rules for teams of blocks of 32 threads: what takes rows of tens of thousands else."""
    small = config.Rule(elements=4, threads=32, resident=1, long_threads=32)
    for name in ("FORWARD", "BACKWARD", "GROUPS", "GROUPS_BACKWARD"):
        monkeypatch.setattr(config, name, small)
    x, dy, arguments = problem(spec, shape, dtype, rng)
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [(np.float32, (61, 7)), (np.float16, (11, 6, 5)), (np.float32, (2, 5, 203))],
    ids=["rows of a warp", "groups", "rows that begin at four places"],
)
def test_several_rows_of_a_team(spec, dtype, shape, rng, monkeypatch):
    """A device with room for 192 threads: what takes thousands of rows else."""
    small = config.Rule(elements=8, threads=64, resident=1, long_threads=64, block=32)
    for name in ("FORWARD", "BACKWARD", "GROUPS", "GROUPS_BACKWARD"):
        monkeypatch.setattr(config, name, small)
    device = replace(devices.SIMULATED, multiprocessors=3)
    for module in (launch_rows, launch_groups, launch_channels):
        monkeypatch.setattr(module, "properties", lambda _: device)
    monkeypatch.setattr(config, "SHARED_OUT", 1)
    monkeypatch.setattr(config, "MOST_BLOCKS", 2)
    monkeypatch.setattr(rows, "FLUSH", 2)
    x, dy, arguments = problem(spec, shape, dtype, rng)
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)
