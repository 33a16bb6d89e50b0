"""Rows that no team can hold."""

from dataclasses import replace
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from on_device import flat

import normkernels as nk
from normkernels import reference
from normkernels._plan import row_plan
from normkernels.cuda import config, launch_columns, launch_long_rows, launch_rows, long_rows
from normkernels.cuda.devices import SIMULATED
from normkernels.cuda.memory import upload
from normkernels.reference.fused import Steps

BFLOAT16 = ml_dtypes.bfloat16
TOLERANCE = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}
EPS = 1e-5


@pytest.fixture(autouse=True)
def streamed(monkeypatch):
    """A device with teams of at most 8 threads and 32 elements; the calls that read a row twice."""
    rule = config.Rule(elements=4, threads=8, resident=1, long_threads=8, block=8)
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(config, name, rule)
    for name in ("RUNS", "RUNS_FUSED"):
        monkeypatch.setattr(config, name, replace(rule, elements=8))
    for name in ("LONG", "LONG_ACTIVATED"):
        monkeypatch.setattr(config, name, config.ColumnRule(elements=4, threads=8))
    monkeypatch.setattr(config, "FINISH", config.ColumnRule(elements=1, threads=8))
    monkeypatch.setattr(config, "MERGING_BLOCK", 4)
    monkeypatch.setattr(long_rows, "FLUSH", 4)
    for module in (launch_rows, launch_columns):
        monkeypatch.setattr(module, "properties", lambda device: replace(SIMULATED, multiprocessors=1))
    calls = []

    def watched(name):
        original = getattr(launch_long_rows, name)
        return lambda *args: calls.append(name) or original(*args)

    for name in ("row_forward", "row_backward"):
        monkeypatch.setattr(launch_long_rows, name, watched(name))
    return calls


def wide(a):
    return None if a is None else np.array(a, np.longdouble)


def close(found, expected, dtype, scale=1.0):
    """Within the rounding of the dtype; scale: the size of what was added up."""
    tolerance = TOLERANCE.get(np.dtype(dtype), 2.0 * float(ml_dtypes.finfo(dtype).eps))
    found = wide(found.copy_to_host()).reshape(-1)
    np.testing.assert_allclose(found, expected.reshape(-1), tolerance, tolerance * scale)


class Case(NamedTuple):
    shape: tuple[int, int] = (3, 100)
    dtype: type = np.float32
    shift: int = 0
    other_shift: int | None = None
    """Where y and dx begin, if elsewhere than x and dy."""
    activation: str | None = None
    residual: bool = False
    kept: bool = True
    """Whether the sum is wanted."""
    weight: bool = True
    bias: bool = True
    parameters: type | None = None
    parameter_shift: int = 0
    centred: bool = True
    mean: float = 0.0
    read_twice: tuple[str, ...] = ("row_forward", "row_backward")

    @property
    def plan(self):
        itemsize = np.dtype(self.dtype).itemsize
        strides = self.shape[1] * itemsize, itemsize
        return row_plan(self.shape, strides, np.dtype(self.dtype), (1,), self.centred)

    def data(self, rng):
        def normal(mean, shape, dtype=self.dtype):
            return rng.normal(mean, 1, shape).astype(dtype)

        x, dy = normal(self.mean, self.shape), normal(0, self.shape)
        residual, dsum = (normal(0, self.shape) if self.residual else None for _ in range(2))
        cols, dtype = self.shape[1], self.parameters or self.dtype
        weight = normal(1, cols, dtype) if self.weight else None
        bias = normal(1, cols, dtype) if self.bias and self.centred else None
        return x, dy, residual, dsum, weight, bias


