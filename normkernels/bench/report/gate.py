"""A run of the gate on the page: its two commits as two runs, of whatever package's cases."""

import re
from datetime import datetime
from pathlib import Path

import numpy as np

from ..ab.outcome import Outcome, Side
from ..ab.outcome import parts as words
from ..ab.verdict import Comparison
from ..ab.worker import COPY, COPY_BYTES
from ..revision import commit_page
from ..summary import duration, times
from .entries import Entry, Other, Part, Run, moment_of, software, span

BASE, HEAD = "base", "head"
SHAPE = re.compile(r"([1-9]\d{0,14})((?:x\d{1,15})+)")


def parts(path: Path, outcome: Outcome) -> list[Part]:
    """Base, then head. Head's entries are compared with base, by the ratio that the gate found."""
    moment = moment_of(outcome.machine.date)
    sides = (outcome.base,) if outcome.plan.aa else (outcome.base, outcome.head)
    return [
        Part(moment, _run(path, outcome, i, side), [(BASE, _entry(outcome, c, i)) for c in outcome.first])
        for i, side in enumerate(sides)
    ]


def _run(path: Path, outcome: Outcome, i: int, side: Side) -> Run:
    m, name, copy = outcome.machine, (BASE, HEAD)[i], _copy(outcome, i)
    moment = datetime.fromisoformat(m.date)
    return Run(
        own=name,
        label=side.commit[:7],
        day=f"{moment:%Y-%m-%d}",
        file=f"{path.name}, {name}",
        date=f"{moment:%Y-%m-%d %H:%M}",
        code=f"{side.commit[:7]}, {side.ref}",
        link=commit_page(outcome.url, side.commit),
        machine=m.title,
        caption=(
            f"{m.title}, {m.memory_bytes / 2**30:.0f} GB; a large copy on one thread: {copy:.1f} GB/s; "
            f"{outcome.plan.pairs} pairs of processes; {m.date[:10]}"
        ),
        command=outcome.command,
        versions=software(m),
        copy=copy,
        cache=m.cache_bytes,
        shortest=min((_times(c, i)[1] for c in outcome.first), default=1.0),
        cases=len(outcome.first),
        skipped=[],
    )


def _copy(outcome: Outcome, i: int) -> float:
    """GB/s of the copy in one arm."""
    found = [_times(c, i)[1] for c in outcome.controls if c.name == COPY]
    return COPY_BYTES / found[0] / 1e9 if found else 1.0


def _times(comparison: Comparison, i: int) -> tuple[float, float, float]:
    """Tenth percentile, median and ninetieth over the processes of one arm."""
    p10, median, p90 = np.percentile([pair[i] for pair in comparison.pairs], (10, 50, 90))
    return float(p10), float(median), float(p90)


def _entry(outcome: Outcome, comparison: Comparison, i: int) -> Entry:
    function, pass_, shape = words(comparison.name)
    p10, median, p90 = _times(comparison, i)
    nbytes = outcome.bytes.get(comparison.name)
    cold = nbytes is not None and nbytes > outcome.machine.cache_bytes
    speeds = [nbytes / _times(comparison, arm)[1] / 1e9 if nbytes else None for arm in (0, 1)]
    fractions = [gbs / _copy(outcome, arm) if gbs and cold else None for arm, gbs in enumerate(speeds)]
    other = Other(BASE, speeds[0], fractions[0], 1 / comparison.ratio) if i else None
    sizes = SHAPE.fullmatch(shape)
    spread, gbs = span(p10, p90, median), speeds[i]
    return Entry(
        id=f"{comparison.name} on {outcome.machine.title}",
        norm=function,
        pass_=pass_,
        preset="",
        shape=shape,
        dtype="",
        context="",
        rows=int(sizes[1]) if sizes else 1,
        layer=f"N{sizes[2]}" if sizes else shape,
        bytes=nbytes,
        tensor=None,
        median=median,
        p10=p10,
        p90=p90,
        time=duration(median),
        spread=spread,
        gbs=gbs,
        fraction=fractions[i],
        into_out=None,
        other=other,
        tip=[
            comparison.name,
            f"{duration(median)} ({spread})" + (f", {gbs:.1f} GB/s" if gbs else ""),
            *([f"{times(other.ratio)} base, {comparison.change:+.1%} of its time"] if other else []),
        ],
    )
