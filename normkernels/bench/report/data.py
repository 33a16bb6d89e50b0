"""What the page and the pictures show: plain values, one entry for each measured case."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from ..ab.outcome import Outcome
from ..cases import COLD, DTYPES, Case
from ..markdown import command
from ..results import Results, Row
from ..revision import commit_page
from ..summary import caption, duration, preset_title, shown, times
from .entries import Entry, Other, Part, Run, moment_of, software, span
from .gate import parts

# name, title, how to read it
CHARTS = (
    (
        "speed",
        "Speed against the limit",
        "Bytes that must move per second, as a fraction of a large copy timed in turn with the case: 1.0 is "
        "the limit. The red stroke is a second one, two phases: what the passes take without arithmetic. "
        "Tensors that stay in cache are left out.",
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
        "case that moved furthest is named. A point opens the page of its commit, if the repository has one.",
    ),
)


@dataclass(frozen=True)
class Report:
    """Runs in order of their dates, and the entries of all."""

    title: str
    runs: list[Run]
    entries: list[Entry]
    noun: str
    """What the first part of a case's name is."""


def report(title: str, files: Sequence[tuple[Path, Results | Outcome]]) -> Report:
    """What a page says about results, each with the file it came from."""
    found = [
        part
        for path, stored in files
        for part in (parts(path, stored) if isinstance(stored, Outcome) else [_part(path, stored)])
    ]
    ordered = sorted(found, key=lambda part: part.moment)
    newest = {(e.id, beside): i for i, part in enumerate(ordered) for beside, e in part.entries}
    several = len({part.run.machine for part in ordered}) > 1
    entries = [
        replace(
            entry,
            run=i,
            newest=newest[entry.id, beside] == i,
            context=entry.context + (f", {part.run.machine}" if several else ""),
            tip=entry.tip + ([part.run.machine] if several else []),
        )
        for i, part in enumerate(ordered)
        for beside, entry in part.entries
    ]
    noun = "function" if any(isinstance(stored, Outcome) for _, stored in files) else "norm"
    return Report(title, [part.run for part in ordered], entries, noun)


def _part(path: Path, results: Results) -> Part:
    entries = [(row.baseline.name if row.baseline else None, _entry(results, row)) for row in results.rows]
    return Part(moment_of(results.machine.date), _run(path, results), entries)


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
        own="normkernels",
        label=label,
        day=f"{moment:%Y-%m-%d}",
        file=path.name,
        date=f"{moment:%Y-%m-%d %H:%M}",
        code=known,
        link=commit_page(code.url, code.commit) if code else None,
        machine=_machine(results),
        caption=caption(results),
        command=command(results),
        versions=software(m),
        copy=results.copy.best,
        cache=m.cache_bytes,
        shortest=min((row.fresh.median for row in results.rows), default=1.0),
        cases=len(results.rows),
        skipped=results.skipped,
    )


def _entry(results: Results, row: Row) -> Entry:
    case, fresh = row.case, row.fresh
    other = None
    if row.baseline and row.ratio:
        there = row.baseline.fresh
        other = Other(shown(row.baseline.name), there.gbs, there.fraction, row.ratio)
    spread = span(fresh.p10, fresh.p90, fresh.median)
    where = preset_title(row) + (f" × {case.count}" if case.count > 1 else "")
    return Entry(
        id=_id(results, row),
        norm=case.name,
        pass_=case.pass_,
        preset=where,
        shape=_shape(case),
        dtype=case.dtype,
        context="".join(
            f", {part}" for part in (case.dtype, case.condition) if part not in ("float32", COLD)
        ),
        rows=case.shape[0],
        layer=_layer(case),
        # not by the byte model: the file may know norms that this version does not
        bytes=round(fresh.gbs * fresh.median * 1e9),
        tensor=case.tensor_bytes if case.dtype in DTYPES else None,
        median=fresh.median,
        p10=fresh.p10,
        p90=fresh.p90,
        time=duration(fresh.median),
        spread=spread,
        gbs=fresh.gbs,
        fraction=fresh.fraction if row.cold else None,
        into_out=row.into_out.fraction if row.cold else None,
        other=other,
        tip=_tip(row, where, spread, other),
        limit=_limit(row),
    )


def _limit(row: Row) -> Other | None:
    there = row.phases
    return Other("two phases", there.gbs, there.fraction, row.of_phases or 0.0) if there else None


def _shape(case: Case) -> str:
    usual = ("contiguous", COLD)
    return " ".join([case.size, *(part for part in (case.layout, case.condition) if part not in usual)])


def _layer(case: Case) -> str:
    layout = "" if case.layout == "contiguous" else f" {case.layout}"
    return "x".join(map(str, ("N", *case.shape[1:]))) + layout


def _tip(row: Row, preset: str, spread: str, other: Other | None) -> list[str]:
    """What a person wants to know of one case, in lines."""
    case, fresh = row.case, row.fresh
    of_copy = f"{fresh.fraction:.2f} of copy, {row.into_out.fraction:.2f} into out="
    lines = [
        f"{case.name} {case.pass_}",
        ", ".join(dict.fromkeys([preset, _shape(case), case.dtype])),
        f"{duration(fresh.median)} ({spread}), {fresh.gbs:.1f} GB/s",
        of_copy if row.cold else "stays in cache",
        *([f"{row.of_phases:.2f} of two phases"] if row.of_phases else []),
    ]
    ratios = [f"{times(row.ratio_to(each))} {shown(each.name)}" for each in row.baselines if other]
    called = [f"{duration(row.call)} a call from the host"] if row.call else []
    return lines + ratios + called
