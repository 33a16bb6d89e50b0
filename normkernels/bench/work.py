"""What a command has to do once its options are understood."""

from collections.abc import Callable
from dataclasses import dataclass

from .results import Results


def _nothing(outcome: Results) -> str:
    return ""


@dataclass(frozen=True)
class Work:
    """Measuring, and how far it has come."""

    steps: int
    do: Callable[[Callable[[str], None]], Results]
    """Told whom to tell of each step."""
    failed: Callable[[Results], str] = _nothing
    """What makes the exit code 1, although there are results; an empty string for nothing."""
