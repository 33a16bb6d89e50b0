"""Results as a picture: how near every case comes to the limit."""

from io import BytesIO
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from .cases import COLD
from .files import write
from .results import Results, Row
from .summary import against, caption, groups, preset_title

COLOURS = {"forward": "#3b75af", "backward": "#e08a3c"}
LIMIT = "#c0392b"
PLACES = {"forward": -0.2, "backward": 0.2}


def plot(results: Results, path: Path) -> None:
    """Write a PNG with one axes per norm and one line per shape; cases that stay in cache are left out."""
    norms = groups([row for row in results.rows if row.cold], lambda row: row.case.name)
    lines = [len(groups(rows, _label)) for _, rows in norms] or [1]
    figure = Figure(figsize=(9, 1.6 + 0.5 * len(lines) + 0.3 * sum(lines)), layout="constrained")
    axes = figure.subplots(len(lines), 1, sharex=True, squeeze=False, height_ratios=lines)[:, 0]
    for ax, (norm, rows) in zip(axes, norms, strict=False):
        _draw(ax, norm, groups(rows, _label))
    limit = max([1.0, *(max(row.fresh.fraction, row.into_out.fraction) for _, rows in norms for row in rows)])
    axes[0].set_xlim(0, 1.05 * limit)
    axes[-1].set_xlabel("bytes that must move per second, as a fraction of a large copy")
    figure.suptitle(f"normkernels: how near to the limit\n{caption(results)}", fontsize=10)
    figure.legend(handles=_legend(results), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    picture = BytesIO()
    figure.savefig(picture, dpi=150, format="png")
    write(path, picture.getvalue())


def _draw(ax: Axes, norm: str, lines: list[tuple[str, list[Row]]]) -> None:
    for y, (_, rows) in enumerate(lines):
        for row in rows:
            place, colour = y + PLACES[row.case.pass_], COLOURS[row.case.pass_]
            ax.barh(place, row.fresh.fraction, height=0.36, color=colour)
            ax.plot(row.into_out.fraction, place, "o", ms=4.5, mfc="white", mec=colour, mew=1.3)
            if row.phases:
                ax.plot(row.phases.fraction, place, "|", ms=8, mew=1.5, color=LIMIT)
            if row.baselines:
                fastest = max(each.fresh.fraction for each in row.baselines)
                ax.plot(fastest, place, "|", ms=8, mew=2, color="black")
    ax.axvline(1.0, color="black", lw=1, ls="--")
    ax.set_yticks(range(len(lines)), [label for label, _ in lines], fontsize=8)
    ax.set_ylim(len(lines) - 0.4, -0.6)
    ax.set_title(norm, loc="left", fontsize=10, fontweight="bold")
    ax.grid(axis="x", color="0.9")
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _legend(results: Results) -> list[Patch | Line2D]:
    passes = dict.fromkeys(row.case.pass_ for row in results.rows)
    handles: list[Patch | Line2D] = [
        Patch(color=COLOURS[name], label=f"{name}, fresh array") for name in COLOURS if name in passes
    ]
    handles.append(Line2D([], [], marker="o", ls="", mfc="white", mec="0.3", label="into out="))
    if any(row.phases for row in results.rows):
        handles.append(Line2D([], [], marker="|", ls="", ms=8, mew=1.5, color=LIMIT, label="two phases"))
    if other := against(results):
        handles.append(Line2D([], [], marker="|", ls="", ms=8, mew=2, color="black", label=other.title))
    handles.append(Line2D([], [], color="black", lw=1, ls="--", label="large copy"))
    return handles


def _label(row: Row) -> str:
    case = row.case
    usual = ("float32", "contiguous", COLD)
    extras = [part for part in (case.dtype, case.layout, case.condition) if part not in usual]
    return "  ".join([preset_title(row).split(",")[0], case.size, *extras])
