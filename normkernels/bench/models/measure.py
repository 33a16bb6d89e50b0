"""Cases measured: checked, then timed in turns, then their norms alone, then memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import torch

from ..ab.pairs import BASE, HEAD, orders
from ..ab.verdict import Pair
from ..timing import collector_off
from . import norms, steps
from .cases import EAGER, Case, needed
from .check import check
from .memory import Memory, measuring
from .results import Row


@dataclass(frozen=True)
class Effort:
    """Pairs of steps go on for about so many seconds, within `least` and `most`."""

    seconds: float
    least: int
    most: int


STEP, NORMS, QUICK = Effort(8.0, 6, 60), Effort(2.0, 6, 40), Effort(0.1, 3, 5)


def measure(cases: Sequence[Case], threads: int, quick: bool, starting: Callable[[Case], None]) -> list[Row]:
    """A row for each case; raises Mismatch and WorkerEnded."""
    efforts = (QUICK, QUICK) if quick else (STEP, NORMS)
    rows = []
    torch.set_num_threads(threads)
    with measuring(threads, needed(cases)) as memory:
        for case in cases:
            starting(case)
            rows.append(_row(case, efforts, memory))
    return rows


def _row(case: Case, efforts: tuple[Effort, Effort], memory: Memory) -> Row:
    torch.compiler.reset()  # of the case before
    models = steps.pair(case)
    calls = tuple(steps.compiled(model, case) for model in models)
    errors = check(case, models, calls)
    before, after = (steps.step_of(*each, case) for each in zip(models, calls, strict=True))
    taken = in_turns(before, after, efforts[0])
    if case.mode == EAGER:
        found = norms.calls_of(models, before)
        of_norms = in_turns(*norms.step_of_norms(found, case), efforts[1])
        count = len(found)
    else:  # the compiler has joined the norms with what is beside them
        of_norms, count = [], 0
    return Row(case, taken, of_norms, count, errors, memory.peaks(case))


def in_turns(before: steps.Step, after: steps.Step, effort: Effort) -> list[Pair]:
    """Seconds of both, one right after the other, in a balanced random order."""
    _seconds(before), _seconds(after)
    once = _seconds(before) + _seconds(after)
    pairs = min(effort.most, max(effort.least, round(effort.seconds / once)))
    taken: list[Pair] = []
    with collector_off():
        for order in orders(pairs, seed=0):
            times = {arm: _seconds(before if arm == BASE else after) for arm in order}
            taken.append((times[BASE], times[HEAD]))
    return taken


def _seconds(step: steps.Step) -> float:
    start = perf_counter()
    step()
    return perf_counter() - start
