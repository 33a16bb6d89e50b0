"""`normkernels ab`: options in, a verdict and files out."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import files
from ..machine import machine
from ..options import Percent, file_option
from ..selection import BadOption
from . import outcome as outcomes
from . import page
from .gate import Plan, run
from .outcome import Outcome
from .pairs import LEAST_PAIRS, Failed


@click.command()
@click.option("--base", required=True, help="The commit to compare with: a branch, a tag, a hash.")
@click.option("--head", default="HEAD", show_default=True, help="The commit to judge.")
@click.option("--aa", is_flag=True, help="Compare base with itself: what this machine calls a change.")
@click.option("--cases", help="module:function; default: what pyproject.toml names.")
@click.option("--threshold", type=Percent(), default="10%", show_default=True, help="Change worth flagging.")
@click.option("--pairs", type=int, default=LEAST_PAIRS, show_default=True, help="Pairs of processes.")
@click.option("--max-minutes", type=float, default=10.0, show_default=True, help="For everything.")
@click.option("--threads", type=int, default=1, show_default=True, help="Of the code under test.")
@click.option("--isolated", is_flag=True, help="Install each commit into an environment of its own.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of pairs and cases.")
@file_option("--json", "json_file", help="Write the results.")
@file_option("--markdown", "text_file", help="Write the table, for a comment on a pull request.")
def ab(
    base: str,
    head: str,
    aa: bool,
    cases: str | None,
    threshold: float,
    pairs: int,
    max_minutes: float,
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

    Exit code: 0 no regression, 1 a regression, 2 usage, 3 inconclusive because a control moved.
    """
    import scipy  # noqa: F401  a missing one is better found now

    if pairs < LEAST_PAIRS:
        raise BadOption(f"--pairs must be {LEAST_PAIRS} or more, got {pairs}")
    if threads < 1:
        raise BadOption(f"--threads must be 1 or more, got {threads}")
    if not max_minutes > 0:
        raise BadOption(f"--max-minutes must be more than 0, got {max_minutes:g}")
    if aa:
        head = base
    outputs = {"--json": json_file, "--markdown": text_file}
    for option, path in outputs.items():
        _check(option, path)
    plan = Plan(base, head, cases, pairs, threshold, max_minutes, isolated, threads, seed, aa)
    with _tidy_when_terminated():
        outcome = _run(plan)
    page.show(outcome, Console(width=None if sys.stdout.isatty() else 160))
    if json_file:
        outcomes.save(outcome, json_file)
    if text_file:
        files.write(text_file, page.markdown(outcome).encode())
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
        try:
            return run(
                plan,
                machine(plan.threads),
                stage=lambda text, total: progress.reset(task, description=text, total=total),
                step=partial(progress.advance, task),
            )
        except Failed as error:
            raise BadOption(str(error)) from None


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """End on SIGTERM, which CI sends, as on Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
