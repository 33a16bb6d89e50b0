"""Fused passes in the benchmark, the steps they are compared with, and what compiling costs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from normkernels.bench import check, results
from normkernels.bench.cases import Case
from normkernels.bench.copy import Copy
from normkernels.bench.inputs import copied, make_inputs
from normkernels.bench.measure import measure
from normkernels.bench.selection import BadOption, Selection, fusible, select
from normkernels.bench.steps import SWEEPS, in_steps
from normkernels.bench.timing import Effort
from normkernels.norms import NORMS
from normkernels.reference.fused import NUMPY

ONCE = Effort(seconds=0, least=1, most=1)
FUSES = ("residual", "residual+sum", "relu", "residual+silu", "residual+sum+gelu")
CASES = [
    Case(op, pass_, (6, 5, 4, 3) if NORMS[op].family != "rows" else (7, 33), fuse=fuse)
    for op in NORMS
    for fuse in FUSES
    if fusible(op, fuse)
    for pass_ in ("forward", "backward")
]
# The kernels of the others differ in what is None, and compile again.
ONE_OF_A_FAMILY = ("layer_norm", "group_norm", "batch_norm")
EVERY_CASE = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c.op in ONE_OF_A_FAMILY else pytest.mark.slow, id=c.id) for c in CASES],
)


@pytest.mark.parametrize(
    ("op", "fuse", "forward", "backward"),
    [
        ("layer_norm", "residual", 3, 3),
        ("layer_norm", "residual+sum", 4, 4),
        ("rms_norm", "silu", 2, 3),
        ("batch_norm", "residual", 3, 3),
        ("batch_norm", "residual+relu", 3, 5),
        ("group_norm", "silu", 2, 3),
    ],
)
def test_the_byte_model_counts_what_is_fused(op: str, fuse: str, forward: int, backward: int) -> None:
    for pass_, tensors in (("forward", forward), ("backward", backward)):
        assert Case(op, pass_, (8, 16), fuse=fuse).bytes_moved == tensors * 8 * 16 * 4


@EVERY_CASE
def test_fused_cases_are_checked_and_measured(case: Case) -> None:
    row = measure(case, Copy(1 << 16, 1), 1 << 20, ONCE, steps=True)
    row = row.beside(row.others, "steps")
    assert row.error <= check.tolerance(case)
    assert row.baseline is not None
    assert row.baseline.name == "steps"
    assert row.ratio is not None
    assert row.ratio > 0


@pytest.mark.slow
def test_relu_is_not_asked_at_its_kink() -> None:
    inputs = make_inputs(Case("layer_norm", "backward", (2000, 500), fuse="residual+relu"))
    assert 0 < (inputs.dy == 0).sum() < 100


def test_check_finds_a_wrong_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("layer_norm", "forward", (7, 33), fuse="residual+sum")
    inputs = make_inputs(case)
    right = NORMS["layer_norm"].kernels.call

    def wrong(*args: Any, sum_out: np.ndarray, **kwargs: Any) -> np.ndarray:
        y = right(*args, sum_out=sum_out, **kwargs)
        sum_out[3, 3] += 1
        return y

    monkeypatch.setattr("normkernels.functional.layer_norm", wrong)
    with pytest.raises(check.Mismatch, match="layer_norm\\+residual\\+sum/forward"):
        check.check(case, inputs)


@EVERY_CASE
def test_steps_are_the_reference(case: Case) -> None:
    inputs = make_inputs(case)
    spec = NORMS[case.op]
    reference = spec.in_steps(spec.reference)
    want_y, want = reference.forward(inputs.x, **copied(inputs.arguments), **inputs.beside_x)
    y, saved = in_steps(case.op).forward(inputs.x, **inputs.arguments, **inputs.beside_x)
    np.testing.assert_allclose(y, want_y, rtol=2e-5, atol=2e-5)
    got = in_steps(case.op).backward(inputs.dy, saved, **inputs.beside_dy)
    expected = reference.backward(inputs.dy, want, **inputs.beside_dy)
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [300, pytest.param(700, marks=pytest.mark.slow)])  # by several threads
def test_sweeps_do_what_numpy_does(rows: int) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, rows, 333), np.float32)
    np.testing.assert_array_equal(SWEEPS.add(a, b), NUMPY.add(a, b))
    for name in ("relu", "sigmoid", "silu", "gelu"):
        np.testing.assert_allclose(SWEEPS.activate(a, name), NUMPY.activate(a, name), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(
            SWEEPS.gradient(a, b, name), NUMPY.gradient(a, b, name), rtol=1e-5, atol=1e-6
        )


def test_selection_of_what_can_be_fused() -> None:
    cases = select(Selection(shapes=["4x8x2x2"], fuses=["residual+relu", "residual+sum"]))
    assert {(c.op, c.fuse) for c in cases} == {
        ("layer_norm", "residual+relu"),
        ("layer_norm", "residual+sum"),
        ("rms_norm", "residual+relu"),
        ("rms_norm", "residual+sum"),
        ("batch_norm", "residual+relu"),
        ("batch_renorm", "residual+relu"),
    }
    assert cases[0].id == "layer_norm+residual+relu/forward/shape/4x8x2x2/float32"


@pytest.mark.parametrize(
    ("fuse", "op", "message"),
    [
        ("tanh", (), "--fuse must be residual, sum and one of relu.*got 'tanh'"),
        ("relu+silu", (), "one of relu.*got 'relu\\+silu'"),
        ("residual+residual", (), "got 'residual\\+residual'"),
        ("sum", (), "--fuse sum needs residual, got sum"),
        ("", (), "--fuse must be residual"),
        ("residual", ("group_norm",), "what group_norm takes, relu .*, got 'residual'"),
        ("residual+sum", ("batch_norm",), "what batch_norm takes, .*got 'residual\\+sum'"),
    ],
)
def test_bad_fusions(fuse: str, op: tuple[str, ...], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        select(Selection(ops=op, shapes=["4x8x2x2"], fuses=[fuse]))


def test_bench_shows_fused_rows(normkernels: Any) -> None:
    options = "--quick --shape 3x8 --op layer_norm --fuse residual --baseline steps --json r.json".split()
    shown = normkernels("bench", *options)
    assert shown.code == 0
    assert "layer_norm+residual forward" in shown.out
    assert "vs steps" in shown.out
    rows = results.load(Path("r.json")).rows
    assert [(row.case.fuse, row.case.pass_) for row in rows] == [("residual", "forward")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--baseline", "steps"], "--against steps needs --fuse"),
        (["--fuse", "nothing"], "--fuse must be .*got 'nothing'"),
    ],
)
def test_options_that_do_not_go_together(normkernels: Any, options: list[str], message: str) -> None:
    shown = normkernels("bench", "--quick", "--shape", "3x8", *options)
    assert shown.code == 2
    assert shown.err.count("\n") == 1
    assert re.search(message, shown.err)
