"""What a pass allocates beside its results stays within what docs/memory.md says."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from normkernels.norms import NORMS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def memory(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import memory

    return memory


@pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
def test_every_norm_and_pass_is_within_its_bound(spec, memory):
    for case in memory.cases(spec):
        found, groups = memory.measured(case)
        for pass_, nbytes in found.items():
            assert nbytes <= case.bound(pass_, groups), (case.shape, case.parameters, case.activation, pass_)


def test_parameters_that_are_absent_take_no_room(memory):
    """One row of a half type: ones and zeros of its length were twice and four times its size."""
    case = memory.Case(NORMS["layer_norm"], (1, 1 << 22), parameters=False, dtype=ml_dtypes.bfloat16)
    assert max(memory.measured(case)[0].values()) < 0.1 * 2 * case.size


def test_statistics_of_short_rows_are_kept_only_for_a_backward(memory):
    for name in ("layer_norm", "rms_norm", "weight_norm"):
        case = memory.Case(NORMS[name], (1 << 18, 4))
        found, rows = memory.measured(case)
        assert found["call"] < 2 * rows
        assert found["forward"] < 18 * rows
        assert found["backward"] < 10 * rows
    case = memory.Case(NORMS["instance_norm"], (1 << 12, 64, 4), parameters=False)
    assert memory.measured(case)[0]["backward"] < 0.1 * 4 * case.size


def test_the_table_names_every_norm():
    page = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in NORMS)


@pytest.mark.parametrize("n", [40_000, 5000])
@pytest.mark.parametrize("rows", [1, 9])
def test_no_parameters_are_ones_and_zeros(rows, n, rng):
    """To the bit, though ones and zeros are read for a part of a row only."""
    x, dy = rng.normal(size=(2, rows, n)).astype(np.float32)
    passes, given = NORMS["layer_norm"].kernels, (np.ones(n, np.float32), np.zeros(n, np.float32))
    for activation in (None, "relu"):
        (y, saved), (z, other) = (
            passes.forward(x, n, *p, activation=activation) for p in ((None, None), given)
        )
        np.testing.assert_array_equal(y, z)
        np.testing.assert_array_equal(passes.backward(dy, saved).dx, passes.backward(dy, other).dx)
