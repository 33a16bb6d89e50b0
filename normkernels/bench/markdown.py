"""Results as Markdown, and the part of a page that holds them."""

from collections.abc import Sequence
from pathlib import Path

from .cases import COLD
from .files import write
from .results import Results, Row
from .selection import LAYOUTS
from .summary import (
    Against,
    Means,
    against,
    busy,
    caption,
    duration,
    group_title,
    groups,
    libraries,
    means,
    preset_title,
    ratio_to,
    shown,
    times,
    winner,
)

RESULTS = "results"
DEFAULTS = (("layout", LAYOUTS[0]), ("condition", [COLD]), ("against", ["numpy"]), ("baseline", "numpy"))


def markers(block: str) -> tuple[str, str]:
    """What begins and ends a block of a page."""
    return f"<!-- normkernels:{block} -->", f"<!-- /normkernels:{block} -->"


START, END = markers(RESULTS)


class MarkersMissing(ValueError):
    """The page has no place for a block."""


def split(path: Path, block: str = RESULTS) -> tuple[str, str, str]:
    """The page before, in and after a block; raises MarkersMissing where it has no place for it."""
    text = path.read_text(encoding="utf-8")
    start, end = markers(block)
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise MarkersMissing(f"a page for {block} must hold {start} and {end} once, got {path}")
    first, last = text.index(start) + len(start), text.index(end)
    return text[:first], text[first:last], text[last:]


def update(path: Path, results: Results) -> None:
    """Put the results between the markers of a page."""
    if results.machine.device:
        from .device import page  # has the parts of tables from here

        insert(path, page.render(results))
    else:
        insert(path, render(results))


def insert(path: Path, content: str, block: str = RESULTS) -> None:
    """Put Markdown between the markers of a block of a page."""
    head, _, tail = split(path, block)
    write(path, f"{head}\n{content}\n{tail}".encode())


def render(results: Results) -> str:
    """The summary by preset, then every case, folded."""
    versions = ", ".join(f"{name} {v}" for name, v in results.machine.versions.items())
    return "\n\n".join(
        [
            *([f"**{warning[0].upper()}{warning[1:]}.**"] if (warning := busy(results)) else []),
            f"Measured with `{command(results)}` on {caption(results)}.",
            summary(results),
            f"<details>\n<summary>Every case ({versions})</summary>",
            *(f"**{title}**\n\n{_cases(results, rows)}" for title, rows in groups(results.rows, group_title)),
            *([f"Not enough memory for: {', '.join(results.skipped)}."] if results.skipped else []),
            *(["\n".join(f"- {note}" for note in results.notes)] if results.notes else []),
            "</details>",
        ]
    )


def command(results: Results) -> str:
    """The command line that was run, but for the files it wrote."""
    words = ["normkernels bench"]
    for name, value in results.options.items():
        if value is True:
            words.append(f"--{name}")
            continue
        values = list(value) if isinstance(value, (list, tuple)) else value
        if values and (name, values) not in DEFAULTS:
            values = values if isinstance(values, list) else [values]
            words += [f"--{name} {v}" for v in values]
    return " ".join(words)


def summary(results: Results) -> str:
    """A row for each preset: fractions of the copy and the ratio to the baseline, by pass."""
    beside, phases = against(results), _has_phases(results)
    columns = ["of copy, fresh", *(["of phases"] if phases else []), "of copy, into `out`"]
    columns += [f"vs {beside.title}"] if beside else []
    passes = list(dict.fromkeys(row.case.pass_ for row in results.rows))
    lines = [line(["norm", "preset", *(f"{p}: {column}" for p in passes for column in columns)])]
    lines.append(rule(2, len(passes) * len(columns)))
    for title, rows in groups(results.rows, _model):
        cells = [group_title(rows[0]).replace(f" {rows[0].case.pass_}", ""), title.split("/")[-1]]
        for pass_ in passes:
            own = [row for row in rows if row.case.pass_ == pass_]
            cells += _mean_cells(means(own, beside.ratio) if beside else means(own), phases, beside)
        lines.append(line(cells))
    return "\n".join(lines)


def _model(row: Row) -> str:
    case = row.case
    return f"{case.name}/{case.dtype}/{case.layout}/{case.condition}/{preset_title(row)}"


def _mean_cells(average: Means, phases: bool, beside: Against | None) -> list[str]:
    cells = [
        _number(average.fresh),
        *([_number(average.of_phases)] if phases else []),
        _number(average.into_out),
    ]
    return [*cells, times(average.ratio)] if beside else cells


def _has_phases(results: Results) -> bool:
    return any(row.phases for row in results.rows)


def _cases(results: Results, rows: list[Row]) -> str:
    phases, names = _has_phases(results), libraries(results)
    headings = ["time", "GB/s", "of copy, fresh", *(["of phases"] if phases else []), "of copy, into `out`"]
    headings += [f"vs {shown(name)}" for name in names]
    several = ["fastest"] if len(names) > 1 else []
    lines = [line(["preset", "shape", *headings, *several]), rule(2, len(headings) + len(several))]
    for row in rows:
        cells = [preset_title(row), row.case.size, duration(row.fresh.median), f"{row.fresh.gbs:.1f}"]
        cells.append(_number(row.fresh.fraction if row.cold else None))
        cells += [_number(row.of_phases)] if phases else []
        cells.append(_number(row.into_out.fraction if row.cold else None))
        cells += [times(ratio_to(row, name)) for name in names]
        lines.append(line([*cells, *([shown(winner(row))] if several else [])]))
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def line(cells: Sequence[str]) -> str:
    """A row of a table."""
    return f"| {' | '.join(cells)} |"


def rule(left: int, right: int) -> str:
    """The row below the headings: so many columns to the left, then so many to the right."""
    return line(["---"] * left + ["--:"] * right)
