"""`normkernels report`."""

import os
from pathlib import Path

import click

from .. import files, outputs
from ..options import file_option
from ..results import load
from ..schema import ResultsError
from ..selection import BadOption
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
@file_option(outputs.MARKDOWN, "tables", help="One file of RESULTS into a page of Markdown, as bench does.")
@click.option("--title", default="normkernels", show_default=True, help="The heading of the page.")
def report(
    results: tuple[Path, ...], output: Path, charts: Path | None, tables: Path | None, title: str
) -> None:
    """Show RESULTS, files of `normkernels bench --json`, as one page.

    The page needs no network and no other file. Several results make a history: a line for each case that
    several of them have, in the order of their dates.
    """
    if not results:
        raise BadOption("RESULTS must name one file or more, got none")
    if tables:
        if len(results) > 1:
            raise BadOption(f"{outputs.MARKDOWN} must go with one file of RESULTS, got {len(results)}")
        outputs.check({outputs.MARKDOWN: tables})
    for path in results:
        if os.path.realpath(path) == os.path.realpath(output):
            raise BadOption(f"--output must name another file than RESULTS, got {output}")
    try:
        loaded = [(path, load(path)) for path in results]
    except ResultsError as error:
        raise BadOption(str(error)) from None
    if not any(outcome.rows for _, outcome in loaded):
        raise BadOption(f"RESULTS must have a measured case, got none in {', '.join(map(str, results))}")
    page = report_on(title, loaded)
    try:
        files.write(output, render(page).encode(errors="replace"))
    except OSError as error:
        raise BadOption(_problem("--output", "file", output, error)) from None
    if tables:
        outputs.write(loaded[0][1], {outputs.MARKDOWN: tables})
    if charts:
        from .charts import draw  # matplotlib takes a second to import

        try:
            draw(page, charts)
        except OSError as error:
            raise BadOption(_problem("--charts", "folder", charts, error)) from None


def _problem(option: str, what: str, path: Path, error: OSError) -> str:
    return f"{option} must name a {what} that can be written, got {path} ({error.strerror or error})"
