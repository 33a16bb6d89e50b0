"""Stored results of either kind: of `bench --json`, and of `ab --json`."""

from pathlib import Path

from .ab import outcome
from .ab.outcome import Outcome
from .results import Results, results_from
from .schema import read


def load(path: Path) -> Results | Outcome:
    """Read a file; raises ResultsError where it is of neither kind."""
    document = read(path)
    if isinstance(document, dict) and document.get("schema") == outcome.SCHEMA:
        return outcome.outcome_from(document, path)
    return results_from(document, path)
