"""What a run of the benchmark leaves behind, as values and as a JSON file."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_origin, get_type_hints

import numpy as np

from .cases import Case
from .files import write
from .machine import Device, Machine
from .revision import Revision

SCHEMA = 2
# Of all measured numbers.
MAY_BE_0 = "error", "others"

T = TypeVar("T")


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
    """GB/s of a large copy with plain and with streaming stores; medians.

    On a device `plain` is a kernel that copies, and `streaming` the driver's copy.
    """

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
    call: float | None = None
    """As that of a Row."""


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
    call: float | None = None
    """On a device, of a small case: seconds that one of many calls takes the host, with launching."""
    copy_alike: float | None = None
    """On a device: GB/s of a copy that moves as many bytes."""
    others: list[Baseline] = field(default_factory=list)
    """Further implementations."""

    @property
    def baselines(self) -> list[Baseline]:
        """All other implementations."""
        return [self.baseline, *self.others] if self.baseline else self.others

    @property
    def ratio(self) -> float | None:
        """How many times faster than the baseline; in another process, each relative to its own copy."""
        return self.ratio_to(self.baseline) if self.baseline else None

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
    others: float = 0.0
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


def case_from(fields: dict[str, Any]) -> Case:
    """A Case from what `as_json` made of it."""
    rest = {k: v for k, v in fields.items() if k not in ("pass", "shape")}
    shape = tuple(fields["shape"])
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise TypeError(f"shape must be positive sizes, got {fields['shape']!r}")
    return _made(Case, {**rest, "pass_": fields["pass"], "shape": shape})


def read(path: Path) -> Any:
    """What a JSON file holds; raises ResultsError where it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"results must be a readable JSON file, got {path}: {error}") from None


def load(path: Path) -> Results:
    """Read what `save` wrote; raises ResultsError where it is something else."""
    document = read(path)
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        old = isinstance(schema, int) and schema < SCHEMA
        advice = "; measure again: normkernels bench --json" if old else ""
        raise ResultsError(f"results must have schema {SCHEMA}, got {schema!r} in {path}{advice}")
    try:
        return _results(document)
    except KeyError as error:
        problem = f"{error.args[0]} is missing"
    except (AttributeError, TypeError, ValueError) as error:
        problem = str(error)
    raise ResultsError(f"results must have all fields of schema {SCHEMA}, got {path}: {problem}")


def _results(document: dict[str, Any]) -> Results:
    revision = document["revision"]
    device = document["machine"].get("device")
    machine = _made(Machine, {**document["machine"], "device": device and _made(Device, device)})
    datetime.fromisoformat(machine.date)
    return _made(
        Results,
        {
            "machine": machine,
            "options": document["options"],
            "copy": _made(CopySpeed, document["copy"]),
            "rows": [row_from(row) for row in document["rows"]],
            "skipped": document["skipped"],
            "revision": revision and _made(Revision, revision),
            "others": document["others"],
            "notes": document.get("notes", []),
        },
    )


def row_from(row: dict[str, Any]) -> Row:
    """A Row from what `as_json` made of it."""
    return _made(
        Row,
        {
            **row,
            "case": case_from(row["case"]),
            "fresh": _made(Timing, row["fresh"]),
            "into_out": _made(Timing, row["into_out"]),
            "copy": _made(CopySpeed, row["copy"]),
            "baseline": baseline_from(row["baseline"]),
            "others": [baseline_from(other) for other in row.get("others", [])],
        },
    )


def baseline_from(fields: dict[str, Any] | None) -> Baseline | None:
    """A Baseline from what `as_json` made of it."""
    if fields is None:
        return None
    fresh, copy = _made(Timing, fields["fresh"]), _made(CopySpeed, fields["copy"])
    return _made(Baseline, {**fields, "fresh": fresh, "copy": copy})


def _made(cls: type[T], fields: dict[str, Any]) -> T:
    """A dataclass from its fields; TypeError where one is missing or has another type."""
    hints = get_type_hints(cls)
    for name, value in fields.items():
        hint = hints.get(name, object)
        kind = hint if isinstance(hint, UnionType) else get_origin(hint) or hint
        if not isinstance(value, int | float if kind is float else kind):
            raise TypeError(f"{name} must be {getattr(kind, '__name__', kind)}, got {value!r:.40}")
        if kind is float and not (isfinite(value) and (value > 0 or name in MAY_BE_0)):
            raise ValueError(f"{name} must be positive, got {value}")
    return cls(**fields)
