"""All that wants a device, in one command and under nine minutes: `python benchmarks/device.py --out FOLDER`.

Runs the tests of tests/cuda and the benchmark, each with a time limit of its own, and goes on where one
fails. FOLDER receives a log of each step, the results as JSON, and pictures; the last lines are a summary.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import monotonic

import click

from normkernels.cuda import devices

ROOT = Path(__file__).resolve().parent.parent
PYTEST = (sys.executable, "-m", "pytest")
BENCH = (sys.executable, "-m", "normkernels.cli")
# Between the last case that a run begins and its end: that case, the tables, the files.
TAIL = 25


@dataclass(frozen=True)
class Step:
    """A command with its log and its limit in seconds."""

    name: str
    command: tuple[str, ...]
    limit: float


def steps(out: Path, minutes: float) -> list[Step]:
    """What to run: about a quarter of the time for the tests, the rest for the benchmark."""
    total = 60 * minutes
    tests, quick, other = 0.27 * total, 0.12 * total, 15.0
    full = total - tests - quick - 2 * other
    quick_seconds, full_seconds = (str(max(1, int(limit - TAIL))) for limit in (quick, full))

    def bench(name: str, *options: str) -> tuple[str, ...]:
        return (*BENCH, "bench", "--device", "cuda", *options, "--json", str(out / f"{name}.json"))

    # most of the time of the tests goes into compiling
    several = ("-n", "8") if find_spec("xdist") else ()
    results = str(out / "full.json")
    return [
        Step("about", (*BENCH, "info"), other),
        Step("quick", bench("quick", "--quick", "--seconds", quick_seconds), quick),
        Step(
            "tests",
            (*PYTEST, "tests/cuda", "-m", "cuda", "-q", "--maxfail", "30", *several),
            tests,
        ),
        Step("full", bench("full", "--seconds", full_seconds), full),
        Step("report", (*BENCH, "report", results, "-o", str(out / "report.html")), other),
    ]


def run(step: Step, out: Path) -> str:
    """What became of a step."""
    start = monotonic()
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
    with (out / f"{step.name}.log").open("wb") as log:
        process = subprocess.Popen(
            step.command, stdout=log, stderr=log, cwd=ROOT, env=environment, start_new_session=True
        )
        try:
            became = f"exit code {process.wait(step.limit)}"
        except subprocess.TimeoutExpired:
            became = "stopped at its limit"
        with suppress(ProcessLookupError):  # what it has left, too
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"{step.name:8} {became}, {monotonic() - start:.0f} of {step.limit:.0f} s"


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder for all files.")
@click.option(
    "--minutes", type=click.FloatRange(min=4), default=8.8, show_default=True, help="For all steps together."
)
def main(out: Path, minutes: float) -> None:
    """Test and measure on the device at hand."""
    try:
        devices.require()
    except devices.DeviceUnavailable as error:
        raise click.UsageError(str(error)) from None
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    summary = []
    for step in steps(out, minutes):
        summary.append(run(step, out))
        click.echo(summary[-1])
        tail = (out / f"{step.name}.log").read_text(errors="replace").splitlines()[-12:]
        click.echo("\n".join(f"    {line}" for line in tail))
    (out / "summary.txt").write_text("\n".join(summary) + "\n")
    click.echo("\n".join(summary))
    if not all("exit code 0" in line for line in summary):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
