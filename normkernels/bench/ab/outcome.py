"""What a run of the gate leaves behind: the verdict, and the JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..files import write
from ..machine import Machine
from ..results import ResultsError, read
from .verdict import Comparison

SCHEMA = "normkernels.ab/1"
NO_REGRESSION, REGRESSION, INCONCLUSIVE = 0, 1, 3


@dataclass(frozen=True)
class Plan:
    """What to compare and how."""

    base: str
    head: str
    cases: str | None
    pairs: int
    threshold: float
    minutes: float
    isolated: bool
    threads: int
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
    seconds: float
    first: list[Comparison]
    again: list[Comparison]
    controls: list[Comparison]
    moved: list[str]
    """Names of the controls that moved, and did so again in a second run; `controls` are of the last run."""
    only_head: dict[str, str]

    def recurred(self, verdict: str) -> list[Comparison]:
        """The cases with this verdict in both runs, as the rerun saw them."""
        flagged = {c.name for c in self.first if c.verdict == verdict}
        return [c for c in self.again if c.verdict == verdict and c.name in flagged]

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
        slower, faster = len(self.recurred("slower")), len(self.recurred("faster"))
        cases = f"{len(self.first)} case{'s' * (len(self.first) > 1)}"
        if self.moved:
            return f"inconclusive: {' and '.join(self.moved)} moved, which no commit can have done"
        if not slower and not faster:
            told = f"no change beyond {self.plan.threshold:.0%} in {cases}"
            return f"{told}, {len(self.untold)} of which cannot be told" if self.untold else told
        parts = [f"{slower} slower"] * bool(slower) + [f"{faster} faster"] * bool(faster)
        return f"{' and '.join(parts)} by more than {self.plan.threshold:.0%}, of {cases}"


def save(outcome: Outcome, path: Path) -> None:
    """Write the outcome as JSON; an interrupted write leaves the file as it was."""
    write(path, (json.dumps({"schema": SCHEMA, **asdict(outcome)}, indent=1) + "\n").encode())


def load(path: Path) -> Outcome:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    document = read(path)
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema} in {path}")
    try:
        comparisons = {
            key: [Comparison(**{**c, "pairs": [tuple(p) for p in c["pairs"]]}) for c in document[key]]
            for key in ("first", "again", "controls")
        }
        sides = {key: Side(**document[key]) for key in ("base", "head")}
        plan, machine = Plan(**document["plan"]), Machine(**document["machine"])
        return Outcome(**{**document, **comparisons, **sides, "plan": plan, "machine": machine})
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {error}") from None
