"""Rows that no team can hold, in the simulator."""

from dataclasses import replace
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest

from normkernels import reference
from normkernels._plan import row_plan
from normkernels.cuda import config, launch_long_rows, launch_rows, long_rows
from normkernels.cuda.devices import SIMULATED, simulated
from normkernels.cuda.memory import upload
from normkernels.reference.fused import Steps

if not simulated():
    pytest.skip("rules for a device of one multiprocessor are no other device's", allow_module_level=True)

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
    monkeypatch.setattr(config, "MERGING_BLOCK", 4)
    monkeypatch.setattr(long_rows, "FLUSH", 4)
    monkeypatch.setattr(launch_rows, "properties", lambda device: replace(SIMULATED, multiprocessors=1))
    calls = []

    def watched(name):
        original = getattr(launch_long_rows, name)
        return lambda *args: calls.append(name) or original(*args)

    for name in ("row_forward", "row_backward"):
        monkeypatch.setattr(launch_long_rows, name, watched(name))
    return calls


def on_device(a, shift=0):
    """An array in device memory that begins `shift` elements past a multiple of 16 bytes."""
    if a is None:
        return None
    room = upload(np.zeros(a.size + 16, a.dtype))
    start = -room.address % 16 // a.itemsize + shift
    made = room.part(start, a.size)
    made.memory[:] = a.reshape(-1)
    return made


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

    @property
    def plan(self):
        itemsize = np.dtype(self.dtype).itemsize
        strides = self.shape[1] * itemsize, itemsize
        return row_plan(self.shape, strides, np.dtype(self.dtype), 1, self.centred)

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
    "shifted": Case(shift=3),
    "shifted, odd columns": Case((5, 75), shift=1),
    "arrays that begin differently": Case((2, 72), other_shift=1),
    "parameters that begin elsewhere": Case(parameter_shift=1),
    "far from 0": Case((3, 101), mean=1e4),
    "without parameters": Case(weight=False, bias=False),
    "weight only": Case((2, 77), bias=False),
    "bias only": Case(weight=False),
    "more rows than are summed in float32": Case((11, 67)),
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


def stored(a, dtype):
    return wide(np.array(a, dtype))


def run(case, data, in_place=False):
    """y, the sum, mean, rstd, dx, dweight, dbias."""
    x, dy, residual, dsum, weight, bias = data
    apart = case.shift if case.other_shift is None else case.other_shift
    X, R, DY, D = (on_device(a, case.shift) for a in (x, residual, dy, dsum))
    w, b = (on_device(a, case.parameter_shift) for a in (weight, bias))
    y, dx = (on_device(np.full_like(x, np.nan), apart) for _ in range(2))
    total = on_device(np.full_like(x, np.nan), case.shift) if case.residual and case.kept else None
    if in_place:
        y, total, dx = (X, None, DY) if R is None else (R, X, D)
    mean, rstd = launch_rows.row_forward(case.plan, X, w, b, EPS, y, None, case.activation, R, total)
    y = on_device(y.copy_to_host())
    h = total
    if total is None:
        h = on_device(x if residual is None else (x + residual).astype(case.dtype), case.shift)
    sums = launch_rows.row_backward(case.plan, DY, h, mean, rstd, w, b, dx, None, case.activation, D)
    return y, h, mean, rstd, dx, *sums


@cases
def test_matches_the_reference(case, rng, streamed):
    data = case.data(rng)
    x, dy, residual, dsum, weight, bias = data
    y, h, _, _, dx, dweight, dbias = run(case, data)
    assert streamed == ["row_forward", "row_backward"]
    summed = x if residual is None else (x + residual).astype(case.dtype)
    assert (h.copy_to_host() == summed.reshape(-1)).all()
    norm = "layer_norm" if case.centred else "rms_norm"
    steps = Steps(getattr(reference, f"{norm}_forward"), getattr(reference, f"{norm}_backward"), first=True)
    parameters = (weight, bias) if case.centred else (weight,)
    expected, saved = steps.forward(
        wide(summed), case.shape[1], *map(wide, parameters), EPS, activation=case.activation
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
