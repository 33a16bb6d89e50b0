"""Ratios of speed, from JSON files of pytest-benchmark (benchmarks/pytest) or of the gate, as Markdown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import click

from . import markdown, outputs
from .ab import outcome
from .machine import Machine, difference
from .say import say, wrote
from .schema import LEAST, MOST, ResultsError, made, read
from .selection import BadOption
from .summary import duration, times

BLOCK = "ratios"
KEY, SCHEMA = "normkernels", 1


@dataclass(frozen=True)
class Measured:
    """One benchmark: the group, who computed it, and the median of its seconds."""

    norm: str
    pass_: str
    shape: str
    backend: str
    baseline: bool
    seconds: float

    @property
    def group(self) -> tuple[str, str, str]:
        return self.norm, self.pass_, self.shape


@dataclass(frozen=True)
class Run:
    """One file."""

    path: Path
    machine: Machine
    command: str
    measured: list[Measured]


def stamp(machine: Machine, command: str) -> dict[str, Any]:
    """What a file of the suite says of itself, under the key `KEY`."""
    return {"schema": SCHEMA, "machine": asdict(machine), "command": command}


def load(path: Path) -> Run:
    """Read a file of the suite; raises BadOption where it is something else."""
    rule = "FILE must be written by pytest benchmarks/pytest --benchmark-json, or ab --json"
    try:
        document = read(path)
        if isinstance(document, dict) and document.get("schema") == outcome.SCHEMA:
            return _of_gate(path, outcome.outcome_from(document, path))
    except ResultsError as error:
        raise BadOption(str(error)) from None
    ours = document.get(KEY) if isinstance(document, dict) else None
    schema = ours.get("schema") if isinstance(ours, dict) else None
    if ours is None or schema != SCHEMA:
        raise BadOption(f"{rule}, schema {SCHEMA}, got schema {schema} in {path}")
    try:
        measured = [_measured(benchmark) for benchmark in document["benchmarks"]]
        return Run(path, made(Machine, ours["machine"]), str(ours["command"]), measured)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadOption(f"{rule}, got {path} ({type(error).__name__}: {error})") from None


def _measured(benchmark: dict[str, Any]) -> Measured:
    about, seconds = benchmark["extra_info"], float(benchmark["stats"]["median"])
    if not LEAST < seconds < MOST:
        raise ValueError(f"a median of {seconds} s")
    for key in ("op", "pass", "shape", "dtype", "backend"):
        if not isinstance(about[key], str):
            raise TypeError(f"{key} must be text, got {about[key]!r:.40}")
    norm = f"{about['op']}, {about['dtype']}"
    return Measured(norm, about["pass"], about["shape"], about["backend"], about["baseline"] is True, seconds)


def _of_gate(path: Path, found: outcome.Outcome) -> Run:
    """The gate's base as the baseline, and head by the ratio that the gate found."""
    base, head = f"base {found.base.commit[:9]}", f"head {found.head.commit[:9]}"
    measured = []
    for case in found.first:
        norm, pass_, shape = (part.replace("|", "\\|") or "–" for part in outcome.parts(case.name))
        measured.append(Measured(norm, pass_, shape, base, True, case.base))
        measured.append(Measured(norm, pass_, shape, head, False, case.base * case.ratio))
    return Run(path, found.machine, found.command, measured)


def render(runs: Sequence[Run]) -> str:
    """A row for each group: the baseline's time, and how many times faster the others are."""
    _check_same_machine(runs)
    cells = _cells(runs)
    measured = list(cells.values())
    baselines = list(dict.fromkeys(m.backend for m in measured if m.baseline))
    if len(baselines) != 1:
        raise BadOption(f"FILE... must hold one baseline, got {' and '.join(baselines) or 'none'}")
    (baseline,) = baselines
    others = [name for name in dict.fromkeys(m.backend for m in measured) if name != baseline]
    lines = [caption(runs, baseline), "", *header(baseline, others)]
    for group in dict.fromkeys(m.group for m in measured):
        base = cells.get((group, baseline))
        if base is None:
            raise BadOption(f"FILE... must hold the baseline of every group, got none of {' '.join(group)}")
        row = [*group, duration(base.seconds)]
        for name in others:
            other = cells.get((group, name))
            row.append(times(base.seconds / other.seconds) if other else "–")
        lines.append(markdown.line(row))
    return "\n".join(lines)


def caption(runs: Sequence[Run], baseline: str) -> str:
    """Commands, machine, versions and day, and what the numbers are."""
    m = runs[0].machine
    commands = ", ".join(f"`{run.command}`" for run in runs)
    dates = " to ".join(dict.fromkeys(sorted(run.machine.date[:10] for run in runs)))
    packages = {name: v for run in runs for name, v in run.machine.versions.items()}
    versions = ", ".join(f"{name} {v}" for name, v in packages.items())
    return (
        f"Measured with {commands} on {m.cpu}, {m.threads} of {m.logical_cores} cores, "
        f"{m.memory_bytes / 2**30:.0f} GB; {versions}; {dates}. "
        f"{baseline}: median time of a call. The others: how many times faster than {baseline}."
    )


def header(baseline: str, others: Sequence[str]) -> list[str]:
    """The first two lines of the table."""
    return [
        markdown.line(["norm", "pass", "shape", baseline, *others]),
        markdown.rule(3, 1 + len(others)),
    ]


def _cells(runs: Sequence[Run]) -> dict[tuple[tuple[str, str, str], str], Measured]:
    """Every benchmark by group and backend."""
    found: dict[tuple[tuple[str, str, str], str], tuple[Path, Measured]] = {}
    for run in runs:
        for m in run.measured:
            earlier, _ = found.setdefault((m.group, m.backend), (run.path, m))
            if found[m.group, m.backend][1] is not m:
                what = f"{' '.join(m.group)} {m.backend}"
                raise BadOption(f"a benchmark must be in one FILE, got {what} in {earlier} and {run.path}")
    return {key: m for key, (_, m) in found.items()}


def _check_same_machine(runs: Sequence[Run]) -> None:
    for a, b in combinations(runs, 2):
        if found := difference(a.machine, b.machine):
            name, one, other = found
            what = f"{name} {one} in {a.path} and {other} in {b.path}"
            raise BadOption(f"FILE... must be of one machine, got {what}")
        for name in a.machine.versions.keys() & b.machine.versions.keys():
            one, other = (run.machine.versions[name] for run in (a, b))
            if one != other:
                what = f"{one} in {a.path} and {other} in {b.path}"
                raise BadOption(f"FILE... must be of one version of {name}, got {what}")


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option(
    outputs.MARKDOWN,
    "page",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Write the table into a page: all between {' and '.join(markdown.markers(BLOCK))} is replaced.",
)
def table(files: tuple[Path, ...], page: Path | None) -> None:
    """Speed ratios from files of `pytest benchmarks/pytest --benchmark-json FILE`, or of `ab --json FILE`.

    One file for each process: the ratios are to the baseline, whichever file it is in. The files must come
    from one machine.
    """
    if page:
        outputs.check({outputs.MARKDOWN: page}, BLOCK)
    text = render([load(file) for file in files])
    if page:
        markdown.insert(page, text, BLOCK)
        wrote(page)
    say(text)
