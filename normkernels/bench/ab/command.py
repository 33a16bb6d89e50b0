"""`normkernels ab`: options in, a verdict and files out."""

import io
import math
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import click
import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import files
from ..machine import machine
from ..options import Percent, file_option
from ..say import say, wrote
from ..selection import BadOption
from . import outcome as outcomes
from . import page
from .checkouts import ENDING, uncommitted
from .gate import run
from .outcome import Outcome, Plan
from .pairs import DEFAULT_MINUTES, LEAST_PAIRS, MOST_PAIRS, Failed


@click.command()
@click.option("--base", required=True, help="The commit to compare with: a branch, a tag, a hash.")
@click.option("--head", help="The commit to judge.  [default: HEAD]")
@click.option("--aa", is_flag=True, help="Compare base with itself: what this machine calls a change.")
@click.option("--cases", help="module:function; default: what pyproject.toml names.")
@click.option("--threshold", type=Percent(), default="10%", show_default=True, help="Change worth flagging.")
@click.option("--pairs", type=int, default=LEAST_PAIRS, show_default=True, help="Pairs of processes.")
@click.option(
    "--max-minutes",
    type=float,
    help=f"For everything.  [default: {DEFAULT_MINUTES}, or what the cases need on this machine]",
)
@click.option("--threads", type=int, default=1, show_default=True, help="Of the code under test.")
@click.option("--isolated", is_flag=True, help="Install each commit into an environment of its own.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of pairs and cases.")
@file_option("--json", "json_file", help="Write the results.")
@file_option("--markdown", "text_file", help="Write the table, for a comment on a pull request.")
def ab(
    base: str,
    head: str | None,
    aa: bool,
    cases: str | None,
    threshold: float,
    pairs: int,
    max_minutes: float | None,
    threads: int,
    isolated: bool,
    seed: int,
    json_file: Path | None,
    text_file: Path | None,
) -> None:
    """Compare two commits of this repository, in pairs of processes: is head slower than base?

    One thread, unless told otherwise: a parallel region waits for the slowest core, whoever else is using it.

    Each process compiles, checks, times and checks again every case; a change counts where it is beyond the
    threshold, significant among all cases, and there again in a second run. Nothing is left behind.

    Exit code: 0 no regression, 1 a regression, 2 usage, 3 inconclusive because a control moved, 130
    interrupted.
    """
    import scipy  # noqa: F401  a missing one is better found now

    if not LEAST_PAIRS <= pairs <= MOST_PAIRS:
        raise BadOption(f"--pairs must be between {LEAST_PAIRS} and {MOST_PAIRS}, got {pairs}")
    if seed < 0:
        raise BadOption(f"--seed must be 0 or more, got {seed}")
    cores = psutil.cpu_count() or 1
    if not 1 <= threads <= cores:
        raise BadOption(f"--threads must be between 1 and {cores}, got {threads}")
    if max_minutes is not None and not 0 < max_minutes < math.inf:
        raise BadOption(f"--max-minutes must be a number above 0, got {max_minutes:g}")
    if aa and head is not None:
        raise BadOption(f"--aa compares base with itself and takes no --head, got {head}")
    if json_file and text_file and os.path.realpath(json_file) == os.path.realpath(text_file):
        raise BadOption(f"--markdown must name another file than --json, got {text_file}")
    _check("--json", json_file)
    _check("--markdown", text_file)
    if head is None and not aa and uncommitted():
        click.echo("normkernels: uncommitted changes are not measured: HEAD is", err=True)
    head = base if aa else head or "HEAD"
    plan = Plan(base, head, cases, pairs, threshold, max_minutes, isolated, threads, seed, aa)
    with _tidy_when_terminated():
        outcome = _run(plan)
    if json_file:
        outcomes.save(outcome, json_file)
    if text_file:
        files.write(text_file, page.markdown(outcome).encode())
    for path in filter(None, (json_file, text_file)):
        wrote(path)
    table = io.StringIO()
    width = None if sys.stdout.isatty() else 160
    page.show(outcome, Console(file=table, width=width, force_terminal=sys.stdout.isatty() or None))
    say(table.getvalue())
    sys.exit(outcome.exit_code)


def _check(option: str, path: Path | None) -> None:
    if path:
        try:
            files.check(path)
        except OSError as error:
            raise BadOption(f"{option} must be writeable, got {path}: {error.strerror}") from None


def _run(plan: Plan) -> Outcome:
    errors = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("starting", total=None)

        def stage(text: str, total: int | None) -> None:
            progress.reset(task, description=text, total=total)
            if total and not errors.is_terminal:  # a log shows at least what is going on
                click.echo(f"{text}, {total} processes", err=True)

        try:
            return run(plan, machine(plan.threads), stage, step=partial(progress.advance, task))
        except Failed as error:
            raise BadOption(str(error)) from None


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """End on SIGTERM, which CI sends, and where the terminal is closed as on Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in ENDING if number != signal.SIGINT}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
