"""Results of a device as Markdown: forward, backward, and what small calls cost the host."""

from collections.abc import Sequence

from ..markdown import command, line, rule
from ..results import Results, Row
from ..summary import (
    caption,
    duration,
    geometric_mean,
    libraries,
    mean_ratio,
    of_library,
    preset_title,
    ratio_to,
    shown,
    times,
)

READING = (
    "Kernel time by device events, data from memory; GB/s of the bytes that must move; of copy: as a "
    "fraction of a large copy within the device, beside it in the same process (and of a copy of as many "
    "bytes); the others: how many times faster than they are, each beside a copy of its own."
)
CALLS = "Seconds that a call takes a loop on the host, with launching: many calls, then one wait."


def render(results: Results) -> str:
    """Tables of the two passes, of small calls, and what was left out."""
    versions = ", ".join(f"{name} {v}" for name, v in results.machine.versions.items())
    parts = [f"Measured with `{command(results)}` on {caption(results)}; {versions}.", READING]
    for name in dict.fromkeys(row.case.pass_ for row in results.rows):
        rows = [row for row in results.rows if row.case.pass_ == name]
        parts += [f"**{name.capitalize()}**", _pass(results, rows)]
    if small := [row for row in results.rows if row.call]:
        parts += ["**Small calls**", CALLS, _calls(results, small)]
    if results.skipped:
        parts.append(f"Not enough memory for: {', '.join(results.skipped)}.")
    parts += ["\n".join(f"- {note}" for note in results.notes)] if results.notes else []
    return "\n\n".join(parts)


def _pass(results: Results, rows: Sequence[Row]) -> str:
    names = libraries(results)
    headings = ["time", "GB/s", "of copy", "of copy alike", *(f"vs {shown(name)}" for name in names)]
    lines = [line(["norm", "preset", "shape", *headings]), rule(3, len(headings))]
    for row in rows:
        case = row.case
        cells = [f"{case.name}, {case.dtype}", _preset(row), case.size, duration(row.fresh.median)]
        cells += [f"{row.fresh.gbs:.0f}", _fraction(row.fresh.fraction if row.cold else None)]
        cells.append(_fraction(row.fresh.gbs / row.copy_alike if row.copy_alike and row.cold else None))
        lines.append(line([*cells, *(times(ratio_to(row, name)) for name in names)]))
    cold = [row for row in rows if row.cold]
    of_copy = geometric_mean([(row.fresh.fraction, row.case.count) for row in cold])
    alike = geometric_mean([(r.fresh.gbs / r.copy_alike, r.case.count) for r in cold if r.copy_alike])
    means = [_fraction(of_copy), _fraction(alike), *(times(mean_ratio(rows, name)) for name in names)]
    return "\n".join([*lines, line(["geometric mean", "", "", "", "", *means])])


def _calls(results: Results, rows: Sequence[Row]) -> str:
    names = libraries(results)
    lines = [line(["norm", "shape", "normkernels", *map(shown, names)]), rule(2, 1 + len(names))]
    for row in rows:
        found = [of_library(row, name) for name in names]
        seconds = [row.call, *(each.call if each else None for each in found)]
        title = f"{row.case.name} {row.case.pass_}, {row.case.dtype}"
        lines.append(line([title, row.case.size, *(duration(s) if s else "–" for s in seconds)]))
    return "\n".join(lines)


def _preset(row: Row) -> str:
    return row.case.preset if row.case.batch is None else preset_title(row)


def _fraction(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
