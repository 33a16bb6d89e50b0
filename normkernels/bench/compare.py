"""Stored results beside each other: which cases took longer."""

from dataclasses import dataclass

from .machine import difference
from .results import Results
from .selection import BadOption


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


def compare(base: Results, head: Results, any_machine: bool) -> list[Change]:
    """The cases that both results have, the slowest change first; raises BadOption."""
    if not any_machine and (found := difference(base.machine, head.machine)):
        name, a, b = found
        raise BadOption(
            f"results must come from one machine: {name} is {a} and {b}; --any-machine compares all the same"
        )
    before = {row.case.id: row.fresh.median for row in base.rows}
    changes = [
        Change(row.case.id, before[row.case.id], row.fresh.median)
        for row in head.rows
        if row.case.id in before
    ]
    if not changes:
        raise BadOption("two results must have a case in common, got none")
    return sorted(changes, key=lambda change: -change.ratio)
