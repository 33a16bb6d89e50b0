"""`normkernels models`: whole models of PyTorch, before and after `replace_norms`."""

import io
import sys
from importlib import import_module
from pathlib import Path

import click
from rich.console import Console

from .. import markdown, outputs
from ..check import Mismatch
from ..machine import machine, usage
from ..options import file_option, thread_count
from ..process import WorkerEnded
from ..progress import following
from ..say import say, wrote
from . import page, results
from .cases import ALL, DTYPES, EAGER, MODES, PASSES, Case, chosen, needed


@click.command()
@click.option("--model", "models", multiple=True, help=f"{', '.join(ALL)}; default all but the last.")
@click.option("--pass", "passes", multiple=True, type=click.Choice(PASSES), help="Default both.")
@click.option(
    "--dtype",
    "dtypes",
    multiple=True,
    type=click.Choice(DTYPES),
    help="Default both, or float32 with --mode compile.",
)
@click.option(
    "--batch",
    "batches",
    multiple=True,
    type=int,
    help="Default 1 and a usual one of each model, or that with --mode compile.",
)
@click.option(
    "--mode", type=click.Choice(MODES), default=EAGER, show_default=True, help="Or by torch.compile."
)
@click.option("--threads", type=int, help="Of PyTorch and the kernels; default all.")
@click.option("--quick", is_flag=True, help="A small model in float32, few repetitions.")
@file_option(outputs.JSON, "json_file", help="Write the results.")
@file_option(
    outputs.MARKDOWN,
    "page_file",
    help="Write a table into a page: all between "
    f"{' and '.join(markdown.markers(page.BLOCKS[EAGER]))} is replaced, or that of the other mode.",
)
def models(
    models: tuple[str, ...],
    passes: tuple[str, ...],
    dtypes: tuple[str, ...],
    batches: tuple[int, ...],
    mode: str,
    threads: int | None,
    quick: bool,
    json_file: Path | None,
    page_file: Path | None,
) -> None:
    """Measure models of PyTorch before and after `normkernels.torch.replace_norms`.

    Random weights, on the CPU: the time of a training step and of inference, what part of it norms take, and
    memory. Outputs and gradients are compared first.

    --model, --pass, --dtype and --batch may be given several times.
    """
    named = ((outputs.JSON, json_file), (outputs.MARKDOWN, page_file))
    paths = {option: path for option, path in named if path}
    cases = chosen(models, passes, dtypes, batches, mode, quick)
    used = thread_count(threads)
    outputs.check(paths, page.BLOCKS[mode])
    needs = needed(cases)
    for name in ("scipy", "torch", *needs):  # a missing one is better found now
        import_module(name)
    given = {
        "model": models,
        "pass": passes,
        "dtype": dtypes,
        "batch": batches,
        "mode": [mode] * (mode != EAGER),
    }
    given |= {"threads": [threads] * (threads is not None)}
    words = [f"--{name} {value}" for name, values in given.items() for value in values]
    command = " ".join(["normkernels models", *words, *["--quick"] * quick])
    outcome = _run(cases, used, quick, command)
    table = io.StringIO()
    width = None if sys.stdout.isatty() else 160
    page.show(outcome, Console(file=table, width=width, force_terminal=sys.stdout.isatty() or None))
    try:
        say(table.getvalue())
    finally:  # whatever becomes of the table
        if json_file:
            results.save(outcome, json_file)
        if page_file:
            markdown.insert(page_file, page.render(outcome), page.BLOCKS[mode])
        for path in paths.values():
            wrote(path)


def _run(cases: list[Case], threads: int, quick: bool, command: str) -> results.Results:
    from .measure import measure  # imports PyTorch

    before = usage()
    with following(len(cases), left=True) as starting:
        try:
            rows = measure(cases, threads, quick, lambda case: starting(str(case)))
        except (Mismatch, WorkerEnded) as error:
            raise click.ClickException(str(error)) from None
    packages = dict.fromkeys(name.partition(".")[0] for name in needed(cases))
    return results.Results(command, machine(threads, ("torch", *packages)), before.shares(usage())[1], rows)
