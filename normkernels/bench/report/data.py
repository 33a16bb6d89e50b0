"""What the page and the pictures show: plain values, one entry for each measured case."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ..cases import DTYPES, Case
from ..markdown import command
from ..results import Results, Row
from ..summary import BACKENDS, caption, duration, preset_title, times

# name, title, how to read it
CHARTS = (
    (
        "speed",
        "Speed against the limit",
        "Bytes that must move per second, as a fraction of a large copy timed in turn with the case: 1.0 is "
        "the limit. Tensors that stay in cache are left out.",
    ),
    (
        "roofline",
        "Roofline",
        "A norm does so few operations per byte that memory is its roof at every size. So the axis is the "
        "bytes that must move, not operations per byte. The slope is the shortest call of these results, the "
        "flat part a large copy. Left of the dotted line a tensor may come from the last-level cache and "
        "pass the roof.",
    ),
    (
        "size",
        "Throughput against tensor size",
        "By the bytes of one tensor. A line goes through the geometric mean of each size, or of each "
        "doubling where sizes are many; dashed is the copy.",
    ),
    (
        "batch",
        "Throughput against batch",
        "The same layer at several batches, or numbers of rows; dashed is the copy.",
    ),
    (
        "history",
        "History",
        "Speed of each case as a multiple of its first results: higher is faster. It is the fraction of copy "
        "that is compared, so a faster memory is no faster code; for tensors in cache it is the time. The "
        "case that moved furthest is named.",
    ),
)


@dataclass(frozen=True)
class Run:
    """One results file."""

    label: str
    """The commit, short, with a star where the code differed, or the file's name."""
    day: str
    file: str
    date: str
    code: str
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
    """The baseline of an entry."""

    name: str
    gbs: float
    fraction: float
    ratio: float


@dataclass(frozen=True)
class Entry:
    """One measured case of one run."""

    run: int
    newest: bool
    """Whether no later run has this case, beside this baseline, on this machine."""
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
    """Length of the first axis: the batch."""
    layer: str
    """The shape of one sample."""
    bytes: int
    """that must move"""
    tensor: int | None
    """bytes; None where the dtype is not known here"""
    median: float
    time: str
    spread: str
    """p10–p90 in the unit of `time`."""
    jitter: float
    """p90 / p10"""
    gbs: float
    fraction: float | None
    """of copy; None for a tensor that stays in cache"""
    into_out: float | None
    other: Other | None
    tip: list[str]


@dataclass(frozen=True)
class Report:
    """Runs in order of their dates, and the entries of all."""

    title: str
    runs: list[Run]
    entries: list[Entry]


def report(title: str, files: Sequence[tuple[Path, Results]]) -> Report:
    """What a page says about results, each with the file it came from."""
    ordered = sorted(files, key=lambda pair: datetime.fromisoformat(pair[1].machine.date).astimezone())
    newest: dict[tuple[str, str | None], int] = {}
    for i, (_, results) in enumerate(ordered):
        newest |= {_key(results, row): i for row in results.rows}
    several = len({_machine(results) for _, results in ordered}) > 1
    entries = [
        _entry(i, newest[_key(results, row)] == i, several, results, row)
        for i, (_, results) in enumerate(ordered)
        for row in results.rows
    ]
    return Report(title, [_run(path, results) for path, results in ordered], entries)


def _key(results: Results, row: Row) -> tuple[str, str | None]:
    return _id(results, row), row.baseline.name if row.baseline else None


def _id(results: Results, row: Row) -> str:
    return f"{row.case.id} on {_machine(results)}"


def _machine(results: Results) -> str:
    return results.machine.title


def _run(path: Path, results: Results) -> Run:
    m, code = results.machine, results.revision
    moment = datetime.fromisoformat(m.date)
    label, known = path.stem, "not known: no git checkout"
    if code:
        label = code.commit[:7] + ("*" if code.dirty else "")
        branch = f" on {code.branch}" if code.branch else ""
        known = f"{code.commit[:7]}{branch}{', changed since' if code.dirty else ''}"
    return Run(
        label=label,
        day=f"{moment:%Y-%m-%d}",
        file=path.name,
        date=f"{moment:%Y-%m-%d %H:%M}",
        code=known,
        machine=_machine(results),
        caption=caption(results),
        command=command(results),
        versions=", ".join(f"{name} {v}" for name, v in m.versions.items()) + f", Python {m.python}, {m.os}",
        copy=results.copy.best,
        cache=m.cache_bytes,
        shortest=min((row.fresh.median for row in results.rows), default=1.0),
        cases=len(results.rows),
        skipped=results.skipped,
    )


def _entry(run: int, newest: bool, several: bool, results: Results, row: Row) -> Entry:
    case, fresh, machine = row.case, row.fresh, _machine(results)
    other = None
    if row.baseline and row.ratio:
        there = row.baseline.fresh
        name = BACKENDS.get(row.baseline.name, row.baseline.name)
        other = Other(name, there.gbs, there.fraction, row.ratio)
    spread = f"{duration(fresh.p10, fresh.median)}–{duration(fresh.p90, fresh.median)}"
    where = preset_title(row) + (f" × {case.count}" if case.count > 1 else "")
    return Entry(
        run=run,
        newest=newest,
        id=_id(results, row),
        norm=case.name,
        pass_=case.pass_,
        preset=where,
        shape=case.size if case.layout == "contiguous" else f"{case.size} {case.layout}",
        dtype=case.dtype,
        context=("" if case.dtype == "float32" else f", {case.dtype}") + (f", {machine}" if several else ""),
        rows=case.shape[0],
        layer=_layer(case),
        # not by the byte model: the file may know norms that this version does not
        bytes=round(fresh.gbs * fresh.median * 1e9),
        tensor=case.tensor_bytes if case.dtype in DTYPES else None,
        median=fresh.median,
        time=duration(fresh.median),
        spread=spread,
        jitter=fresh.p90 / fresh.p10,
        gbs=fresh.gbs,
        fraction=fresh.fraction if row.cold else None,
        into_out=row.into_out.fraction if row.cold else None,
        other=other,
        tip=[*_tip(row, where, spread, other), *([machine] if several else [])],
    )


def _layer(case: Case) -> str:
    layout = "" if case.layout == "contiguous" else f" {case.layout}"
    return "x".join(map(str, ("N", *case.shape[1:]))) + layout


def _tip(row: Row, preset: str, spread: str, other: Other | None) -> list[str]:
    """What a person wants to know of one case, in lines."""
    case, fresh = row.case, row.fresh
    layout = "" if case.layout == "contiguous" else f" {case.layout}"
    of_copy = f"{fresh.fraction:.2f} of copy, {row.into_out.fraction:.2f} into out="
    lines = [
        f"{case.name} {case.pass_}",
        ", ".join(dict.fromkeys([preset, case.size + layout, case.dtype])),
        f"{duration(fresh.median)} ({spread}), {fresh.gbs:.1f} GB/s",
        of_copy if row.cold else "stays in cache",
    ]
    ratios = [
        f"{times(row.ratio_to(each))} {BACKENDS.get(each.name, each.name)}" for each in row.baselines if other
    ]
    called = [f"{duration(row.call)} a call from the host"] if row.call else []
    return lines + ratios + called
