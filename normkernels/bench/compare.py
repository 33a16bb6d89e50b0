"""Stored results beside each other: which cases took longer, and which are in one of them only."""

from dataclasses import dataclass

from .ab.outcome import Outcome
from .machine import difference
from .results import Results
from .selection import BadOption
from .summary import busy


@dataclass(frozen=True)
class Change:
    """One case in two results."""

    name: str
    base: float
    """Median seconds per call, into a fresh array."""
    head: float

    @property
    def ratio(self) -> float:
        """Above 1 is slower."""
        return self.head / self.base


@dataclass(frozen=True)
class Compared:
    """The cases that both results have, the slowest change first, and the names of the others."""

    changes: list[Change]
    only_base: list[str]
    only_head: list[str]


def compare(base: Results | Outcome, head: Results | Outcome, any_machine: bool) -> Compared:
    """Compare case by case; raises BadOption."""
    if not any_machine and (found := difference(base.machine, head.machine)):
        name, a, b = found
        raise BadOption(
            f"results must come from one machine: {name} is {a} and {b}; --any-machine compares all the same"
        )
    before, after = seconds(base), seconds(head)
    changes = [Change(name, before[name], after[name]) for name in after if name in before]
    if not changes:
        raise BadOption("two results must have a case in common, got none")
    return Compared(
        sorted(changes, key=lambda change: -change.ratio),
        [name for name in before if name not in after],
        [name for name in after if name not in before],
    )


def seconds(results: Results | Outcome) -> dict[str, float]:
    """Median seconds per call by case; of a run of the gate those of its head."""
    if isinstance(results, Outcome):
        return {case.name: case.head for case in results.first}
    return {row.case.id: row.fresh.median for row in results.rows}


def warning(results: Results | Outcome) -> str:
    """What to know of the times before all else, an empty string for nothing."""
    if isinstance(results, Outcome):
        return results.headline if results.moved else ""
    return busy(results)
