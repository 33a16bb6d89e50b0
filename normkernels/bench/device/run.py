"""A whole run on a device: one library after the other, each on every case in a process of its own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from statistics import median
from time import monotonic
from typing import Any

import numba

from ..cases import Case
from ..machine import machine, usage
from ..process import Process, WorkerEnded
from ..results import Baseline, CopySpeed, Results, Row, as_json
from ..revision import revision
from ..schema import made
from .libraries import LIBRARIES, OWN
from .plan import DevicePlan, packages

# A case may take so many seconds, and so many of them after the time of the run is up.
CASE_SECONDS, GRACE = 90.0, 20.0
# So often a library may end its process before the rest of its cases is left out.
MOST_ENDS = 3
# Of the time, that the kernels may take before the other libraries have their turn.
OWN_SHARE = 0.6
# So far apart are neighbouring cases.
STRIDE = 5

Rows = dict[str, Row]


class NothingMeasured(Exception):
    """Not one case could be measured."""


def run(
    plan: DevicePlan, options: dict[str, Any], skipped: Sequence[Case], starting: Callable[[str], None]
) -> Results:
    """Measure every case of the plan; `starting` is told of each."""
    code, start, end = revision(), usage(), monotonic() + plan.seconds
    notes: list[str] = []
    own_end = end if not plan.libraries else monotonic() + OWN_SHARE * plan.seconds
    own = _measured(OWN, plan, own_end, notes, starting)
    if not own:
        raise NothingMeasured(notes[0] if notes else "time was up before the first case")
    measured = [case for case in plan.cases if case.id in own]
    installed = []
    for name in plan.libraries:
        if missing := LIBRARIES[name].missing():
            notes.append(f"{name} was not measured: {missing} is not installed")
        else:
            installed.append(name)
    beside = {
        name: _measured(name, replace(plan, cases=measured), end, notes, starting) for name in installed
    }
    rows = [_joined(own[case.id], beside) for case in measured]
    speed = CopySpeed(
        plain=median(row.copy.plain for row in rows), streaming=median(row.copy.streaming for row in rows)
    )
    here = replace(machine(numba.get_num_threads(), packages(installed)), device=plan.device)
    taken = sum(start.shares(usage()))
    return Results(here, options, speed, rows, [case.id for case in skipped], code, taken, notes)


def _joined(row: Row, beside: dict[str, Rows]) -> Row:
    """The row with those of other libraries."""
    found = [
        Baseline(name, other.fresh, other.copy, other.call)
        for name, rows in beside.items()
        if (other := rows.get(row.case.id))
    ]
    return row.beside(found, next(iter(beside), None))


def _measured(
    name: str, plan: DevicePlan, end: float, notes: list[str], starting: Callable[[str], None]
) -> Rows:
    """The rows of a library by case; what goes wrong becomes a note."""
    rows: Rows = {}
    # spread: if time is up, those measured are of all kinds
    todo, ends = [case for k in range(STRIDE) for case in plan.cases[k::STRIDE]], 0
    while todo and ends < MOST_ENDS:
        try:
            _serve(name, plan, end, todo, rows, notes, starting)
        except WorkerEnded as error:
            notes.append(f"{name}: {error}")
            ends += 1
            continue
        break
    if todo:
        why = "time was up" if monotonic() >= end else f"its process ended {ends} times"
        notes.append(f"{len(todo)} of {len(plan.cases)} cases of {name} were left out: {why}")
    return rows


def _serve(
    name: str,
    plan: DevicePlan,
    end: float,
    todo: list[Case],
    rows: Rows,
    notes: list[str],
    starting: Callable[[str], None],
) -> None:
    """Hand cases to a process until none is left to do, or time is up; raises WorkerEnded."""
    setup = {
        "l2_bytes": plan.device.l2_bytes,
        "memory_bytes": plan.device.memory_bytes,
        "copy_bytes": plan.copy_bytes,
        "effort": asdict(plan.effort),
        "seed": plan.seed,
    }
    with Process("worker", "normkernels.bench.device.worker", name, setup=setup) as process:
        while todo and (left := end - monotonic()) > 0:
            case = todo.pop(0)
            starting(f"{name} {case.id}")
            answer = process.ask(as_json(case), case.id, min(CASE_SECONDS, left + GRACE))
            if "problem" in answer:
                notes.append(f"{name}: {answer['problem']}")
            elif answer["row"]:
                rows[case.id] = made(Row, answer["row"])
            if answer.get("lost"):
                raise WorkerEnded(f"the device was lost at {case.id}")
