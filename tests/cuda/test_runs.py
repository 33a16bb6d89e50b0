"""Norms over channels and the backward of group norm."""

from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from on_device import flat

from normkernels import reference
from normkernels._plan import channel_plan, group_plan
from normkernels.cuda import config, launch_runs, memory
from normkernels.reference.fused import Steps

EPS = 1e-5
BFLOAT16 = ml_dtypes.bfloat16
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    """Teams of at most 64 threads, so that runs of six hundred elements have two pieces."""
    small = config.Rule(elements=8, threads=64, resident=2, long_threads=64, block=64)
    monkeypatch.setattr(config, "RUNS", small)
    monkeypatch.setattr(config, "BUSY", 1)
    monkeypatch.setattr(config, "RUNS_FUSED", small)
    monkeypatch.setattr(config, "MERGING_BLOCK", 32)


def unwritten(a, shift=0):
    return flat(np.full_like(a, np.nan), shift)


def wide(a):
    return None if a is None else np.array(a, np.longdouble)


def close(found, expected, dtype, scale=1.0):
    """Within the rounding of the dtype; scale: the size of what was added up."""
    if not isinstance(found, np.ndarray):
        found = found.copy_to_host()
    tolerance = TOLERANCE.get(np.dtype(dtype), 2.0 * float(ml_dtypes.finfo(dtype).eps))
    np.testing.assert_allclose(wide(found).reshape(-1), expected.reshape(-1), tolerance, tolerance * scale)


class Case(NamedTuple):
    shape: tuple[int, ...] = (3, 4, 20)
    dtype: type = np.float32
    shift: int = 0
    residual_shift: int | None = None
    activation: str | None = None
    residual: bool = False
    affine: bool = True
    parameters: type | None = None
    mean: float = 0.0

    def data(self, rng):
        def normal(mean, shape, dtype=self.dtype):
            return rng.normal(mean, 1, shape).astype(dtype)

        x, dy = normal(self.mean, self.shape), normal(0, self.shape)
        residual = normal(0, self.shape) if self.residual else None
        weight = bias = None
        if self.affine:
            c, dtype = self.shape[1], self.parameters or self.dtype
            weight, bias = normal(1, c, dtype), normal(0, c, dtype)
        return x, dy, residual, weight, bias


