"""What a run has found, and its file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import numpy as np

from .. import files
from ..ab.verdict import Pair, interval
from ..machine import Machine
from .cases import Case

SCHEMA = "normkernels models 1"


@dataclass(frozen=True)
class Ratio:
    """How many times faster: the median over pairs of before by after, and its 99 % interval."""

    middle: float
    low: float
    high: float


def ratio(pairs: Sequence[Pair]) -> Ratio:
    logs = np.log([before / after for before, after in pairs])
    return Ratio(*(float(np.exp(log)) for log in (np.median(logs), *interval(logs))))


@dataclass(frozen=True)
class Errors:
    """The largest ones, before and after, from float64; inference has no gradients."""

    output: tuple[float, float]
    gradients: tuple[float, float] | None = None


@dataclass(frozen=True)
class Row:
    """A case: seconds of a step before and after, in pairs."""

    case: Case
    steps: list[Pair]
    norms: list[Pair]
    """Of all norms of a step alone; none where they are compiled into something else."""
    norm_calls: int
    errors: Errors
    peaks: tuple[int, int]
    """Bytes of a process, before and after."""

    @cached_property
    def ratio(self) -> Ratio:
        return ratio(self.steps)

    @cached_property
    def norms_ratio(self) -> Ratio | None:
        return ratio(self.norms) if self.norms else None

    def seconds(self, variant: int) -> float:
        return median(pair[variant] for pair in self.steps)

    def share(self, variant: int) -> float | None:
        """Of a step, the part that its norms take."""
        return median(p[variant] for p in self.norms) / self.seconds(variant) if self.norms else None


@dataclass(frozen=True)
class Results:
    """A run."""

    command: str
    machine: Machine
    others: float
    """What part of the processors' time other processes used meanwhile."""
    rows: list[Row]


def save(results: Results, path: Path) -> None:
    """As JSON."""
    text = json.dumps({"schema": SCHEMA, **asdict(results)}, indent=1)
    files.write(path, f"{text}\n".encode())
