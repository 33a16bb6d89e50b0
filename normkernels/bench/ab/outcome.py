"""What a run of the gate leaves behind: the verdict, and the JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import write
from ..machine import Machine
from ..results import ResultsError
from .verdict import Comparison

SCHEMA = "normkernels.ab/1"
NO_REGRESSION, REGRESSION, INCONCLUSIVE = 0, 1, 3


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
    threshold: float
    seconds: float
    first: list[Comparison]
    again: list[Comparison]
    controls: list[Comparison]
    moved: list[str]
    """Names of the controls that moved."""
    only_head: dict[str, str]
    aa: bool

    def recurred(self, verdict: str) -> list[Comparison]:
        """The cases with this verdict in both runs, as the rerun saw them."""
        flagged = {c.name for c in self.first if c.verdict == verdict}
        return [c for c in self.again if c.verdict == verdict and c.name in flagged]

    @property
    def exit_code(self) -> int:
        if self.moved:
            return INCONCLUSIVE
        return REGRESSION if self.recurred("slower") else NO_REGRESSION

    @property
    def headline(self) -> str:
        """The verdict in one line."""
        slower, faster = self.recurred("slower"), self.recurred("faster")
        if self.moved:
            return f"inconclusive: {_listed(self.moved)} moved, which no commit can have done"
        if not slower and not faster:
            return f"no change beyond {self.threshold:.0%} in {len(self.first)} cases"
        parts = [f"{len(slower)} slower"] * bool(slower) + [f"{len(faster)} faster"] * bool(faster)
        return f"{' and '.join(parts)} by more than {self.threshold:.0%}, of {len(self.first)} cases"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)


def save(outcome: Outcome, path: Path) -> None:
    """Write the outcome as JSON; an interrupted write leaves the file as it was."""
    write(path, (json.dumps({"schema": SCHEMA, **asdict(outcome)}, indent=1) + "\n").encode())


def load(path: Path) -> Outcome:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"results must be a readable JSON file, got {path}: {error}") from None
    schema = document.pop("schema", None) if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema} in {path}")
    try:
        comparisons = {
            key: [Comparison(**{**c, "pairs": [tuple(p) for p in c["pairs"]]}) for c in document[key]]
            for key in ("first", "again", "controls")
        }
        sides = {key: Side(**document[key]) for key in ("base", "head")}
        return Outcome(**{**document, **comparisons, **sides, "machine": Machine(**document["machine"])})
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {error}") from None
