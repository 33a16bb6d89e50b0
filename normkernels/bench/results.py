"""What a run of the benchmark leaves behind, as values and as a JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case
from .files import write
from .machine import Machine, check_date
from .revision import Revision
from .schema import Count, Positive, ResultsError, Share, each_once, made, read

SCHEMA = 2


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, and the tenth and ninetieth percentile; and what they amount to.

    `fraction` is the median over the repetitions of the speed by that of the copy in the same repetition:
    a machine whose memory changes its speed meanwhile does not disturb it.
    """

    median: Positive
    p10: Positive
    p90: Positive
    gbs: Positive  # 1e9 bytes per second by the byte model
    fraction: Positive

    @classmethod
    def of(cls, seconds: list[float], nbytes: int, copy_gbs: Sequence[float]) -> "Timing":
        p10, median, p90 = (float(p) for p in np.percentile(seconds, (10, 50, 90)))
        gbs = nbytes / np.array(seconds) / 1e9
        return cls(median, p10, p90, nbytes / median / 1e9, float(np.median(gbs / copy_gbs)))


@dataclass(frozen=True)
class CopySpeed:
    """GB/s of a large copy with plain and with streaming stores; medians.

    On a device `plain` is a kernel that copies, and `streaming` the driver's copy.
    """

    plain: Positive
    streaming: Positive

    @property
    def best(self) -> float:
        return max(self.plain, self.streaming)

    @classmethod
    def of(cls, plain: Sequence[float], streaming: Sequence[float]) -> "CopySpeed":
        return cls(float(np.median(plain)), float(np.median(streaming)))


@dataclass(frozen=True)
class Baseline:
    """Another implementation of the same case, beside a copy of its own."""

    name: str
    fresh: Timing
    copy: CopySpeed
    call: Positive | None = None
    """As that of a Row."""


@dataclass(frozen=True)
class Row:
    """One measured case: into a fresh array, and into an array of the caller (`out=`)."""

    case: Case
    cold: bool
    repetitions: Count
    calls: Count  # per repetition
    error: Share
    fresh: Timing
    into_out: Timing
    copy: CopySpeed
    baseline: Baseline | None
    call: Positive | None = None
    """On a device, of a small case: seconds that one of many calls takes the host, with launching."""
    copy_alike: Positive | None = None
    """On a device: GB/s of a copy that moves as many bytes."""
    others: list[Baseline] = field(default_factory=list)
    """Further implementations."""
    phases: Timing | None = None
    """The second limit: the passes without arithmetic (bench/phases.py); None for tensors in cache."""

    @property
    def baselines(self) -> list[Baseline]:
        """All other implementations."""
        return [self.baseline, *self.others] if self.baseline else self.others

    @property
    def of_phases(self) -> float | None:
        """The speed as a fraction of that of the two phases, measured in turn with it."""
        return self.phases.median / self.fresh.median if self.phases else None

    def beside(self, found: Sequence[Baseline], first: str | None) -> "Row":
        """The row with other implementations; the one that is `first` in the run is the baseline."""
        is_first = bool(found) and found[0].name == first
        return replace(
            self, baseline=found[0] if is_first else None, others=list(found[1:] if is_first else found)
        )

    @property
    def fastest(self) -> str | None:
        """The name of the fastest of the other implementations."""
        best = min(self.baselines, key=self.ratio_to, default=None)
        return best.name if best else None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the baseline; in another process, each relative to its own copy."""
        return self.ratio_to(self.baseline) if self.baseline else None

    @property
    def ratio_to_fastest(self) -> float | None:
        """As `ratio`, to the fastest of the other implementations."""
        return min(map(self.ratio_to, self.baselines), default=None)

    def ratio_to(self, other: Baseline) -> float:
        """As `ratio`, to any of the other implementations."""
        if other.name in ("numpy", "steps"):
            return other.fresh.median / self.fresh.median
        return self.fresh.fraction / other.fresh.fraction


@dataclass(frozen=True)
class Results:
    """A whole run. `skipped` holds the ids of cases that did not fit into memory.

    `revision` is the code that was measured, None where it did not lie in a git checkout.
    """

    machine: Machine
    options: dict[str, Any]
    copy: CopySpeed
    rows: list[Row]
    skipped: list[str]
    revision: Revision | None = None
    others: Share = 0.0
    """The share of the processors' time that was stolen or used by other processes meanwhile."""
    notes: list[str] = field(default_factory=list)
    """What could not be measured, and why."""


def save(results: Results, path: Path) -> None:
    """Write the results as JSON; an interrupted write leaves the file as it was."""
    document = {"schema": SCHEMA, **as_json(results)}
    write(path, (json.dumps(document, indent=1) + "\n").encode())


def as_json(value: Any) -> dict[str, Any]:
    """A dataclass as JSON has it; `pass_` is spelled so only because Python keeps `pass` to itself."""
    return asdict(value, dict_factory=lambda items: {name.rstrip("_"): item for name, item in items})


def load(path: Path) -> Results:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    return results_from(read(path), path)


def results_from(document: Any, path: Path) -> Results:
    """Results from what JSON has of them; raises ResultsError."""
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        old = isinstance(schema, int) and schema < SCHEMA
        advice = "; measure again: normkernels bench --json" if old else ""
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema!r:.40} in {path}{advice}")
    try:
        results = made(Results, document)
        check_date(results.machine)
    except ResultsError as error:
        raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {error}") from None
    each_once((row.case.id for row in results.rows), path)
    return results
