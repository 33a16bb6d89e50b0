"""BatchNorm: the channel axis, running statistics, evaluation."""

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, LAYOUTS, assert_gradients, assert_matches, assert_same_bits, epsilon, run
from normkernels.norms import NORMS

BATCH_NORM = NORMS["batch_norm"]


def problem(shape, rng, dtype=np.float32, channel_axis=1, training=True, **options):
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    channels = shape[channel_axis]
    arguments = {
        "running_mean": rng.normal(size=channels).astype(dtype),
        "running_var": rng.uniform(0.5, 2, channels).astype(dtype),
        "weight": rng.normal(size=channels).astype(dtype),
        "bias": rng.normal(size=channels).astype(dtype),
        "training": training,
        "channel_axis": channel_axis,
        **options,
    }
    return x, dy, arguments


def check(x, dy, arguments):
    result = run(BATCH_NORM.kernels, x, dy, arguments)
    assert_matches(BATCH_NORM, result, x, dy, arguments)
    return result


def test_known_values():
    mean, var = np.zeros(2), np.ones(2)
    x = np.array([[0.0, 10.0], [4.0, 30.0]])
    y = nk.batch_norm(
        x, mean, var, np.array([1.0, 2.0]), np.array([0.0, 5.0]), training=True, momentum=0.5, eps=0
    )
    assert y.tolist() == [[-1, 3], [1, 7]]
    assert mean.tolist() == [1, 10]
    assert var.tolist() == [4.5, 100.5]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4), (6, 5, 4, 3), (6, 5, 4, 3, 2)], ids=str)
def test_channel_axis_anywhere(shape, training, rng):
    for channel_axis in range(-len(shape), len(shape)):
        check(*problem(shape, rng, channel_axis=channel_axis, training=training))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("training", [True, False])
def test_every_tail_of_a_vector(dtype, training, rng):
    """Pixels, and columns, from less than one vector to more than two."""
    for n in range(1, 70):
        check(*problem((3, 2, n), rng, dtype, training=training))
        check(*problem((3, n), rng, dtype, training=training))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("shape", "channel_axis"),
    [
        ((2, 1), 1),  # one channel of two values
        ((2, 70_001), 1),
        ((70_001, 2), 1),
        ((2, 3, 70_001), 1),  # few wide channels
        ((2, 3000, 3), 1),  # many narrow ones
        ((2000, 3, 5), 1),  # many short runs in a tile
        ((3, 4096, 2), 2),
        ((5, 4097), 0),  # a channel is one run
        ((4, 20, 20, 130), 3),
    ],
    ids=str,
)
def test_channels_of_every_size(shape, channel_axis, training, rng):
    check(*problem(shape, rng, channel_axis=channel_axis, training=training))


@pytest.mark.parametrize("training", [True, False])
def test_channels_last_keeps_its_layout_and_is_not_copied(training, rng):
    x, dy, arguments = problem((4, 6, 8, 8), rng, training=training)
    x, dy = (LAYOUTS["channels_last"](a) for a in (x, dy))
    result = check(x, dy, arguments)
    assert result.y.strides == result.grads.dx.strides == x.strides


def test_channels_last_is_channel_axis_last(rng):
    x, dy, arguments = problem((4, 6, 8, 8), rng)
    x, dy = (LAYOUTS["channels_last"](a) for a in (x, dy))
    result = run(BATCH_NORM.kernels, x, dy, arguments)
    x, dy = (np.moveaxis(a, 1, -1) for a in (x, dy))
    last = run(BATCH_NORM.kernels, x, dy, {**arguments, "channel_axis": -1})
    assert_same_bits((np.moveaxis(result.y, 1, -1), result.arguments["running_var"], *result.grads[1:]),
                     (last.y, last.arguments["running_var"], *last.grads[1:]))  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_of_evaluation_is_its_derivative(dtype, rng):
    """The statistics are constants there: dx = dy * weight * rstd."""
    x, dy, arguments = problem((3, 4, 5), rng, np.float64, training=False)
    assert_gradients(BATCH_NORM.kernels, x, dy, arguments)
    x, dy, arguments = problem((30, 4, 50), rng, dtype, training=False, weight=None, bias=None)
    grads = check(x, dy, arguments).grads
    rstd = 1 / np.sqrt(arguments["running_var"].astype(np.float64) + 1e-5)
    np.testing.assert_allclose(grads.dx, dy * rstd[:, None], rtol=4 * epsilon(dtype))


