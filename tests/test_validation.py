"""Every error states the rule, then the value, and comes before anything is written."""

import copy

import numpy as np
import pytest

import normkernels as nk
from helpers import assert_same_bits


def f32(*shape):
    return np.ones(shape, np.float32)


def readonly(a):
    a.flags.writeable = False
    return a


def overlapping():
    return np.lib.stride_tricks.as_strided(f32(24), (4, 6), (8, 4))


LAYER = {"x": f32(4, 6), "normalized_shape": 6}
BATCH = {"x": f32(4, 6), "running_mean": f32(6), "running_var": f32(6), "training": True}
EVAL = {**BATCH, "training": False}

# function, what a good call is changed by, error, the rule, the value
CASES = [
    (nk.layer_norm, {"x": [[1.0, 2.0]]}, TypeError, "x must be an array", "list"),
    (nk.layer_norm, {"x": 3.0}, TypeError, "x must be an array", "float"),
    (nk.layer_norm, {"x": None}, TypeError, "x must be an array", "None"),
    (nk.layer_norm, {"x": np.ones((4, 6), int)}, TypeError, "x must .*float32, float64", "int64"),
    (nk.layer_norm, {"x": np.ones((4, 6), ">f4")}, TypeError, "x must .*float32, float64", ">f4"),
    (nk.layer_norm, {"x": np.ma.ones((4, 6))}, TypeError, "x must be an array", "[Mm]asked"),
    (nk.layer_norm, {"x": np.float32(3)}, (TypeError, ValueError), "must", ""),
    (nk.layer_norm, {"normalized_shape": 5}, ValueError, r"normalized_shape must .*trailing", r"\(5,\)"),
    (
        nk.layer_norm,
        {"normalized_shape": (4, 5)},
        ValueError,
        r"normalized_shape must .*trailing",
        r"\(4, 5\)",
    ),
    (nk.layer_norm, {"normalized_shape": (2, 4, 6)}, ValueError, "normalized_shape must", r"\(2, 4, 6\)"),
    (nk.layer_norm, {"normalized_shape": ()}, ValueError, "normalized_shape must", r"\(\)"),
    (nk.layer_norm, {"normalized_shape": "6"}, TypeError, "normalized_shape must", "'6'|str"),
    (nk.layer_norm, {"normalized_shape": 6.0}, TypeError, "normalized_shape must", "6.0|float"),
    (nk.layer_norm, {"normalized_shape": (6.0,)}, TypeError, "normalized_shape must", "6.0"),
    (nk.layer_norm, {"weight": f32(5)}, ValueError, r"weight must have shape \(6,\)", r"\(5,\)"),
    (nk.layer_norm, {"weight": f32(1, 6)}, ValueError, r"weight must have shape \(6,\)", r"\(1, 6\)"),
    (nk.layer_norm, {"bias": f32(5)}, ValueError, r"bias must have shape \(6,\)", r"\(5,\)"),
    (nk.layer_norm, {"weight": np.ones(6)}, TypeError, "weight must .*float32", "float64"),
    (nk.layer_norm, {"bias": [0.0] * 6}, TypeError, "bias must be an array", "list"),
    (nk.layer_norm, {"eps": -1e-5}, ValueError, "eps must", "-1e-05"),
    (nk.layer_norm, {"eps": np.nan}, ValueError, "eps must", "nan"),
    (nk.layer_norm, {"eps": np.inf}, ValueError, "eps must", "inf"),
    (nk.layer_norm, {"eps": 10**400}, ValueError, "eps must be finite", "1000"),
    (nk.layer_norm, {"eps": "1"}, TypeError, "eps must", "'1'|str"),
    # A bool is a number to Python; to a norm it is a mistake.
    (nk.layer_norm, {"eps": True}, TypeError, "eps must be a number", "True"),
    (nk.layer_norm, {"dim": True}, TypeError, "dim must be an integer", "True"),
    (nk.layer_norm, {"threads": True}, TypeError, "threads must be an integer", "True"),
    (nk.layer_norm, {"normalized_shape": True}, TypeError, "normalized_shape must be an integer", "True"),
    (nk.batch_norm, {"channel_axis": True}, TypeError, "channel_axis must be an integer", "True"),
    (nk.batch_norm, {"momentum": True}, TypeError, "momentum must be a number", "True"),
    (nk.layer_norm, {"threads": 0}, ValueError, "threads must", "0"),
    (
        nk.layer_norm,
        {"threads": 10**6},
        ValueError,
        r"threads must .*\(up to NUMBA_NUM_THREADS\)",
        "1000000",
    ),
    (nk.layer_norm, {"threads": 1.5}, TypeError, "threads must", "1.5|float"),
    (nk.layer_norm, {"out": f32(4, 5)}, ValueError, r"out must have shape \(4, 6\)", r"\(4, 5\)"),
    (nk.layer_norm, {"out": np.ones((4, 6))}, TypeError, "out must .*float32", "float64"),
    (nk.layer_norm, {"out": readonly(f32(4, 6))}, ValueError, "out must be writ", "read-only"),
    (nk.layer_norm, {"out": overlapping()}, ValueError, "out must not overlap itself", r"\(8, 4\)"),
    (nk.layer_norm, {"out": [0.0]}, TypeError, "out must be an array", "list"),
    (nk.batch_norm, {"x": f32(6)}, ValueError, "x must have at least 2 dimensions", "1"),
    (nk.batch_norm, {"channel_axis": 2}, ValueError, "channel_axis must", "2"),
    (nk.batch_norm, {"channel_axis": -3}, ValueError, "channel_axis must", "-3"),
    (nk.batch_norm, {"channel_axis": 1.0}, TypeError, "channel_axis must", "1.0|float"),
    (nk.batch_norm, {"weight": f32(4)}, ValueError, r"weight must have shape \(6,\)", r"\(4,\)"),
    (nk.batch_norm, {"bias": f32(4)}, ValueError, r"bias must have shape \(6,\)", r"\(4,\)"),
    (nk.batch_norm, {"running_mean": f32(4)}, ValueError, r"running_mean must have shape \(6,\)", r"\(4,\)"),
    (nk.batch_norm, {"running_var": f32(4)}, ValueError, r"running_var must have shape \(6,\)", r"\(4,\)"),
    (nk.batch_norm, {"running_var": np.ones(6, int)}, TypeError, "running_var must .*float32", "int64"),
    (nk.batch_norm, {"running_mean": readonly(f32(6))}, ValueError, "running_mean must be writ", "read-only"),
    (nk.batch_norm, {"running_var": readonly(f32(6))}, ValueError, "running_var must be writ", "read-only"),
    (nk.batch_norm, {**EVAL, "running_mean": None}, ValueError, "running_mean must", "None"),
    (nk.batch_norm, {**EVAL, "running_var": None}, ValueError, "running_var must", "None"),
    (nk.batch_norm, {"momentum": None}, ValueError, "num_batches_tracked must", "None"),
    (nk.batch_norm, {"num_batches_tracked": 3}, ValueError, "num_batches_tracked must", "0.1|3"),
    (
        nk.batch_norm,
        {"momentum": None, "num_batches_tracked": -1},
        ValueError,
        "num_batches_tracked must",
        "-1",
    ),
    (nk.batch_norm, {"training": "no"}, TypeError, "training must be True or False", "'no'"),
    (nk.batch_norm, {"momentum": np.nan}, ValueError, "momentum must", "nan"),
    (nk.batch_norm, {**EVAL, "momentum": "1"}, TypeError, "momentum must", "'1'"),
    (nk.batch_norm, {"eps": -1}, ValueError, "eps must", "-1"),
    (nk.batch_norm, {"x": f32(1, 6)}, ValueError, "x must have more than one value per channel", r"\(1, 6\)"),
    (nk.batch_norm, {"out": f32(4, 5)}, ValueError, r"out must have shape \(4, 6\)", r"\(4, 5\)"),
]


