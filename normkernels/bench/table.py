"""Results as tables for the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .cases import PIPELINE
from .results import Results, Row
from .summary import (
    Against,
    against,
    busy,
    caption,
    duration,
    group_title,
    groups,
    libraries,
    mean_ratio,
    means,
    preset_title,
    ratio_to,
    shown,
    slowest,
    times,
    winner,
    wins,
)

STYLES = ((0.9, "green"), (0.75, ""), (0.5, "yellow"), (0.0, "red"))


def show(results: Results, console: Console) -> None:
    """Print one table for each norm and pass, and how to read it."""
    beside, several = against(results), [] if results.machine.device else libraries(results)
    if warning := busy(results):
        console.print(
            f"{warning[0].upper()}{warning[1:]}.", style="bold yellow", soft_wrap=True, highlight=False
        )
    for title, rows in groups(results.rows, group_title):
        console.print(_table(title, rows, beside))
        if len(several) > 1:
            console.print(_comparison(rows, several))
    console.print(caption(results))
    if any(row.case.count > 1 for row in results.rows):
        console.print("× 6: a model has 6 such layers, and the mean counts them all.")
    console.print("p10–p90: tenth and ninetieth percentile of the time, in its unit.")
    console.print(
        "of copy: bytes that must move (2 tensors forward, 3 backward, and what is fused) per second, as a "
        "fraction of a large copy; ◀ is the lowest of a table. Tensors of 64 KB and less stay in cache and "
        "have none. into out: the same, into an array of the caller."
    )
    if any(row.phases for row in results.rows):
        console.print(
            "of phases: the time of the passes without arithmetic (read a block, then write it from the "
            "cache; columns: read all, then write), as a fraction of the time."
        )
    if any(row.case.condition == PIPELINE for row in results.rows):
        console.print(
            "pipeline: between a layer that has just written what the norm reads and one that reads what it "
            "writes; the time is that of the three, less that of the two."
        )
    if beside and beside.title == "steps":
        console.print("vs steps: the norm's kernel alone, then sweeps as fast for residual and activation.")
    if any(each.name not in ("numpy", "steps") for row in results.rows for each in row.baselines):
        console.print("vs others: ratio of the fractions of copy, each library in its own process.")
    if results.machine.device or len(several) > 1:
        for name in libraries(results):
            _compare(results, name, console)
    if len(several) > 1:
        count = ", ".join(f"{shown(name)} {cases}" for name, cases in wins(results.rows))
        console.print(f"fastest, by cases: {count}")
    for note in results.notes:
        console.print(note, style="yellow")
    for case in results.skipped:
        console.print(f"skipped, memory too small: {case}", style="yellow")


def _table(title: str, rows: list[Row], beside: Against | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.pad_edge, table.collapse_padding = False, True
    table.add_column("shape × layers", no_wrap=True)
    for heading in ("time", "p10–p90", "GB/s", "of\ncopy", "of\nphases", "into\nout"):
        table.add_column(heading, justify="right", no_wrap=True)
    if beside:
        table.add_column(f"vs\n{beside.title}", justify="right", no_wrap=True)
    mark = slowest(rows) if len(rows) > 1 else None
    for preset, members in groups(rows, preset_title):
        if members[0].case.batch is not None:
            table.add_row(Text(preset, "bold"))
        for row in members:
            table.add_row(*_cells(row, row is mark, beside))
    if len(rows) > 1:
        average = means(rows, beside.ratio) if beside else means(rows)
        table.add_section()
        cells = [_fraction(average.fresh), _fraction(average.of_phases), _fraction(average.into_out)]
        ratio = [times(average.ratio)] if beside else []
        table.add_row("geometric mean", "", "", "", *cells, *ratio)
    return table


def _comparison(rows: list[Row], names: list[str]) -> Table:
    """How many times faster than each library, and who is fastest."""
    table = Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("times faster\nthan", no_wrap=True)
    for name in names:
        table.add_column(shown(name).replace(" ", "\n").replace(".", "\n."), justify="right", no_wrap=True)
    table.add_column("fastest")
    for row in rows:
        table.add_row(
            f"  {row.case.size}", *(times(ratio_to(row, name)) for name in names), shown(winner(row))
        )
    if len(rows) > 1:
        table.add_section()
        table.add_row("geometric mean", *(times(mean_ratio(rows, name)) for name in names), "")
    return table


def _compare(results: Results, name: str, console: Console) -> None:
    """One line: how many times faster than a library, pass by pass, and where it is slower."""
    passes = dict.fromkeys(row.case.pass_ for row in results.rows)
    means = [(p, mean_ratio([r for r in results.rows if r.case.pass_ == p], name)) for p in passes]
    both = [(row, each) for row in results.rows for each in row.baselines if each.name == name]
    slower = sum(row.ratio_to(each) < 1 for row, each in both)
    words = ", ".join(f"{pass_} {times(mean)}" for pass_, mean in means)
    console.print(f"vs {shown(name)}: {words}; slower in {slower} of {len(both)} cases")


def _cells(row: Row, marked: bool, beside: Against | None) -> list[Text | str]:
    case = row.case
    fresh = _fraction(row.fresh.fraction if row.cold else None)
    cells: list[Text | str] = [
        f"  {case.size}" + (f" × {case.count}" if case.count > 1 else ""),
        duration(row.fresh.median),
        f"{duration(row.fresh.p10, row.fresh.median)}–{duration(row.fresh.p90, row.fresh.median)}",
        f"{row.fresh.gbs:.1f}",
        Text.assemble(("◀ ", "bold red"), fresh) if marked else fresh,
        _fraction(row.of_phases),
        _fraction(row.into_out.fraction if row.cold else None),
    ]
    return [*cells, times(beside.ratio(row))] if beside else cells


def _fraction(value: float | None) -> Text:
    if value is None:
        return Text("–", "dim")
    return Text(f"{value:.2f}", next(style for bound, style in STYLES if value >= bound))
