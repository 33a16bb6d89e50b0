"""A whole run: every case in turn, and what remains of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import psutil

from .cases import Case
from .copy import Copy, copy_bytes
from .machine import cache_sizes, machine, usage
from .measure import measure
from .results import CopySpeed, Results, Row
from .revision import revision
from .timing import Effort
from .torch_baseline import TorchBaseline

BASELINES = ("numpy", "steps", "torch", "none")


@dataclass(frozen=True)
class Plan:
    """What to run and how."""

    cases: Sequence[Case]
    threads: int
    baseline: str
    effort: Effort


def fitting(cases: Sequence[Case], baseline: str) -> tuple[list[Case], list[Case]]:
    """The cases that fit into the memory available now, and those that do not.

    The steps of a fused case take turns with it, with tensors of their own and what they keep between steps.
    """
    each = 3 if baseline == "steps" else 1
    cache_bytes = cache_sizes()[1]
    room = psutil.virtual_memory().available * 0.9 - 2 * copy_bytes(cache_bytes)
    fits = [each * case.memory(cache_bytes) <= room for case in cases]
    return (
        [case for case, fit in zip(cases, fits, strict=True) if fit],
        [case for case, fit in zip(cases, fits, strict=True) if not fit],
    )


def memory_text(case: Case) -> str:
    """What a case needs, for a person."""
    needed = case.memory(cache_sizes()[1])
    most = 1000 * 10**12
    text = f"{needed / 1e9:.1f} GB" if needed <= most else f"more than {most // 10**12} TB"
    return f"{case.id}, which needs {text}"


def run(
    plan: Plan, options: dict[str, Any], skipped: Sequence[Case], starting: Callable[[Case], None]
) -> Results:
    """Measure every case of the plan; `starting` is told of each. Raises check.Mismatch."""
    code = revision()  # before measuring: a checkout may move meanwhile
    before = numba.get_num_threads()
    numba.set_num_threads(plan.threads)
    start = usage()
    try:
        rows = _rows(plan, starting)
    finally:
        numba.set_num_threads(before)
    taken = sum(start.shares(usage()))
    speed = CopySpeed(
        plain=float(np.median([row.copy.plain for row in rows])),
        streaming=float(np.median([row.copy.streaming for row in rows])),
    )
    others = ("torch",) if plan.baseline == "torch" else ()
    here = machine(plan.threads, others)
    return Results(here, options, speed, rows, [case.id for case in skipped], code, taken)


def _rows(plan: Plan, starting: Callable[[Case], None]) -> list[Row]:
    cache_bytes = cache_sizes()[1]
    size = copy_bytes(cache_bytes)
    copy = Copy(size, plan.threads)
    rows = []
    with ExitStack() as stack:
        torch = None
        if plan.baseline == "torch":
            torch = stack.enter_context(TorchBaseline(plan.threads, size, cache_bytes, plan.effort))
        for case in plan.cases:
            starting(case)
            row = measure(case, copy, cache_bytes, plan.effort, plan.baseline)
            rows.append(replace(row, baseline=torch.measure(case)) if torch else row)
    return rows
