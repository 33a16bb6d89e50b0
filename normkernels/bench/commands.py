"""Commands of the benchmark: options in, cases measured, tables and files out."""

import io
import os
import sys
from pathlib import Path
from typing import Any

import click
import numba
from rich.console import Console
from rich.progress import Progress

from .. import _buffers
from ..norms import NORMS
from . import compare as comparing
from . import cuda_resources, files, markdown, outputs, ratios, stored, summary, timing
from . import noise as noises
from .ab.command import ab
from .check import Mismatch
from .device import info as cuda
from .device.command import prepared
from .machine import machine
from .models.command import models
from .options import Percent, file_option, thread_count
from .peers import PEERS
from .peers.choice import DEFAULT, chosen
from .presets import presets
from .process import WorkerEnded
from .progress import following
from .report.command import report
from .run import Plan, fitting, memory_text, run
from .say import say
from .schema import ResultsError
from .selection import LAYOUTS, BadOption, Selection, select, takes
from .table import show
from .work import Work

cli = click.Group()
for command in (ab, cuda_resources.command, models, ratios.table, report):
    cli.add_command(command)


@cli.command()
@click.option("--op", "ops", multiple=True, help="A norm; default all.")
@click.option(
    "--pass",
    "passes",
    multiple=True,
    help="forward, backward (default both), evaluation (batch norm after training).",
)
@click.option(
    "--preset", "names", multiple=True, help="Layers of a model: a name from `normkernels list`, or all."
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    help="Your own: 32x64x56x56 (NxCxHxW) or 4096x768; without --op for every norm that takes it.",
)
@click.option("--batch", "batches", multiple=True, type=int, help="N, or how many times a preset's rows.")
@click.option("--dtype", "dtypes", multiple=True, help="float32 (default), float64, float16, bfloat16.")
@click.option("--layout", default=LAYOUTS[0], show_default=True, help="Or channels_last: NHWC in memory.")
@click.option(
    "--fuse",
    "fuses",
    multiple=True,
    help="residual, residual+sum, an activation (relu, sigmoid, silu, gelu), or residual+relu, ...",
)
@click.option("--threads", type=int, help="Threads of the kernels and of the copy; default all.")
@click.option(
    "--against",
    "--baseline",
    "against",
    multiple=True,
    help=f"What else to measure, joined by commas: all, none, steps, {', '.join(PEERS)}; "
    f"default {DEFAULT[0]}. "
    "On a device none or of torch,triton,cupy,torch.compile; default all that are installed.",
)
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    help="cold (default): data from memory. pipeline: x was just written and y is read next.",
)
@click.option("--quick", is_flag=True, help="Few small cases, few repetitions.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where the kernels run.",
)
@click.option("--seconds", type=float, help="On a device: no case is begun later; default 420, quick 35.")
@click.option("--seed", type=int, help="On a device: of the inputs; default another for every run.")
@file_option(outputs.JSON, "json_file", help="Write the results.")
@file_option(outputs.PLOT, "plot_file", help="Write a picture, a .png file.")
@file_option(
    outputs.MARKDOWN,
    "page",
    help=f"Write the results into a page: all between {markdown.START} and {markdown.END} is replaced.",
)
def bench(
    ops: tuple[str, ...],
    passes: tuple[str, ...],
    names: tuple[str, ...],
    shapes: tuple[str, ...],
    batches: tuple[int, ...],
    dtypes: tuple[str, ...],
    layout: str,
    fuses: tuple[str, ...],
    threads: int | None,
    against: tuple[str, ...],
    conditions: tuple[str, ...],
    quick: bool,
    device: str,
    seconds: float | None,
    seed: int | None,
    json_file: Path | None,
    plot_file: Path | None,
    page: Path | None,
) -> None:
    """Measure the norms beside this machine's copy speed.

    Without options: layers of real models, both passes, about two minutes. A case is checked against
    the reference before it is timed.

    --against all says who is fastest: each library in a process of its own, checked against the reference,
    beside a copy of its own; what is not installed is named. With --fuse it can be "steps": the norm and,
    beside it, what is fused in sweeps of its own.

    --op, --pass, --preset, --shape, --batch, --dtype, --fuse, --against and --condition may be given several
    times.
    """
    named = ((outputs.JSON, json_file), (outputs.PLOT, plot_file), (outputs.MARKDOWN, page))
    paths = {option: path for option, path in named if path}
    on_device = device == "cuda"
    selected = Selection(
        ops, passes, names, shapes, batches, dtypes, layout, quick, fuses, on_device, conditions
    )
    options: dict[str, Any] = {
        "op": ops,
        "pass": passes,
        "preset": names,
        "shape": shapes,
        "batch": batches,
        "dtype": dtypes,
        "layout": layout,
        "fuse": fuses,
        "threads": threads,  # as asked for; the machine's record has the number in use
        "against": against,
        "condition": conditions,
        "quick": quick,
    }
    work: Work
    if on_device:
        if threads is not None:
            raise BadOption(f"--threads is of the CPU: leave it out with --device cuda, got {threads}")
        if conditions:
            raise BadOption(
                f"--condition is of the CPU: leave it out with --device cuda, got {conditions[0]}"
            )
        work = prepared(selected, ",".join(against) or None, seconds, seed, options)
    else:
        for name, value in (("--seconds", seconds), ("--seed", seed)):
            if value is not None:
                raise BadOption(f"{name} needs --device cuda, got {value}")
        work = _on_host(selected, threads, against, options)
    outputs.check(paths)
    with following(work.steps) as starting:
        try:
            outcome = work.do(starting)
        except (Mismatch, WorkerEnded) as error:
            raise click.ClickException(str(error)) from None
    taken = any(files.is_stream(path, files.STDOUT) for path in paths.values())
    stream = sys.stderr if taken else sys.stdout
    table = io.StringIO()
    show(outcome, Console(file=table, force_terminal=stream.isatty() or None))
    try:
        say(table.getvalue(), stream)
    finally:  # whatever becomes of the table
        outputs.write(outcome, paths)
    if work.failed(outcome):
        raise click.ClickException(work.failed(outcome))