CASES = {
    "whole vectors": Case(),
    "one row": Case((1, 100)),
    "odd columns": Case((6, 101)),
    "odd columns, fewer rows than places": Case((2, 75)),
    "two places": Case((5, 70)),
    "fewer teams than places": Case((5, 51), read_twice=("row_backward",)),
    "fewer teams than places, two rows": Case((2, 51), read_twice=("row_backward",)),
    "shifted": Case(shift=3),
    "shifted, odd columns": Case((5, 75), shift=1),
    "arrays that begin differently": Case((2, 72), other_shift=1),
    "parameters that begin elsewhere": Case(parameter_shift=1),
    "far from 0": Case((3, 101), mean=1e4),
    "without parameters": Case(weight=False, bias=False),
    "weight only": Case((2, 77), bias=False),
    "bias only": Case(weight=False),
    "more rows than are summed in float32": Case((11, 68)),
    "not centred": Case((3, 101), centred=False),
    "not centred, whole vectors": Case(centred=False, residual=True, activation="silu"),
    "float64": Case((3, 67), np.float64, mean=100.0),
    "float64, relu": Case((3, 66), np.float64, activation="relu", residual=True),
    "float16": Case((9, 99), np.float16),
    "bfloat16, float32 parameters": Case((3, 104), BFLOAT16, parameters=np.float32),
    "bfloat16, odd, fused": Case((9, 99), BFLOAT16, residual=True, activation="gelu", parameters=np.float32),
    "residual": Case(residual=True),
    "residual, the sum not kept": Case((3, 101), residual=True, kept=False),
    "relu": Case((4, 70), activation="relu", residual=True),
    "sigmoid": Case(activation="sigmoid"),
    "gelu": Case((3, 71), activation="gelu", residual=True, bias=False),
}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def run(case, data, eps=EPS):
    """y, x + residual, mean, rstd, dx, dweight, dbias."""
    x, dy, residual, dsum, weight, bias = data
    apart = case.shift if case.other_shift is None else case.other_shift
    X, R, DY, D = (flat(a, case.shift) for a in (x, residual, dy, dsum))
    w, b = (flat(a, case.parameter_shift) for a in (weight, bias))
    y, dx = (flat(np.full_like(x, np.nan), apart) for _ in range(2))
    h = flat(np.full_like(x, np.nan), case.shift) if case.residual and case.kept else None
    mean, rstd = launch_rows.row_forward(case.plan, X, w, b, eps, y, None, case.activation, R, h)
    if h is None:
        h = flat(summed(data), case.shift)
    sums = launch_rows.row_backward(case.plan, DY, h, mean, rstd, w, b, dx, None, case.activation, D)
    return y, h, mean, rstd, dx, *sums


def summed(data):
    x, _, residual, *_ = data
    return x if residual is None else x + residual


def same_bits(a, b):
    assert (a is None) == (b is None)
    assert a is None or a.copy_to_host().tobytes() == b.copy_to_host().tobytes()


def judge(case, data, results):
    """The results of `run` are those of the reference."""
    _, dy, _, dsum, weight, bias = data
    y, h, _, _, dx, dweight, dbias = results
    assert (h.copy_to_host() == summed(data).reshape(-1)).all()
    norm = "layer_norm" if case.centred else "rms_norm"
    steps = Steps(getattr(reference, f"{norm}_forward"), getattr(reference, f"{norm}_backward"), first=True)
    parameters = (weight, bias) if case.centred else (weight,)
    expected, saved = steps.forward(
        wide(summed(data)), case.shape[1], *map(wide, parameters), EPS, activation=case.activation
    )
    grads = steps.backward(wide(dy), saved)
    error = 1 + case.mean * np.finfo(np.float32 if case.dtype != np.float64 else np.float64).eps * 1e4
    close(y, expected, case.dtype, error)
    close(dx, grads.dx + (0 if dsum is None else wide(dsum)), case.dtype, error)
    for found, parameter, want in (
        (dweight, weight, grads.dweight),
        (dbias, bias, getattr(grads, "dbias", 0)),
    ):
        assert (found is None) == (parameter is None)
        if found is not None:
            assert found.dtype == parameter.dtype
            close(found, want, parameter.dtype, 4 * error * np.sqrt(case.shape[0]))


@cases
def test_matches_the_reference(case, rng, streamed):
    data = case.data(rng)
    judge(case, data, run(case, data))
    assert streamed == list(case.read_twice)


@pytest.mark.parametrize("case", [Case((12, 301), np.float16), Case((12, 302), residual=True, shift=1)])
def test_several_rows_of_teams_of_several_blocks(case, rng, streamed, monkeypatch):
    """Nine teams of two blocks; rows begin at eight places, or at two: in a sweep there are eight teams."""
    rule = config.Rule(elements=4, threads=32, resident=1, long_threads=32, block=32)
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(config, name, rule)
    monkeypatch.setattr(launch_rows, "properties", lambda _: replace(SIMULATED, multiprocessors=18))
    data = case.data(rng)
    judge(case, data, run(case, data))
    assert not streamed


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_through_the_public_functions(norm, rng, streamed):
    """As on the CPU, with two axes to a row."""
    x, residual, dy, dsum = rng.normal(size=(4, 3, 2, 40)).astype(np.float32)
    parameters = rng.normal(size=(2 if norm == "layer_norm" else 1, 2, 40)).astype(np.float32)
    forward, backward = getattr(nk, f"{norm}_forward"), getattr(nk, f"{norm}_backward")

    def both(given):
        y, saved = forward(
            given(x), (2, 40), *map(given, parameters), residual=given(residual), activation="silu"
        )
        return y, saved.x, *backward(given(dy), saved, dsum=given(dsum))

    for found, expected in zip(both(upload), both(np.copy), strict=True):
        assert (found is None) == (expected is None)
        if found is not None:
            assert found.shape == expected.shape
            np.testing.assert_allclose(found.copy_to_host(), expected, 1e-5, 1e-5)
    assert streamed == ["row_forward", "row_backward"]


