"""`normkernels report`."""

import os
from pathlib import Path

import click

from .. import files, markdown, outputs, stored
from ..ab.outcome import Outcome
from ..ab.page import markdown as gate_table
from ..options import file_option
from ..results import Results
from ..say import wrote
from ..schema import ResultsError
from ..selection import BadOption
from . import sheet
from .data import report as report_on
from .page import render


@click.command()
@click.argument("results", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.",
)
@click.option(
    "--charts", type=click.Path(path_type=Path), metavar="DIR", help="Each chart as PNG and SVG, too."
)
@file_option("--csv", "sheet_file", help="Every case as a row of a table, too.")
@file_option(outputs.MARKDOWN, "tables", help="One file of RESULTS into a page of Markdown, as bench does.")
@click.option("--title", default="normkernels", show_default=True, help="The heading of the page.")
def report(
    results: tuple[Path, ...],
    output: Path,
    charts: Path | None,
    sheet_file: Path | None,
    tables: Path | None,
    title: str,
) -> None:
    """Show RESULTS, files of `normkernels bench --json` or `normkernels ab --json`, as one page.

    The page needs no network and no other file. Several results make a history: a line for each case that
    several of them have, in the order of their dates.
    """
    if not results:
        raise BadOption("RESULTS must name one file or more, got none")
    if tables:
        if len(results) > 1:
            raise BadOption(f"{outputs.MARKDOWN} must go with one file of RESULTS, got {len(results)}")
        outputs.check({outputs.MARKDOWN: tables})
    others = {os.path.realpath(path): "RESULTS" for path in results}
    for option, path in (("--output", output), ("--csv", sheet_file), (outputs.MARKDOWN, tables)):
        taken = others.setdefault(os.path.realpath(path), option) if path else option
        if taken != option:
            raise BadOption(f"{option} must name another file than {taken}, got {path}")
    try:
        loaded = [(path, stored.load(path)) for path in results]
    except ResultsError as error:
        raise BadOption(str(error)) from None
    page = report_on(title, loaded)
    if not page.entries:
        raise BadOption(f"RESULTS must have a measured case, got none in {', '.join(map(str, results))}")
    _write("--output", output, render(page))
    if sheet_file:
        _write("--csv", sheet_file, sheet.render(page))
    if tables:
        _write_tables(loaded[0][1], tables)
    if charts:
        from .charts import draw  # matplotlib takes a second to import

        try:
            draw(page, charts)
        except OSError as error:
            raise BadOption(_problem("--charts", "folder", charts, error)) from None
        wrote(charts)


def _write(option: str, path: Path, text: str) -> None:
    try:
        files.write(path, text.encode(errors="replace"))
    except OSError as error:
        raise BadOption(_problem(option, "file", path, error)) from None
    wrote(path)


def _write_tables(found: Results | Outcome, path: Path) -> None:
    if isinstance(found, Outcome):
        markdown.insert(path, gate_table(found))
        wrote(path)
    else:
        outputs.write(found, {outputs.MARKDOWN: path})


def _problem(option: str, what: str, path: Path, error: OSError) -> str:
    return f"{option} must name a {what} that can be written, got {path} ({error.strerror or error})"
