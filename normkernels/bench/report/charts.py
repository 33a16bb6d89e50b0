"""The charts of the page as pictures, without what needs a pointer."""

from collections.abc import Callable, Iterable
from io import BytesIO
from math import log2
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FormatStrFormatter, NullLocator

from ..files import write
from ..plot import COLOURS, LIMIT, PLACES
from .data import CHARTS, Report
from .entries import Entry

SHAPES = {"forward": "o", "backward": "D"}
LINES = {
    "normkernels": "#0f766e",
    "head": "#0f766e",
    "NumPy": "#7b848c",
    "PyTorch": "#a8388f",
    "steps": "#8a6a10",
    "two phases": LIMIT,
}
OTHER = "#7b848c"
COLUMNS, MOST_ROWS = 3, 6  # of panels
MOST_SIZES = 8  # a line through more takes the mean of each doubling

# From the entries that are newest, or for a history all, to a figure; None where there is nothing to draw.
Chart = Callable[[Report], Figure | None]
Panel = tuple[str, list[Entry]]


def draw(report: Report, folder: Path) -> list[Path]:
    """Write NAME.png and NAME.svg of every chart that has something to show; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    # a name with a dollar sign is no formula
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 9, "svg.hashsalt": "normkernels"}):
        for name, title, _ in CHARTS:
            figure = DRAWN[name](report)
            if figure is None:
                continue
            figure.suptitle(f"{report.title}: {title}\n{report.runs[-1].caption}", fontsize=10)
            for kind, metadata in (("png", {}), ("svg", {"Date": None})):
                picture = BytesIO()
                figure.savefig(picture, dpi=150, format=kind, metadata=metadata)
                written.append(folder / f"{name}.{kind}")
                write(written[-1], picture.getvalue())
    return written


def _speed(report: Report) -> Figure | None:
    cold = [entry for entry in _newest(report) if entry.fraction is not None]
    if not cold:
        return None
    norms = list(dict.fromkeys(entry.norm for entry in cold))
    figure = Figure(figsize=(9, 1.6 + 0.5 * len(norms)), layout="constrained")
    ax = figure.subplots()

    def lane(entry: Entry) -> float:
        return norms.index(entry.norm) + PLACES.get(entry.pass_, 0.0)

    named = dict.fromkeys(entry.other.name for entry in cold if entry.other)
    for name in named:
        points = [(e.other.fraction or 0.0, lane(e)) for e in cold if e.other and e.other.name == name]
        ax.plot(*zip(*points, strict=True), "|", ms=8, mew=1.5, color=LINES.get(name, OTHER), label=name)
    if limits := [(e.limit.fraction, lane(e)) for e in cold if e.limit]:
        ax.plot(*zip(*limits, strict=True), "|", ms=8, mew=1.5, color=LIMIT, label="two phases")
    _scatter(ax, cold, [(float(e.fraction or 0), lane(e)) for e in cold])
    ax.axvline(1.0, color="black", lw=1, ls="--")
    ax.set(xlim=(0, None), ylim=(len(norms) - 0.5, -0.5), xlabel="fraction of a large copy")
    ax.set_yticks(range(len(norms)), norms)
    _tidy(ax, "x")
    figure.legend(loc="outside lower center", ncols=3 + len(named), frameon=False)
    return figure


def _roofline(report: Report) -> Figure | None:
    newest = _fast(report)
    if not newest:
        return None
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    _scatter(ax, newest, [(e.bytes or 1, e.gbs or 0.0) for e in newest])
    ax.set(xscale="log", yscale="log", xlabel="bytes that must move", ylabel="GB/s")
    bottom = ax.get_ylim()[0]
    runs = [run for i, run in enumerate(report.runs) if i in {entry.run for entry in newest}]
    for machine in dict.fromkeys(run.machine for run in runs):
        own = [run for run in runs if run.machine == machine]
        copy, shortest = max(run.copy for run in own), min(run.shortest for run in own)
        most = 2 * max(own[-1].cache, *(entry.bytes or 1 for entry in newest))
        start, knee = bottom * 1e9 * shortest, copy * 1e9 * shortest
        ax.plot([start, knee, most], [bottom, copy, copy], color="black", lw=1)
        ax.text(most, copy * 1.05, f"large copy, {copy:.1f} GB/s", ha="right", va="bottom")
        ax.axvline(own[-1].cache, color="0.5", ls=":", lw=1)
        ax.text(own[-1].cache, bottom, "last-level cache ", ha="right", va="bottom", color="0.3")
    ax.xaxis.set_major_formatter(EngFormatter("B"))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    _tidy(ax, "both")
    ax.legend(loc="upper left", frameon=False)
    return figure


def _size(report: Report) -> Figure | None:
    known = [entry for entry in _fast(report) if entry.tensor]
    groups = _several(known, lambda e: f"{_title(e)}{e.context}", lambda e: e.tensor)
    return _throughput(report, groups, lambda e: e.tensor or 1, EngFormatter("B", places=1))


def _batch(report: Report) -> Figure | None:
    groups = _several(_fast(report), lambda e: f"{_title(e)}, {e.layer}{e.context}", lambda e: e.rows)
    return _throughput(report, groups, lambda e: e.rows, str)


def _throughput(
    report: Report, groups: list[Panel], at: Callable[[Entry], int], label: Callable[[int], str]
) -> Figure | None:
    if not groups:
        return None
    figure, panels = _panels(groups)
    for ax, (title, own) in zip(panels, groups, strict=False):
        sizes = sorted(set(map(at, own)))
        many = len(sizes) > MOST_SIZES
        points = [(report.runs[e.run].own, at(e), e.gbs or 0.0) for e in own]
        points += [(o.name, at(e), o.gbs or 0.0) for e in own for o in (e.other, e.limit) if o]
        for name in dict.fromkeys(name for name, _, _ in points):
            same = [(size, gbs) for backend, size, gbs in points if backend == name]
            bins: dict[int, list[tuple[int, float]]] = {}
            for size, gbs in same:
                bins.setdefault(round(log2(size)) if many else size, []).append((size, gbs))
            line = sorted(tuple(np.exp(np.log(near).mean(0))) for near in bins.values())
            ax.plot(*zip(*same, strict=True), "o", ms=3, alpha=0.5, color=LINES.get(name, OTHER))
            ax.plot(*zip(*line, strict=True), color=LINES.get(name, OTHER), label=name)
        ax.axhline(max(report.runs[e.run].copy for e in own), color="black", lw=1, ls="--")
        ax.set_xscale("log")
        middle = min(sizes, key=lambda size: abs(log2(size * size / sizes[0] / sizes[-1])))
        shown = sorted({sizes[0], middle, sizes[-1]})
        ax.set_xticks(shown, [label(size) for size in shown])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
        ax.set_ylim(0, None)
        _tidy(ax, "y")
    for ax in panels[::COLUMNS]:
        ax.set_ylabel("GB/s")
    named = [ax.get_legend_handles_labels() for ax in panels]
    lines = {name: line for each in named for line, name in zip(*each, strict=True)}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _history(report: Report) -> Figure | None:
    lines = [line for _, line in _several(report.entries, lambda e: e.id, lambda e: e.run)]
    groups: dict[str, list[list[Entry]]] = {}
    for line in lines:
        groups.setdefault(f"{_title(line[0])}{line[0].context}", []).append(line)
    if not groups:
        return None
    used = sorted({entry.run for line in lines for entry in line})
    names = [f"{report.runs[i].label}\n{report.runs[i].day}" for i in used]
    figure, panels = _panels(groups)
    for ax, (title, own) in zip(panels, groups.items(), strict=False):
        for line in own:
            x, y = [used.index(entry.run) for entry in line], [_relative(entry, line[0]) for entry in line]
            ax.plot(x, y, "o-", ms=3, lw=1, alpha=0.7, color=COLOURS.get(line[0].pass_, OTHER))
        ax.axhline(1.0, color="black", lw=1, ls="--")
        ax.set_yscale("log")
        ax.set_ylim(*_around_one(ax.get_ylim()))
        ax.yaxis.set_major_locator(FixedLocator([0.25, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 4]))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
        shown = sorted({0, len(used) // 2, len(used) - 1})
        ax.set_xticks(shown, [names[i] for i in shown], fontsize=7)
        ax.set_title(title, loc="left", fontsize=9, fontweight="bold")
        _tidy(ax, "y")
    figure.supylabel("speed, times the first", fontsize=9)
    return figure


def _newest(report: Report) -> list[Entry]:
    return [entry for entry in report.entries if entry.newest]


def _title(entry: Entry) -> str:
    return f"{entry.norm} {entry.pass_}".strip()


def _fast(report: Report) -> list[Entry]:
    """Those of the newest whose bytes are known."""
    return [entry for entry in _newest(report) if entry.gbs is not None]


def _several(
    entries: Iterable[Entry], key: Callable[[Entry], str], at: Callable[[Entry], int | None]
) -> list[Panel]:
    """Groups with two sizes or more, those with most of them first."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(key(entry), []).append(entry)
    several = [(name, own) for name, own in groups.items() if len(set(map(at, own))) > 1]
    return sorted(several, key=lambda group: -len(set(map(at, group[1]))))


