"""How kernels are compiled, shared out and announced."""

import os
import subprocess
import sys

import numpy as np
import pytest
from numba.core.errors import TypingError

from normkernels.cpu import jit
from normkernels.cpu.parallel import ALONE, share, team_of
from normkernels.cpu.pointers import offset


@jit.loop
def double(k, x, y):
    y[k] = 2 * x[k]


@jit.primitive
def _count(k, n, counts):
    counts[k % n] += 1


@jit.kernel
def count(team, pieces, n, counts):
    """In two steps, of which the second needs the first."""
    share(team, pieces, _count, n, counts)
    share(team, n, _count, n, counts)


@jit.loop
def greedy(k, n, y):
    y[k] = np.ones(n)[0]


@pytest.mark.parametrize("team", [ALONE, team_of(2)], ids=["serial", "parallel"])
@pytest.mark.parametrize("pieces", [0, 1, 2, 7])
def test_every_piece_is_done_once(team, pieces):
    x, y = np.arange(7.0), np.zeros(7)
    double(team, pieces, x, y)
    np.testing.assert_array_equal(y, np.where(np.arange(7) < pieces, 2 * x, 0))


@pytest.mark.parametrize("team", [ALONE, team_of(2)], ids=["serial", "parallel"])
def test_steps_follow_each_other(team):
    counts = np.zeros(50, np.int64)
    count(team, 100 if team == ALONE else 50, 50, counts)
    np.testing.assert_array_equal(counts, 3 if team == ALONE else 2)


@pytest.mark.parametrize("team", [ALONE, team_of(2)], ids=["serial", "parallel"])
def test_a_piece_without_memory_is_an_error(team):
    with pytest.raises(MemoryError, match="no memory for a piece of work"):
        greedy(team, 2, 2**60, np.zeros(2))


def test_one_machine_code_for_any_number_of_threads():
    x, y = np.arange(7.0), np.zeros(7)
    for team in (ALONE, team_of(2)):
        double(team, 7, x, y)
    assert len(double.signatures) == 1


def test_arrays_do_not_move():
    """A record of arrays that a kernel made would keep what it points to: at its beginning."""

    @jit.callable_from_python
    def moved(x):
        return offset(x, 1)

    with pytest.raises(TypingError, match="pointers move, arrays do not"):
        moved(np.zeros(2))


def test_integers_are_one_type():
    """numba would compile a primitive again for every literal."""

    @jit.primitive
    def plus(x, n):
        return x[n]

    @jit.callable_from_python
    def first(x, n):
        return plus(x, 0) + plus(x, 1) + plus(x, n)

    assert first(np.arange(3.0), 2) == 3
    assert len(plus.signatures) == 1


def test_a_change_in_a_primitive_makes_a_new_stamp(monkeypatch):
    before = jit._source_stamp(test_integers_are_one_type)
    monkeypatch.setattr(jit, "_PARTS", jit._PARTS + b" ")
    assert jit._source_stamp(test_integers_are_one_type) != before


def test_import_without_the_compiler_is_one_clear_line():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run(
        [sys.executable, "-c", "import normkernels"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        "ImportError: normkernels needs numba's compiler: NUMBA_DISABLE_JIT must not be set" in result.stderr
    )
