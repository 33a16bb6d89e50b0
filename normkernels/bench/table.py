"""Results as tables for the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .results import Results, Row
from .summary import (
    BACKENDS,
    baseline_name,
    busy,
    caption,
    duration,
    group_title,
    groups,
    libraries,
    mean_ratio,
    means,
    preset_title,
    slowest,
    times,
)

STYLES = ((0.9, "green"), (0.75, ""), (0.5, "yellow"), (0.0, "red"))


def show(results: Results, console: Console) -> None:
    """Print one table for each norm and pass, and how to read it."""
    baseline = baseline_name(results)
    if warning := busy(results):
        console.print(
            f"{warning[0].upper()}{warning[1:]}.", style="bold yellow", soft_wrap=True, highlight=False
        )
    for title, rows in groups(results.rows, group_title):
        console.print(_table(title, rows, baseline))
    console.print(caption(results))
    if any(row.case.count > 1 for row in results.rows):
        console.print("× 6: a model has 6 such layers, and the mean counts them all.")
    console.print("p10–p90: tenth and ninetieth percentile of the time, in its unit.")
    console.print(
        "of copy: bytes that must move (2 tensors forward, 3 backward, and what is fused) per second, as a "
        "fraction of a large copy; ◀ is the lowest of a table. Tensors of 64 KB and less stay in cache and "
        "have none. into out: the same, into an array of the caller."
    )
    if baseline == "steps":
        console.print("vs steps: the norm's kernel alone, then sweeps as fast for residual and activation.")
    if baseline == "PyTorch":
        console.print("vs PyTorch: ratio of the fractions of copy, each library in its own process.")
    for name in libraries(results) if results.machine.device else []:
        _compare(results, name, console)
    for note in results.notes:
        console.print(note, style="yellow")
    for case in results.skipped:
        console.print(f"skipped, memory too small: {case}", style="yellow")


def _table(title: str, rows: list[Row], baseline: str | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("shape × layers", no_wrap=True)
    for heading in ("time", "p10–p90", "GB/s", "of copy", "into out"):
        table.add_column(heading, justify="right", no_wrap=True)
    if baseline:
        table.add_column(f"vs {baseline}", justify="right", no_wrap=True)
    mark = slowest(rows) if len(rows) > 1 else None
    for preset, members in groups(rows, preset_title):
        if members[0].case.batch is not None:
            table.add_row(Text(preset, "bold"))
        for row in members:
            table.add_row(*_cells(row, row is mark, baseline))
    if len(rows) > 1:
        average = means(rows)
        table.add_section()
        cells = [_fraction(average.fresh), _fraction(average.into_out)]
        ratio = [times(average.ratio)] if baseline else []
        table.add_row("geometric mean", "", "", "", *cells, *ratio)
    return table


def _compare(results: Results, name: str, console: Console) -> None:
    """One line: how many times faster than a library, pass by pass, and where it is slower."""
    passes = dict.fromkeys(row.case.pass_ for row in results.rows)
    means = [(p, mean_ratio([r for r in results.rows if r.case.pass_ == p], name)) for p in passes]
    both = [(row, each) for row in results.rows for each in row.baselines if each.name == name]
    slower = sum(row.ratio_to(each) < 1 for row, each in both)
    words = ", ".join(f"{pass_} {times(mean)}" for pass_, mean in means)
    console.print(f"vs {BACKENDS.get(name, name)}: {words}; slower in {slower} of {len(both)} cases")


def _cells(row: Row, marked: bool, baseline: str | None) -> list[Text | str]:
    case = row.case
    fresh = _fraction(row.fresh.fraction if row.cold else None)
    cells: list[Text | str] = [
        f"  {case.size}" + (f" × {case.count}" if case.count > 1 else ""),
        duration(row.fresh.median),
        f"{duration(row.fresh.p10, row.fresh.median)}–{duration(row.fresh.p90, row.fresh.median)}",
        f"{row.fresh.gbs:.1f}",
        Text.assemble(("◀ ", "bold red"), fresh) if marked else fresh,
        _fraction(row.into_out.fraction if row.cold else None),
    ]
    return [*cells, times(row.ratio)] if baseline else cells


def _fraction(value: float | None) -> Text:
    if value is None:
        return Text("–", "dim")
    return Text(f"{value:.2f}", next(style for bound, style in STYLES if value >= bound))
