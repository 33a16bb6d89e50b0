"""The command line: options in, cases measured, tables and files out."""

import os
from pathlib import Path
from typing import Any

import click
import numba
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import __version__, _buffers
from ..norms import NORMS
from . import markdown, results, timing
from .check import Mismatch
from .machine import machine
from .presets import presets
from .results import Results
from .run import BASELINES, Plan, fitting, memory_text, run
from .selection import LAYOUTS, BadOption, Selection, select
from .table import show
from .torch_baseline import WorkerEnded, available


class OneLineErrors(click.Group):
    """Errors are one line on standard error, without usage."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.ClickException as error:
            click.echo(f"normkernels: {error.format_message()}", err=True)
            raise SystemExit(error.exit_code) from None
        except click.Abort:
            click.echo("normkernels: interrupted", err=True)
            raise SystemExit(130) from None


@click.group(cls=OneLineErrors, invoke_without_command=True)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context) -> None:
    """Fused normalization kernels: measure them on this machine."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command()
@click.option("--op", "ops", multiple=True, help="A norm; default all.")
@click.option("--pass", "passes", multiple=True, help="forward or backward; default both.")
@click.option("--preset", "names", multiple=True, help="Layers of a model, or all; see `normkernels list`.")
@click.option("--shape", "shapes", multiple=True, help="Your own: 32x64x56x56 (NxCxHxW) or 4096x768.")
@click.option("--batch", "batches", multiple=True, type=int, help="N, or how many times a preset's rows.")
@click.option("--dtype", "dtypes", multiple=True, help="float32 (default) or float64.")
@click.option("--layout", default=LAYOUTS[0], show_default=True, help="Or channels_last: NHWC in memory.")
@click.option("--threads", type=int, help="Threads of the kernels and of the copy; default all.")
@click.option("--baseline", default=BASELINES[0], show_default=True, help=f"{', '.join(BASELINES)}.")
@click.option("--quick", is_flag=True, help="Few small cases, few repetitions.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the results.")
@click.option("--plot", "plot_file", type=click.Path(path_type=Path), help="Write a PNG.")
@click.option("--markdown", "page", type=click.Path(path_type=Path), help="Update the results in a page.")
def bench(
    ops: tuple[str, ...],
    passes: tuple[str, ...],
    names: tuple[str, ...],
    shapes: tuple[str, ...],
    batches: tuple[int, ...],
    dtypes: tuple[str, ...],
    layout: str,
    threads: int | None,
    baseline: str,
    quick: bool,
    json_file: Path | None,
    plot_file: Path | None,
    page: Path | None,
) -> None:
    """Measure the norms beside this machine's copy speed.

    Without options: layers of real models, both passes, about two minutes. A case is checked against
    the reference before it is timed.
    """
    try:
        cases = select(Selection(ops, passes, names, shapes, batches, dtypes, layout, quick))
    except BadOption as error:
        raise click.UsageError(str(error)) from None
    used = _threads(threads)
    _check_baseline(baseline)
    _check_files(json_file, plot_file, page)
    fit, skipped = fitting(cases)
    if not fit:
        raise click.UsageError(f"a case must fit into the memory available, got {memory_text(skipped[0])}")

    options = {
        "op": ops,
        "pass": passes,
        "preset": names,
        "shape": shapes,
        "batch": batches,
        "dtype": dtypes,
        "layout": layout,
        "threads": threads,  # as asked for; the machine's record has the number in use
        "baseline": baseline,
        "quick": quick,
    }
    plan = Plan(fit, used, baseline, timing.QUICK if quick else timing.FULL)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("starting", total=len(fit))
        done = iter(range(len(fit)))
        try:
            outcome = run(
                plan,
                options,
                skipped,
                starting=lambda case: progress.update(task, description=case.id, completed=next(done)),
            )
        except (Mismatch, WorkerEnded) as error:
            raise click.ClickException(str(error)) from None
    _write(outcome, json_file, plot_file, page)
    show(outcome, Console())


def _threads(threads: int | None) -> int:
    most = numba.config.NUMBA_NUM_THREADS
    if threads is None:
        return int(numba.get_num_threads())
    if not 1 <= threads <= most:
        raise click.UsageError(f"--threads must be between 1 and {most}, got {threads}")
    return threads


def _check_baseline(baseline: str) -> None:
    if baseline not in BASELINES:
        raise click.UsageError(f"--baseline must be one of {', '.join(BASELINES)}, got {baseline}")
    if baseline == "torch" and not available():
        raise click.UsageError("--baseline torch needs PyTorch: pip install torch")


def _check_files(json_file: Path | None, plot_file: Path | None, page: Path | None) -> None:
    """Say before a long run, not after it, that its results cannot be written."""
    for option, path in (("--json", json_file), ("--plot", plot_file)):
        if path and (path.is_dir() or not os.access(path.parent, os.W_OK)):
            raise click.UsageError(f"{option} must name a file in a writable folder, got {path}")
    if plot_file:
        from . import plot  # noqa: F401  a missing matplotlib is better found now
    if page:
        try:
            markdown.page_text(page)
        except OSError:
            raise click.UsageError(f"--markdown must name a readable page, got {page}") from None
        except markdown.MarkersMissing as error:
            raise click.UsageError(f"--markdown: {error}") from None


def _write(outcome: Results, json_file: Path | None, plot_file: Path | None, page: Path | None) -> None:
    if json_file:
        results.save(outcome, json_file)
    if plot_file:
        from .plot import plot  # matplotlib takes a second to import

        plot(outcome, plot_file)
    if page:
        markdown.update(page, outcome)


@cli.command("list")
def list_() -> None:
    """The norms there are, and the presets with their shapes."""
    click.echo(f"norms: {', '.join(NORMS)}")
    for preset in presets():
        batch = "" if len(preset.layers[0].sizes) == 2 else f", batch {preset.batch}"
        click.echo(f"{preset.op}  {preset.name}{batch}")
        for layer in preset.layers:
            shape = "x".join(map(str, layer.shape(preset.batch)))
            click.echo(f"  {layer.count:3} × {shape}")


@cli.command()
def info() -> None:
    """This machine, and what the kernels run on."""
    m = machine(numba.get_num_threads())
    click.echo(f"cpu              {m.cpu}")
    click.echo(f"cores            {m.cores} ({m.logical_cores} logical)")
    for level, size in m.caches.items():
        click.echo(f"{level:16} {size // 1024} KB each")
    click.echo(f"last level       {m.last_level_bytes // 1024} KB in all")
    click.echo(f"memory           {m.memory_bytes / 2**30:.1f} GB")
    click.echo(f"threads          {m.threads}")
    click.echo(f"threading layer  {m.threading_layer}")
    asked = os.environ.get(_buffers.ENVIRONMENT, "not set")
    click.echo(f"buffer pool      {_buffers._pool.limit / 2**20:.0f} MB ({_buffers.ENVIRONMENT} {asked})")
    click.echo(f"os               {m.os}")
    click.echo(f"python           {m.python}")
    for name, number in m.versions.items():
        click.echo(f"{name:16} {number}")