@pytest.mark.parametrize("suffix", ["", "_forward"])
@pytest.mark.parametrize(("function", "change", "error", "rule", "value"), CASES)
def test_bad_argument(function, suffix, change, error, rule, value):
    arguments = copy.deepcopy(LAYER if function is nk.layer_norm else BATCH)
    arguments |= {"out": np.full((4, 6), 7, np.float32), **change}
    before = copy.deepcopy(arguments)
    with pytest.raises(error, match=f"{rule}.*got.*({value})"):
        getattr(nk, function.__name__ + suffix)(**arguments)
    for name in ("out", "running_mean", "running_var"):
        if isinstance(arguments.get(name), np.ndarray):
            assert_same_bits(arguments[name], before[name], name)


@pytest.mark.parametrize(
    ("change", "error", "rule"),
    [
        ({"dy": f32(4, 5)}, ValueError, r"dy must have shape \(4, 6\), got \(4, 5\)"),
        ({"dy": np.ones((4, 6))}, TypeError, "dy must .*float32.*got.*float64"),
        ({"dy": [[1.0]]}, TypeError, "dy must be an array.*got.*list"),
        ({"saved": None}, TypeError, "saved must .*got"),
        ({"out": f32(4, 5)}, ValueError, r"out must have shape \(4, 6\), got \(4, 5\)"),
        ({"out": readonly(f32(4, 6))}, ValueError, "out must be writ.*got.*read-only"),
        ({"out": np.ones((4, 6))}, TypeError, "out must .*float32.*got.*float64"),
        ({"threads": -1}, ValueError, "threads must .*got -1"),
    ],
)
@pytest.mark.parametrize("norm", ["layer_norm", "batch_norm"])
def test_bad_argument_of_a_backward(norm, change, error, rule):
    _, saved = getattr(nk, f"{norm}_forward")(**copy.deepcopy(LAYER if norm == "layer_norm" else BATCH))
    arguments = {"dy": f32(4, 6), "saved": saved, "out": np.full((4, 6), 7, np.float32), **change}
    before = copy.deepcopy(arguments["out"])
    with pytest.raises(error, match=rule):
        getattr(nk, f"{norm}_backward")(**arguments)
    assert_same_bits(arguments["out"], before)