CASES = {
    "whole vectors": Case(),
    "ends within vectors": Case((3, 5, 7, 7)),
    "shifted": Case((2, 3, 50), shift=3),
    "arrays that begin differently": Case((2, 3, 50), residual=True, residual_shift=1),
    "several pieces of a run": Case((2, 2, 600)),
    "several pieces with ends": Case((2, 2, 601), shift=1, mean=100.0),
    "several samples of a piece": Case((40, 3, 9)),
    "one channel": Case((3, 1, 400)),
    "many channels": Case((2, 50, 2)),
    "far from 0": Case((5, 3, 40), mean=1e4),
    "without parameters": Case(affine=False),
    "float64": Case((3, 3, 31), np.float64, mean=100.0),
    "float16": Case((3, 3, 52), np.float16),
    "float16 with ends": Case((3, 3, 53), np.float16, shift=1, parameters=np.float32),
    "bfloat16": Case((3, 3, 56), BFLOAT16, parameters=np.float32),
    "relu": Case(activation="relu", residual=True),
    "sigmoid": Case(activation="sigmoid"),
    "silu": Case(activation="silu", residual=True),
    "gelu": Case((3, 3, 49), activation="gelu", residual=True, affine=False),
    "gelu in half": Case((3, 3, 49), BFLOAT16, activation="gelu", residual=True, parameters=np.float32),
    "residual": Case(residual=True),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def fused(norm):
    """A norm of the reference with what is fused."""
    return Steps(getattr(reference, f"{norm}_forward"), getattr(reference, f"{norm}_backward"), first=False)


def oracle(steps, x, dy, residual, activation, *args, **kwargs):
    args = [wide(a) if isinstance(a, np.ndarray) else a for a in args]
    y, saved = steps.forward(wide(x), *args, residual=wide(residual), activation=activation, **kwargs)
    return y, steps.backward(wide(dy), saved), args


@cases
def test_training(case, rng):
    x, dy, residual, weight, bias = case.data(rng)
    c = x.shape[1]
    means, variances = rng.normal(size=c), rng.uniform(1, 2, c)
    y, grads, moved = oracle(
        fused("batch_norm"), x, dy, residual, case.activation, means, variances, weight, bias, True, 0.1, EPS
    )
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    shift = case.shift if case.residual_shift is None else case.residual_shift
    X, R, Y = flat(x, case.shift), flat(residual, shift), unwritten(x, case.shift)
    running = flat(means.astype(np.float32)), flat(variances)
    w, b = flat(weight), flat(bias)
    settings = (EPS, 0.1, 1.0, 0.0)
    mean, rstd, r, d = launch_runs.channel_forward(
        plan, X, w, b, settings, running, Y, None, case.activation, R
    )
    assert r is d is None
    close(Y, y, case.dtype)
    close(running[0], moved[0], np.float32, 1 + case.mean)
    close(running[1], moved[1], case.dtype)

    DY, dx, dresidual = flat(dy, case.shift), unwritten(x, case.shift), None
    if residual is not None:
        dresidual = unwritten(x, shift)
    dweight, dbias = launch_runs.channel_backward(
        plan, DY, X, mean, rstd, w, b, True, dx, None, case.activation, R, dresidual
    )
    close(dx, grads.dx, case.dtype)
    if residual is not None:
        close(dresidual, grads.dresidual, case.dtype)
    if case.affine:
        assert dweight.dtype == dbias.dtype == weight.dtype
        scale = np.sqrt(plan.count)
        close(dweight, grads.dweight, weight.dtype, scale)
        close(dbias, grads.dbias, weight.dtype, scale)
    else:
        assert dweight is dbias is None


@cases
def test_evaluation(case, rng):
    x, dy, residual, weight, bias = case.data(rng)
    c = x.shape[1]
    means = rng.normal(case.mean, 0.1, c).astype(np.float32)
    variances = rng.uniform(1, 2, c).astype(np.float32)
    y, grads, _ = oracle(
        fused("batch_norm"), x, dy, residual, case.activation, means, variances, weight, bias, False, 0.1, EPS
    )
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    X, R, Y = flat(x, case.shift), flat(residual, case.shift), unwritten(x, case.shift)
    w, b = flat(weight), flat(bias)
    mean, rstd = (flat(s.astype(float)) for s in (means, 1 / np.sqrt(wide(variances) + EPS)))
    launch_runs.channel_normalize(plan, X, mean, rstd, w, b, Y, None, case.activation, R)
    close(Y, y, case.dtype)
    DY, dx = flat(dy, case.shift), unwritten(x, case.shift)
    dweight, _ = launch_runs.channel_backward(
        plan, DY, X, mean, rstd, w, b, False, dx, None, case.activation, R
    )
    close(dx, grads.dx, case.dtype)
    if case.affine:
        close(dweight, grads.dweight, weight.dtype, np.sqrt(plan.count))


@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("affine", [False, True])
def test_batch_renorm(activation, affine, rng):
    case = Case((6, 5, 30), activation=activation, residual=activation is not None, affine=affine, mean=3.0)
    x, dy, residual, weight, bias = case.data(rng)
    means, variances = rng.normal(3, 2, 5), rng.uniform(0.1, 3, 5)
    steps = fused("batch_renorm")
    y, grads, moved = oracle(
        steps, x, dy, residual, activation, means, variances, weight, bias, True, 0.2, EPS, 1.5, 0.5
    )
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    X, R, Y, w, b = flat(x), flat(residual), unwritten(x), flat(weight), flat(bias)
    running = flat(means), flat(variances)
    mean, rstd, r, d = launch_runs.channel_forward(
        plan, X, w, b, np.array((EPS, 0.2, 1.5, 0.5)), running, Y, None, activation, R
    )
    assert len(set(np.round(r.copy_to_host(), 6))) > 1  # some clipped, some not
    close(Y, y, case.dtype)
    close(running[0], moved[0], case.dtype)
    close(running[1], moved[1], case.dtype)
    dx = unwritten(x)
    dweight, dbias = launch_runs.channel_backward(
        plan, flat(dy), X, mean, rstd, w, b, True, dx, None, activation, R, None, (r, d)
    )
    close(dx, grads.dx, case.dtype)
    if affine:
        close(dweight, grads.dweight, case.dtype, 10)
        close(dbias, grads.dbias, case.dtype, 10)


GROUPS = {
    "whole vectors": (Case((3, 6, 20)), 2),
    "ends within vectors": (Case((3, 6, 5, 5), shift=2), 3),
    "one group": (Case((2, 5, 64)), 1),
    "long runs": (Case((2, 2, 600), mean=1e3), 1),
    "one element": (Case((5, 6)), 2),
    "without parameters": (Case((3, 6, 20), affine=False), 2),
    "float64": (Case((3, 6, 21), np.float64), 2),
    "float16": (Case((3, 6, 21), np.float16, parameters=np.float32), 2),
    "gelu": (Case((3, 6, 20), activation="gelu"), 2),
    "relu in half": (Case((3, 6, 49), BFLOAT16, activation="relu"), 3),
}


@pytest.mark.parametrize(("case", "groups"), GROUPS.values(), ids=GROUPS)
def test_groups(case, groups, rng):
    x, dy, _, weight, bias = case.data(rng)
    y, grads, _ = oracle(fused("group_norm"), x, dy, None, case.activation, groups, weight, bias, EPS)
    plan = group_plan(x.shape, x.dtype, 1, groups)
    X, Y, dx = flat(x, case.shift), unwritten(x, case.shift), unwritten(x, case.shift)
    w, b, var = flat(weight), flat(bias), unwritten(np.zeros(plan.rows))
    mean, rstd = launch_runs.group_forward(plan, X, w, b, EPS, Y, None, case.activation, var)
    close(Y, y, case.dtype)
    close(var, wide(x).reshape(plan.rows, plan.cols).var(1), np.float32)
    dweight, dbias = launch_runs.group_backward(
        plan, flat(dy, case.shift), X, mean, rstd, w, b, dx, None, case.activation
    )
    close(dx, grads.dx, case.dtype)
    if case.affine:
        scale = np.sqrt(plan.samples * plan.inner)
        close(dweight, grads.dweight, weight.dtype, scale)
        close(dbias, grads.dbias, weight.dtype, scale)


def moments(x):
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    mean, var = launch_runs.channel_moments(plan, flat(x))
    return mean.copy_to_host(), var.copy_to_host()


def test_moments_far_from_0(rng):
    x = rng.normal(1e4, 1, (6, 2, 300)).astype(np.float32)
    mean, var = moments(x)
    np.testing.assert_allclose(mean, wide(x).mean((0, 2)), 1e-10)
    np.testing.assert_allclose(var, wide(x).var((0, 2)), 1e-5)


def test_moments_keep_the_mean_relative_to_a_pivot(rng):
    x = rng.normal(1e8, 1, (40, 2, 33))
    _, var = moments(x)
    np.testing.assert_allclose(var, wide(x).var((0, 2)), 1e-13)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_moments_beyond_the_range_of_squares(size, rng):
    x = (rng.normal(size=(3, 2, 40)) * size).astype(np.float32)
    mean, var = moments(x)
    np.testing.assert_allclose(mean, wide(x).mean((0, 2)), 1e-5, 1e-6 * size)
    np.testing.assert_allclose(var, wide(x).var((0, 2)), 1e-5)


def test_a_constant_channel(rng):
    x = rng.normal(size=(3, 2, 20)).astype(np.float32)
    x[:, 1] = 0.1
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    w, b, y = flat(x[0, 0, :2]), flat(x[0, 0, 2:4]), unwritten(x)
    _, rstd, *_ = launch_runs.channel_forward(plan, flat(x), w, b, (0.0, 0.0, 1.0, 0.0), (), y)
    assert rstd.copy_to_host()[1] == 0
    assert (y.copy_to_host().reshape(x.shape)[:, 1] == x[0, 0, 3]).all()


def test_nan_stays_in_its_channel(rng):
    x, dy = rng.normal(size=(2, 3, 3, 40)).astype(np.float32)
    x[1, 1, 7] = np.nan
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    means, variances = flat(np.zeros(3)), flat(np.ones(3))
    y, dx, X = unwritten(x), unwritten(x), flat(x)
    mean, rstd, r, d = launch_runs.channel_forward(
        plan, X, None, None, (EPS, 0.1, 3.0, 5.0), (means, variances), y
    )
    launch_runs.channel_backward(plan, flat(dy), X, mean, rstd, None, None, True, dx, renorm=(r, d))
    for array in (y, dx):
        lost = np.isnan(array.copy_to_host().reshape(x.shape))
        assert lost[:, 1].all()
        assert not lost[:, ::2].any()
    for array in (r, d, means, variances):
        assert list(np.isnan(array.copy_to_host())) == [False, True, False]


def test_evaluation_does_not_read_x_for_dx(rng):
    dy = rng.normal(size=(2, 3, 40)).astype(np.float32)
    plan = channel_plan(dy.shape, dy.strides, dy.dtype, 1)
    x, dx, mean, rstd = unwritten(dy), unwritten(dy), flat(np.zeros(3)), flat(np.full(3, 2.0))
    launch_runs.channel_backward(plan, flat(dy), x, mean, rstd, None, None, False, dx)
    close(dx, 2 * wide(dy), np.float32)


def test_in_place(rng):
    """y may be x or the residual, dx may be dy."""
    case = Case((3, 4, 5, 5), residual=True, activation="relu")
    x, dy, residual, weight, bias = case.data(rng)
    y, grads, _ = oracle(
        fused("batch_norm"), x, dy, residual, "relu", None, None, weight, bias, True, 0.1, EPS
    )
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    X, w, b, settings = flat(x), flat(weight), flat(bias), (EPS, 0.1, 1.0, 0.0)
    for out in (0, 1):
        arrays = flat(x), flat(residual)
        mean, rstd, *_ = launch_runs.channel_forward(
            plan, arrays[0], w, b, settings, (), arrays[out], None, "relu", arrays[1]
        )
        close(arrays[out], y, np.float32)
    dx = flat(dy)
    launch_runs.channel_backward(
        plan, dx, X, mean, rstd, w, b, True, dx, None, "relu", flat(residual), unwritten(x)
    )
    close(dx, grads.dx, np.float32)


def test_running_statistics_of_instance_norm(rng):
    x = rng.normal(2, 1, (40, 5, 6))
    running = flat(np.zeros(5, np.float16)), flat(np.ones(5, np.float32))
    expected = np.zeros(5), np.ones(5)
    reference.instance_norm(x, *expected, momentum=0.3)
    mean, var = flat(x.mean(2)), flat(x.var(2))
    launch_runs.instance_running(mean, var, running, 0.3, 40, 5, 6)
    close(running[0], expected[0], np.float16)
    close(running[1], expected[1], np.float32)


PER_THREAD = 2
"""The handle of a stream that every device has."""


def test_results_are_new_arrays_on_the_stream_of_x():
    x = flat(np.ones(24, np.float32), stream=PER_THREAD)
    plan = channel_plan((2, 3, 4), (48, 16, 4), np.dtype(np.float32), 1)
    mean, var = launch_runs.channel_moments(plan, x)
    assert mean.stream == var.stream == PER_THREAD
    assert memory.empty((1,), mean.dtype, 0, PER_THREAD).dtype == np.float64