def _relative(entry: Entry, first: Entry) -> float:
    """The speed as a multiple of that of the first."""
    if entry.fraction and first.fraction:
        return entry.fraction / first.fraction
    return first.median / entry.median


def _around_one(limits: tuple[float, float]) -> tuple[float, float]:
    span = max(1.25, limits[1], 1 / limits[0])
    return 1 / span, span


def _scatter(ax: Axes, entries: list[Entry], points: list[tuple[float, float]]) -> None:
    for name in dict.fromkeys(entry.pass_ for entry in entries):
        same = [point for entry, point in zip(entries, points, strict=True) if entry.pass_ == name]
        colour, shape = COLOURS.get(name, OTHER), SHAPES.get(name, "o")
        x, y = zip(*same, strict=True)
        ax.plot(x, y, shape, ms=5, color=colour, mec="white", mew=0.6, label=name or "call")


def _panels(groups: Iterable[object]) -> tuple[Figure, list[Axes]]:
    count = min(len(list(groups)), COLUMNS * MOST_ROWS)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(max(5, 3.2 * columns), 0.8 + 1.9 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in panels[count:]:
        ax.set_axis_off()
    return figure, panels


def _tidy(ax: Axes, grid: str) -> None:
    ax.grid(axis=grid, color="0.9")  # type: ignore[arg-type]
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


DRAWN: dict[str, Chart] = {
    "speed": _speed,
    "roofline": _roofline,
    "size": _size,
    "batch": _batch,
    "history": _history,
}
