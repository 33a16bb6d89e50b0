"""The command `compile`, which needs no extra."""

import os
from collections.abc import Sequence
from pathlib import Path

import click
import numba
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ._ahead import DTYPES, Compiled, check, compile
from .cpu.cache import QUIET, folder, quiet


@click.command("compile")
@click.option("--op", "ops", multiple=True, help="A norm, moments or zscore; default all.")
@click.option("--dtype", "dtypes", multiple=True, help="float32 (default), float64, float16, bfloat16.")
@click.option("--fuse", "fused", multiple=True, help="What is fused, as for bench; default nothing.")
@click.option("--all", "everything", is_flag=True, help="All norms with all dtypes and fusions.")
@click.option("--markdown", type=click.Path(), metavar="FILE", help="Put the table into a page.")
def compile_(
    ops: tuple[str, ...],
    dtypes: tuple[str, ...],
    fused: tuple[str, ...],
    everything: bool,
    markdown: str | None,
) -> None:
    """Compile kernels ahead of use, so that no later process has to.

    They stay on disk: where NUMBA_CACHE_DIR says, else beside the package, or in your cache folder where that
    cannot be written. What is there already is loaded.
    """
    wanted, kept = numba.config.CACHE_DIR, folder()
    if kept is None or (wanted and not kept.is_relative_to(wanted)):
        rule = f"NUMBA_CACHE_DIR must be a folder that can be written, got {wanted or 'none'}"
        raise click.UsageError(rule)
    if everything and (dtypes or fused):
        raise click.UsageError("--all takes all dtypes and fusions: leave --dtype and --fuse out")
    kinds = (DTYPES, None) if everything else (dtypes or ("float32",), fused or ("",))
    try:
        check(ops, dtypes, fused, ("--op", "--dtype", "--fuse"))
        page = _page(markdown)
        done = _compiled(ops or None, *kinds)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    seconds = sum(c.seconds for c in done)
    text = f"compiled {len(done)} kernels in {seconds:.0f} s" if done else "nothing to compile"
    click.echo(f"{text}, kept in {kept}")
    if page and done:
        asked = (("op", ops), ("dtype", dtypes), ("fuse", fused))
        words = [f"--{name} {value}" for name, values in asked for value in values]
        _write(page, done, " ".join(["normkernels compile", *["--all"] * everything, *words]))


def _compiled(
    ops: tuple[str, ...] | None, dtypes: Sequence[str], fused: Sequence[str] | None
) -> list[Compiled]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors = Console(stderr=True)
    with (
        quiet(),
        Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress,
    ):
        task = progress.add_task("starting", total=None)

        def show(done: int, steps: int, name: str) -> None:
            progress.update(task, description=name, completed=done, total=steps)
            if name and not errors.is_terminal and not os.environ.get(QUIET):
                click.echo(f"normkernels: compiling {name} ({done + 1} of {steps})", err=True)

        return compile(ops, dtypes, fused, progress=show)


def _page(name: str | None) -> Path | None:
    """The page that is to take a table, which needs the extra `bench`: found out before compiling."""
    if name is None:
        return None
    from .bench import outputs

    outputs.check({outputs.MARKDOWN: Path(name)})
    return Path(name)


def _write(page: Path, done: list[Compiled], command: str) -> None:
    from .bench import compiling, markdown, say

    markdown.insert(page, compiling.render(done, command))
    say.wrote(page)