def test_the_same_bits_twice(rng):
    case = CASES["residual, the sum not kept"]
    data = case.data(rng)
    for once, again in zip(run(case, data), run(case, data), strict=True):
        same_bits(once, again)


@pytest.mark.parametrize(
    ("dtype", "kept"), [(np.float32, True), (np.float32, False), (np.float16, False), (BFLOAT16, True)]
)
def test_with_a_residual_it_is_the_norm_of_the_sum_to_the_bit(dtype, kept, rng):
    case = Case((2, 101), dtype, residual=True, kept=kept, activation="relu")
    x, dy, residual, _, *parameters = case.data(rng)
    fused = run(case, (x, dy, residual, None, *parameters))
    apart = run(case._replace(residual=False), (x + residual, dy, None, None, *parameters))
    for one, other in zip(fused, apart, strict=True):
        same_bits(one, other)


def test_in_place(rng):
    """y may be x or the residual, the sum the other one, dx any of what it is made of."""
    case = Case((2, 101), residual=True, activation="silu")
    data = x, dy, residual, dsum, weight, bias = case.data(rng)
    y, h, _, _, dx, dweight, dbias = run(case, data)
    w, b = flat(weight), flat(bias)
    for first in (0, 1):
        arrays = flat(x), flat(residual)
        out, total = arrays[first], arrays[1 - first]
        mean, rstd = launch_rows.row_forward(
            case.plan, arrays[0], w, b, EPS, out, None, "silu", arrays[1], total
        )
        same_bits(out, y)
        same_bits(total, h)
    for place in range(3):
        arrays = flat(dy), flat(summed(data)), flat(dsum)
        out = arrays[place]
        sums = launch_rows.row_backward(
            case.plan, *arrays[:2], mean, rstd, w, b, out, None, "silu", arrays[2]
        )
        for found, expected in zip((out, *sums), (dx, dweight, dbias), strict=True):
            same_bits(found, expected)


def test_statistics_far_from_0(rng):
    for dtype, mean, tolerance in ((np.float32, 1e4, 1e-6), (np.float64, 1e8, 1e-13)):
        case = Case((2, 101), dtype, mean=mean)
        data = case.data(rng)
        _, _, mean, rstd, *_ = run(case, data, 0.0)
        x = wide(data[0])
        np.testing.assert_allclose(mean.copy_to_host(), x.mean(1), 1e-9 if dtype == np.float32 else 1e-15)
        np.testing.assert_allclose(rstd.copy_to_host(), 1 / x.std(1), tolerance)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_statistics_beyond_the_range_of_squares(size, centred, rng):
    case = Case((2, 101), centred=centred, weight=False, bias=False)
    x, dy, *absent = case.data(rng)
    y, _, _, rstd, dx, *_ = run(case, ((x * size).astype(np.float32), dy, *absent), 0.0)
    plain, _, _, _, plain_dx, *_ = run(case, (x, dy, *absent), 0.0)
    close(y, wide(plain.copy_to_host()), np.float32)
    close(dx, wide(plain_dx.copy_to_host()) / size, np.float32, 1 / size)
    square = (wide(x) ** 2).mean(1) - (wide(x).mean(1) ** 2 if centred else 0)
    np.testing.assert_allclose(rstd.copy_to_host() * size, 1 / np.sqrt(square), 1e-5)


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_row(bad, centred, rng):
    case = Case((5, 75), centred=centred)
    data = case.data(rng)
    data[0][2, 70] = bad
    y, _, _, _, dx, *_ = run(case, data)
    clean = np.ones(5, bool)
    clean[2] = False
    for array in (y, dx):
        found = array.copy_to_host().reshape(case.shape)
        assert np.isfinite(found[clean]).all()
        assert np.isnan(found[2]).sum() >= (1 if array is y else 70)


def test_a_constant_row(rng):
    case = Case((2, 101))
    x, dy, *other, bias = case.data(rng)
    x[1] = 0.1
    y, _, _, rstd, dx, *_ = run(case, (x, dy, *other, bias), 0.0)
    assert rstd.copy_to_host()[1] == 0
    assert (y.copy_to_host().reshape(x.shape)[1] == bias).all()
    assert (dx.copy_to_host().reshape(x.shape)[1] == 0).all()