def _on_host(
    selected: Selection, threads: int | None, against: tuple[str, ...], options: dict[str, Any]
) -> Work:
    cases = select(selected)
    used = thread_count(threads)
    names, missing = chosen(against, selected.fuses)
    fit, skipped = fitting(cases, names)
    if not fit:
        raise BadOption(f"a case must fit into the memory available, got {memory_text(skipped[0])}")
    plan = Plan(fit, used, names, timing.QUICK if selected.quick else timing.FULL, missing)
    options["against"] = list(against or DEFAULT)
    return Work(len(fit), lambda starting: run(plan, options, skipped, lambda case: starting(case.id)))


@cli.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", type=click.Path(path_type=Path))
@click.option(
    "--fail-on",
    type=Percent(),
    help="Exit with 1 where a case takes so much longer, 10%, or is not in HEAD any more.",
)
@click.option("--any-machine", is_flag=True, help="Compare even results of different machines.")
def compare(base: Path, head: Path, fail_on: float | None, any_machine: bool) -> None:
    """Compare two files of `bench --json`, or of `ab --json` head with head, case by case.

    One run each cannot tell a change from noise: `normkernels ab` can.
    """
    try:
        results = stored.load(base), stored.load(head)
        found = comparing.compare(*results, any_machine)
    except ResultsError as error:
        raise BadOption(str(error)) from None
    for path, one in zip((base, head), results, strict=True):
        if warning := comparing.warning(one):
            say(f"{path}: {warning}")
    changes = found.changes
    for change in changes:
        say(
            f"{change.ratio - 1:+7.1%}  {summary.duration(change.base):>8} to "
            f"{summary.duration(change.head):>8}  {change.name}"
        )
    mean = summary.geometric_mean([(change.ratio, 1) for change in changes]) or 1.0
    say(f"{mean - 1:+7.1%}  geometric mean of {len(changes)} cases")
    for path, names in ((base, found.only_base), (head, found.only_head)):
        for name in names:
            say(f"only in {path}: {name}")
    if fail_on is None:
        return
    slower = sum(change.ratio > 1 + fail_on for change in changes)
    problems = [f"{slower} slower by more than {fail_on:.0%}"] * bool(slower)
    problems += [f"{len(found.only_base)} of {base} not in {head}"] * bool(found.only_base)
    if problems:
        say("; ".join(problems))
        sys.exit(1)


@cli.command()
@click.option("--seconds", type=float, default=60.0, show_default=True, help="How long to watch.")
def noise(seconds: float) -> None:
    """How noisy this machine is now, and what change can be detected on it.

    Jitter of arithmetic in the cache, time stolen by other machines on the same host, time used by other
    processes, drift of the copy speed.
    """
    if not 0 < seconds <= 3600:
        raise BadOption(f"--seconds must be more than 0 and at most 3600, got {seconds:g}")
    errors = Console(stderr=True)
    with Progress(console=errors, transient=True, disable=not errors.is_terminal) as progress:
        task = progress.add_task("watching", total=1.0)
        found = noises.measure(seconds, lambda share: progress.update(task, completed=share))
    say(str(found))


@cli.command("list")
def list_() -> None:
    """The norms there are, and the presets with their shapes."""
    say(f"norms: {', '.join(NORMS)}")
    for op in NORMS:
        say(f"  {op} can be fused with {takes(op)}")
    for preset in presets():
        batch = "" if len(preset.layers[0].sizes) == 2 else f", batch {preset.batch}"
        special = "".join(f", {each}" for each in (preset.layout, *preset.passes) if each)
        say(f"{preset.op}  {preset.name}{batch}{special}")
        for layer in preset.layers:
            shape = "x".join(map(str, layer.shape(preset.batch)))
            say(f"  {layer.count:3} × {shape}")


@cli.command()
def info() -> None:
    """This machine, and what the kernels run on."""
    m = machine(numba.get_num_threads())
    say(f"cpu              {m.cpu}")
    say(f"cores            {m.cores} ({m.logical_cores} logical)")
    for level, size in m.caches.items():
        say(f"{level:16} {size // 1024} KB each")
    say(f"last level       {m.last_level_bytes // 1024} KB in all")
    say(f"memory           {m.memory_bytes / 2**30:.1f} GB")
    say(f"threads          {m.threads}")
    say(f"threading layer  {m.threading_layer}")
    asked = os.environ.get(_buffers.ENVIRONMENT, "not set")
    say(f"buffer pool      {_buffers._pool.limit / 2**20:.0f} MB ({_buffers.ENVIRONMENT} {asked})")
    say(f"os               {m.os}")
    say(f"python           {m.python}")
    for name, found in (*m.versions.items(), *cuda.lines()):
        say(f"{name:16} {found}")
