"""What the page shows of results of any kind: runs, and an entry for each measured case."""

from dataclasses import dataclass
from datetime import datetime

from ..machine import Machine
from ..summary import duration


@dataclass(frozen=True)
class Run:
    """One results file, or one arm of the gate's."""

    own: str
    """Whose times these are, beside those of baselines."""
    label: str
    """The commit, short, with a star where the code differed, or the file's name."""
    day: str
    file: str
    date: str
    code: str
    link: str | None
    """The page of the commit."""
    machine: str
    caption: str
    command: str
    versions: str
    copy: float
    """GB/s"""
    cache: int
    """bytes of the last level"""
    shortest: float
    """seconds of the shortest call"""
    cases: int
    skipped: list[str]


@dataclass(frozen=True)
class Other:
    """The baseline of an entry, or its limit."""

    name: str
    gbs: float | None
    fraction: float | None
    ratio: float


@dataclass(frozen=True)
class Entry:
    """One measured case of one run; what its results do not say is None, or "" of text."""

    id: str
    """What is the same in every run that measured it: case and machine."""
    norm: str
    pass_: str
    preset: str
    shape: str
    dtype: str
    context: str
    """What else tells its line from others: a dtype that is not float32, and one of several machines."""
    rows: int
    """Length of the first axis: the batch. 1 where the shape is not known."""
    layer: str
    """The shape of one sample."""
    bytes: int | None
    """that must move"""
    tensor: int | None
    """bytes; None where the dtype is not known here"""
    median: float
    p10: float
    p90: float
    time: str
    spread: str
    """p10–p90 in the unit of `time`."""
    gbs: float | None
    fraction: float | None
    """of copy; None for a tensor that stays in cache"""
    into_out: float | None
    other: Other | None
    tip: list[str]
    run: int = 0
    newest: bool = True
    """Whether no later run has this case, beside this baseline, on this machine."""
    limit: Other | None = None
    """The passes without arithmetic; its ratio is the speed as a fraction of this limit."""


@dataclass(frozen=True)
class Part:
    """A run and its entries, each with the name of what it is compared with."""

    moment: datetime
    run: Run
    entries: list[tuple[str | None, Entry]]


def moment_of(date: str) -> datetime:
    """A date with its zone, that of this machine if it names none."""
    return datetime.fromisoformat(date).astimezone()


def span(low: float, high: float, median: float) -> str:
    """From low to high, in the unit of the median."""
    return f"{duration(low, median)}–{duration(high, median)}"


def software(machine: Machine) -> str:
    """Versions of all that was measured with, in one line."""
    versions = ", ".join(f"{name} {v}" for name, v in machine.versions.items())
    return f"{versions}, Python {machine.python}, {machine.os}"
