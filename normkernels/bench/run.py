"""A whole run: every case in turn, and what remains of it."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from typing import Any

import numba
import numpy as np
import psutil

from .cases import Case
from .copy import Copy, copy_bytes
from .machine import cache_sizes, machine, usage
from .measure import measure
from .peers import PEERS
from .peers.process import PeerProcess
from .results import CopySpeed, Results, Row
from .revision import revision
from .timing import Effort


@dataclass(frozen=True)
class Plan:
    """What to run and how."""

    cases: Sequence[Case]
    threads: int
    against: Sequence[str]
    """What else is measured: "steps", and libraries."""
    effort: Effort
    notes: Sequence[str] = ()
    """What will not be measured, and why."""


def fitting(cases: Sequence[Case], against: Sequence[str]) -> tuple[list[Case], list[Case]]:
    """The cases that fit into the memory available now, and those that do not.

    The steps of a fused case take turns with it, with tensors of their own and what they keep between steps.
    A library in a process of its own has a copy of its own, and tensors when those of the kernels are gone.
    """
    each = 3 if "steps" in against else 1
    copies = 1 + sum(name in PEERS and PEERS[name].own_process for name in against)
    cache_bytes = cache_sizes()[1]
    room = psutil.virtual_memory().available * 0.9 - 2 * copies * copy_bytes(cache_bytes)
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
    notes = list(plan.notes)
    try:
        rows = _rows(plan, notes, starting)
    finally:
        numba.set_num_threads(before)
    taken = sum(start.shares(usage()))
    speed = CopySpeed(
        plain=float(np.median([row.copy.plain for row in rows])),
        streaming=float(np.median([row.copy.streaming for row in rows])),
    )
    needs = dict.fromkeys(need for name in plan.against if name in PEERS for need in PEERS[name].needs)
    known = packages_distributions() if needs else {}
    here = machine(plan.threads, tuple(dict.fromkeys(known[need][0] for need in needs if need in known)))
    return Results(here, options, speed, rows, [case.id for case in skipped], code, taken, notes)


def _rows(plan: Plan, notes: list[str], starting: Callable[[Case], None]) -> list[Row]:
    cache_bytes = cache_sizes()[1]
    size = copy_bytes(cache_bytes)
    copy = Copy(size, plan.threads)
    libraries = [name for name in plan.against if name in PEERS]
    here = {name: PEERS[name].make(plan.threads) for name in libraries if not PEERS[name].own_process}
    first = next(iter(plan.against), None)
    rows = []
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                PeerProcess(name, plan.cases, plan.threads, size, cache_bytes, plan.effort, notes)
            )
            for name in libraries
            if name not in here
        ]
        for other in others:
            other.start()
        for case in plan.cases:
            starting(case)
            row = measure(case, copy, cache_bytes, plan.effort, "steps" in plan.against, here)
            asked = {each.name: each for each in row.others}
            asked |= {other.name: found for other in others if (found := other.measure(case))}
            rows.append(row.beside([asked[name] for name in plan.against if name in asked], first))
    return rows
