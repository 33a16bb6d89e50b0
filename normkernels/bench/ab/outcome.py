"""What a run of the gate leaves behind: the verdict, and the JSON file."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write
from ..machine import Machine, check_date
from ..schema import Count, Positive, ResultsError, each_once, made, read
from .verdict import Comparison

SCHEMA = "normkernels.ab/1"
NO_REGRESSION, REGRESSION, INCONCLUSIVE = 0, 1, 3


@dataclass(frozen=True)
class Plan:
    """What to compare and how."""

    base: str
    head: str
    cases: str | None
    pairs: Count
    threshold: Positive
    minutes: Positive | None
    """At most; None for as many as are needed."""
    isolated: bool
    threads: Count
    seed: int
    aa: bool


@dataclass(frozen=True)
class Side:
    """What one arm was: the name it was given by, and the commit."""

    ref: str
    commit: str


@dataclass(frozen=True)
class Outcome:
    """A run of the gate. `again` holds the rerun of the cases that `first` flagged."""

    machine: Machine
    base: Side
    head: Side
    plan: Plan
    seconds: Positive
    first: list[Comparison]
    again: list[Comparison]
    controls: list[Comparison]
    moved: list[str]
    """Names of the controls that moved, and did so again in a second run; `controls` are of the last run."""
    only_head: dict[str, str]
    only_base: list[str] = field(default_factory=list)
    """Cases of base that head has no more."""
    notes: list[str] = field(default_factory=list)
    """What else a reader has to know."""
    bytes: dict[str, Count] = field(default_factory=dict)
    """What a call of a case must move, where the case says so."""
    url: str | None = None
    """Where the repository can be looked at."""

    def recurred(self, verdict: str) -> list[Comparison]:
        """The cases with this verdict in both runs, as the rerun saw them."""
        flagged = {c.name for c in self.first if c.verdict == verdict}
        return [c for c in self.again if c.verdict == verdict and c.name in flagged]

    @property
    def command(self) -> str:
        """The command line, but for how long it measured and the files it wrote."""
        cases = f" --cases {self.plan.cases}" if self.plan.cases else ""
        arms = "--aa" if self.plan.aa else f"--head {self.head.ref}"
        return f"normkernels ab --base {self.base.ref} {arms}{cases}"

    @property
    def untold(self) -> list[Comparison]:
        """The cases that may have changed by the threshold for all that their intervals say."""
        return [c for c in self.first if c.verdict == "same" and c.high > 1 + self.plan.threshold]

    @property
    def exit_code(self) -> int:
        if self.moved:
            return INCONCLUSIVE
        return REGRESSION if self.recurred("slower") else NO_REGRESSION

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        gone = len(self.only_base)
        missing = (
            f"; {gone} case{'s' * (gone > 1)} of base {'are' if gone > 1 else 'is'} not in head"
            if gone
            else ""
        )
        return self._verdict + missing

    @property
    def _verdict(self) -> str:
        slower, faster = len(self.recurred("slower")), len(self.recurred("faster"))
        cases = f"{len(self.first)} case{'s' * (len(self.first) > 1)}"
        if self.moved:
            return f"inconclusive: {' and '.join(self.moved)} moved, which no commit can have done"
        if not slower and not faster:
            told = f"no change beyond {self.plan.threshold:.0%} in {cases}"
            return f"{told}, {len(self.untold)} of which cannot be told" if self.untold else told
        parts = [f"{slower} slower"] * bool(slower) + [f"{faster} faster"] * bool(faster)
        return f"{' and '.join(parts)} by more than {self.plan.threshold:.0%}, of {cases}"


def parts(name: str) -> tuple[str, str, str]:
    """Function, pass and shape of a case such as layer_norm/forward/256x768, "" where it names none."""
    first, *rest = name.split("/")
    pass_ = next((part for part in rest if part in ("forward", "backward")), "")
    return first, pass_, "/".join(part for part in rest if part != pass_)


def save(outcome: Outcome, path: Path) -> None:
    """Write the outcome as JSON; an interrupted write leaves the file as it was."""
    write(path, (json.dumps({"schema": SCHEMA, **asdict(outcome)}, indent=1) + "\n").encode())


def load(path: Path) -> Outcome:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    return outcome_from(read(path), path)


def outcome_from(document: Any, path: Path) -> Outcome:
    """An outcome from what JSON has of it; raises ResultsError."""
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema!r:.40} in {path}")
    try:
        outcome = made(Outcome, document)
        check_date(outcome.machine)
    except ResultsError as error:
        raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {error}") from None
    for cases in (outcome.first, outcome.again, outcome.controls):
        each_once((case.name for case in cases), path)
    return outcome
