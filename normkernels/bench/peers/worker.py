"""One library on cases, in a process of its own: `python -m normkernels.bench.peers.worker MODULE:CLASS`.

Reads a line of JSON with the set-up, and answers with which of its cases the library has; then one line per
case, each answered with one line: what the library took, or what went wrong.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TextIO

from ..cases import Case
from ..condition import in_condition
from ..copy import Copy
from ..inputs import copied, make_inputs
from ..measure import beside
from ..results import Baseline, Timing, as_json
from ..schema import made
from ..timing import Effort
from . import Entry
from .peer import Peer, verify

# OpenMP threads spin for some milliseconds after a parallel region and would slow the copy down.
SPIN_SECONDS = 0.01


class PatientCopy(Copy):
    """A copy that first lets the threads of the library come to rest."""

    def plain(self) -> float:
        time.sleep(SPIN_SECONDS)
        return super().plain()

    def streaming(self) -> float:
        time.sleep(SPIN_SECONDS)
        return super().streaming()


def measure(name: str, peer: Peer, case: Case, copy: Copy, cache_bytes: int, effort: Effort) -> Baseline:
    """Check the library on one case, then time it beside the copy; raises check.Mismatch."""
    inputs = make_inputs(case)
    given = replace(inputs, arguments=copied(inputs.arguments))
    contender = peer.contender(case, given, case.slots(cache_bytes))
    verify(peer, case, inputs, given, contender)
    contender.warm_up()
    (fresh,), speed, copy_gbs = beside(copy, [in_condition(case, contender).fresh], effort)
    return Baseline(name, Timing.of(fresh, case.bytes_moved, copy_gbs), speed)


def answer(ask: Callable[[], Any], what: str) -> dict[str, Any]:
    """The answer to a question, or what went wrong, in one line."""
    try:
        return {"answer": ask()}
    except Exception as error:  # of any library: the others go on
        text = " ".join(str(error).split())
        return {"problem": (text if what in text else f"{what}: {type(error).__name__}: {text}")[:300]}


def main() -> None:
    """Serve cases from standard input until it ends."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print what they like
        serve(sys.argv[1], answers)


def serve(where: str, answers: TextIO) -> None:
    setup = json.loads(sys.stdin.readline())
    name, cases = setup["name"], [made(Case, fields) for fields in setup["cases"]]
    started: list[tuple[Peer, Copy]] = []

    def start() -> list[bool]:
        peer = Entry(name, where).make(setup["threads"])
        started.append((peer, PatientCopy(setup["copy_bytes"], setup["threads"])))
        return [peer.has(case) for case in cases]

    def say(something: dict[str, Any]) -> None:
        print(json.dumps(something), file=answers, flush=True)

    say(answer(start, "it did not start"))
    if not started:
        return
    (peer, copy), effort = started[0], Effort(**setup["effort"])
    for line in sys.stdin:
        case = made(Case, json.loads(line))
        ask = partial(measure, name, peer, case, copy, setup["cache_bytes"], effort)
        say(answer(lambda ask=ask: as_json(ask()), case.id))  # type: ignore[misc]


if __name__ == "__main__":
    main()
