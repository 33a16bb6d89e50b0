"""How far a run has come: a bar on a terminal, elsewhere some lines."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from time import perf_counter

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from .say import note

# A run that no terminal shows leaves at most so many lines about how far it has come.
LINES = 20


@contextmanager
def following(steps: int, left: bool = False) -> Iterator[Callable[[str], None]]:
    """Whom to tell of each step; `left`: steps take so long that a reader wants to know how much is left."""
    time = TimeRemainingColumn() if left else TimeElapsedColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), time)
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("starting", total=steps)
        done, begin = count(), perf_counter()

        def starting(what: str) -> None:
            n = next(done)
            progress.update(task, description=what, completed=n)
            if not errors.is_terminal and told(n, steps):
                rest = (perf_counter() - begin) / n * (steps - n) if n else 0.0
                more = f", about {rest / 60:.0f} min left" if left and rest >= 60 else ""
                note(f"measuring {what} ({n + 1} of {steps}{more})")

        yield starting


def told(n: int, steps: int) -> bool:
    """Whether a log has a line of step n: LINES of them, evenly."""
    return n * LINES // steps > (n - 1) * LINES // steps
