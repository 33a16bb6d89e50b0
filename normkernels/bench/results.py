"""What a run of the benchmark leaves behind, as values and as a JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .cases import Case
from .files import write
from .machine import Machine

SCHEMA = 1


class ResultsError(ValueError):
    """A file that is not a result of this benchmark."""


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, and the tenth and ninetieth percentile; and what they amount to.

    `fraction` is the median over the repetitions of the speed by that of the copy in the same repetition:
    a machine whose memory changes its speed meanwhile does not disturb it.
    """

    median: float
    p10: float
    p90: float
    gbs: float  # 1e9 bytes per second by the byte model
    fraction: float

    @classmethod
    def of(cls, seconds: list[float], nbytes: int, copy_gbs: Sequence[float]) -> "Timing":
        p10, median, p90 = (float(p) for p in np.percentile(seconds, (10, 50, 90)))
        gbs = nbytes / np.array(seconds) / 1e9
        return cls(median, p10, p90, nbytes / median / 1e9, float(np.median(gbs / copy_gbs)))


@dataclass(frozen=True)
class CopySpeed:
    """GB/s of a large copy with plain and with streaming stores; medians."""

    plain: float
    streaming: float

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


@dataclass(frozen=True)
class Row:
    """One measured case: into a fresh array, and into an array of the caller (`out=`)."""

    case: Case
    cold: bool
    repetitions: int
    calls: int  # per repetition
    error: float
    fresh: Timing
    into_out: Timing
    copy: CopySpeed
    baseline: Baseline | None

    @property
    def ratio(self) -> float | None:
        """How many times faster than the baseline; in another process, each relative to its own copy."""
        if self.baseline is None:
            return None
        if self.baseline.name in ("numpy", "steps"):
            return self.baseline.fresh.median / self.fresh.median
        return self.fresh.fraction / self.baseline.fresh.fraction


@dataclass(frozen=True)
class Results:
    """A whole run. `skipped` holds the ids of cases that did not fit into memory."""

    machine: Machine
    options: dict[str, Any]
    copy: CopySpeed
    rows: list[Row]
    skipped: list[str]


def save(results: Results, path: Path) -> None:
    """Write the results as JSON; an interrupted write leaves the file as it was."""
    document = {"schema": SCHEMA, **as_json(results)}
    write(path, (json.dumps(document, indent=1) + "\n").encode())


def as_json(value: Any) -> dict[str, Any]:
    """A dataclass as JSON has it; `pass_` is spelled so only because Python keeps `pass` to itself."""
    return asdict(value, dict_factory=lambda items: {name.rstrip("_"): item for name, item in items})


def case_from(fields: dict[str, Any]) -> Case:
    """A Case from what `as_json` made of it."""
    return Case(
        **{k: v for k, v in fields.items() if k not in ("pass", "shape")},
        pass_=fields["pass"],
        shape=tuple(fields["shape"]),
    )


def load(path: Path) -> Results:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"results must be a readable JSON file, got {path}: {error}") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema} in {path}")
    try:
        return Results(
            machine=Machine(**document["machine"]),
            options=document["options"],
            copy=CopySpeed(**document["copy"]),
            rows=[_row(row) for row in document["rows"]],
            skipped=document["skipped"],
        )
    except (KeyError, TypeError) as error:
        raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {error}") from None


def _row(row: dict[str, Any]) -> Row:
    return Row(
        **{
            **row,
            "case": case_from(row["case"]),
            "fresh": Timing(**row["fresh"]),
            "into_out": Timing(**row["into_out"]),
            "copy": CopySpeed(**row["copy"]),
            "baseline": baseline_from(row["baseline"]),
        }
    )


def baseline_from(fields: dict[str, Any] | None) -> Baseline | None:
    """A Baseline from what `as_json` made of it."""
    if fields is None:
        return None
    return Baseline(fields["name"], Timing(**fields["fresh"]), CopySpeed(**fields["copy"]))