@pytest.mark.parametrize(
    ("call", "rule"),
    [
        (lambda x: nk.zscore(x, ddof=True), "ddof must be an integer"),
        (lambda x: nk.zscore(x, axis=True), "axis must be an integer"),
        (lambda x: nk.group_norm(x, True), "num_groups must be an integer"),
        (lambda x: nk.local_response_norm(x, True), "size must be an integer"),
        (lambda x: nk.local_response_norm(x, 3, alpha=True), "alpha must be a number"),
        (lambda x: nk.weight_norm(x, f32(4), dim=True), "dim must be an integer"),
    ],
)
def test_a_bool_is_no_number(call, rule):
    with pytest.raises(TypeError, match=f"{rule}, got True"):
        call(f32(4, 6))


def test_saved_of_another_norm():
    _, saved = nk.layer_norm_forward(**LAYER)
    with pytest.raises((TypeError, ValueError), match=r"saved must .*batch_norm.*got.*layer_norm"):
        nk.batch_norm_backward(f32(4, 6), saved)


def test_out_may_not_be_what_a_backward_still_reads():
    x, weight = f32(4, 6), f32(24)
    _, saved = nk.layer_norm_forward(x, 6, weight[:6])
    with pytest.raises(ValueError, match=r"out must .*overlap"):
        nk.layer_norm_backward(f32(4, 6), saved, out=weight.reshape(4, 6))


def test_out_may_not_overlap_weight_or_running_statistics():
    memory = np.arange(24, dtype=np.float32)
    for arguments in ({"weight": memory[:6]}, {"bias": memory[6:12]}, {"running_var": memory[12:18]}):
        with pytest.raises(ValueError, match=r"out must .*overlap"):
            nk.batch_norm(**{**BATCH, **arguments}, out=memory.reshape(4, 6))
    assert_same_bits(memory, np.arange(24, dtype=np.float32))


def test_running_statistics_may_not_overlap_another_argument():
    memory = np.ones(24, np.float32)
    x, shared = memory.reshape(4, 6), f32(6)
    for change in ({"running_mean": shared, "running_var": shared}, {"running_var": shared, "weight": shared},
                   {"x": x, "running_mean": memory[:6]}):  # fmt: skip
        with pytest.raises(ValueError, match=r"running_mean and running_var must not overlap .*got"):
            nk.batch_norm(**{**BATCH, **change})
    assert_same_bits((memory, shared), (np.ones(24, np.float32), f32(6)))


@pytest.mark.parametrize("axis", [2, -3, (0, 2)], ids=str)
def test_moments_axis_out_of_range(axis):
    with pytest.raises(ValueError, match=r"axis must .*got"):
        nk.moments(f32(4, 6), axis)


def test_moments_axis_twice():
    with pytest.raises(ValueError, match=r"axis must .*got"):
        nk.moments(f32(4, 6), (1, -1))


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        nk.layer_norm(f32(4, 6), 6, None, None, 1e-5, f32(4, 6))


def test_an_error_is_one_line():
    with pytest.raises(ValueError, match="weight") as caught:
        nk.layer_norm(f32(4, 6), 6, f32(5))
    assert str(caught.value) == "weight must have shape (6,), got (5,)"