def test_running_statistics_over_many_batches(rng):
    mean, var = np.zeros(4), np.ones(4)
    expected_mean, expected_var = mean.copy(), var.copy()
    for _ in range(5):
        x = rng.normal(3, 2, (7, 4, 5))
        nk.batch_norm(x, mean, var, training=True, momentum=0.3)
        expected_mean += 0.3 * (x.mean((0, 2)) - expected_mean)
        expected_var += 0.3 * (x.var((0, 2), ddof=1) - expected_var)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-13)
    np.testing.assert_allclose(var, expected_var, rtol=1e-13)


@pytest.mark.parametrize("momentum", [0, 1])
def test_momentum_at_its_ends(momentum, rng):
    x, dy, arguments = problem((7, 4, 5), rng, momentum=momentum)
    moved = check(x, dy, arguments).arguments
    if momentum == 0:
        assert_same_bits(moved, arguments)


@pytest.mark.parametrize("counter", ["int", "array"])
def test_no_momentum_is_the_average_of_all_batches(counter, rng):
    """Whatever the statistics were before: the first batch has the weight one."""
    batches = rng.normal(3, 2, (6, 7, 4, 5))
    mean, var, tracked = np.full(4, 99.0), np.full(4, 99.0), np.zeros(1, np.int64)
    for i, x in enumerate(batches):
        count = i if counter == "int" else tracked
        nk.batch_norm(x, mean, var, training=True, momentum=None, num_batches_tracked=count)
    assert tracked == (len(batches) if counter == "array" else 0)
    np.testing.assert_allclose(mean, batches.mean((0, 1, 3)), rtol=1e-13)
    np.testing.assert_allclose(var, batches.var((1, 3), ddof=1).mean(0), rtol=1e-13)


def test_training_needs_no_running_statistics(rng):
    x, dy, arguments = problem((7, 4, 5), rng)
    with_them = run(BATCH_NORM.kernels, x, dy, arguments)
    without = run(BATCH_NORM.kernels, x, dy, {**arguments, "running_mean": None, "running_var": None})
    assert_same_bits((without.y, without.grads), (with_them.y, with_them.grads))


def test_evaluation_changes_nothing(rng):
    x, dy, arguments = problem((7, 4, 5), rng, training=False)
    assert_same_bits(run(BATCH_NORM.kernels, x, dy, arguments).arguments, arguments)


@pytest.mark.covering(2)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("running", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_running_statistics_of_either_dtype(dtype, running, training, rng):
    x, dy, arguments = problem((7, 4, 5), rng, dtype, training=training)
    arguments |= {k: arguments[k].astype(running) for k in ("running_mean", "running_var")}
    moved = check(x, dy, arguments).arguments
    assert moved["running_mean"].dtype == moved["running_var"].dtype == running


def test_strided_running_statistics_move_in_place(rng):
    x, dy, arguments = problem((7, 4, 5), rng)
    expected = run(BATCH_NORM.kernels, x, dy, arguments).arguments
    wide = np.zeros((2, 8), np.float32)
    wide[0, ::2], wide[1, ::2] = arguments["running_mean"], arguments["running_var"]
    nk.batch_norm(x, wide[0, ::2], wide[1, ::2], training=True)
    assert_same_bits(wide[:, ::2], np.stack([expected["running_mean"], expected["running_var"]]))
    assert not wide[:, 1::2].any()


@pytest.mark.parametrize("which", [0, 1])
def test_running_statistics_must_not_overlap_themselves(which):
    running = [np.zeros(6), np.ones(6)]
    running[which] = np.lib.stride_tricks.as_strided(np.ones(1), (6,), (0,))
    name = ("running_mean", "running_var")[which]
    with pytest.raises(ValueError, match=f"{name} must not overlap itself"):
        nk.batch_norm(np.ones((4, 6)), *running, training=True)
    with pytest.raises(ValueError, match=f"{name} must not overlap itself"):
        nk.instance_norm(np.ones((4, 6, 3)), *running)
    nk.batch_norm(np.ones((4, 6)), *running)
