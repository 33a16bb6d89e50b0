"""Which launch rules are fastest on the device at hand: `python benchmarks/device_rules.py --out page.md`.

Rules of `normkernels.cuda.config` were chosen without a device. Here each is replaced by its neighbours, and
cases that it rules are checked and timed, as by `normkernels bench --device cuda`, beside a copy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from time import monotonic
from typing import Any

import click

from normkernels.bench import markdown
from normkernels.bench.cases import DTYPES, Case
from normkernels.bench.device import plan
from normkernels.bench.device.clock import kernel_clock
from normkernels.bench.device.copy import DeviceCopy
from normkernels.bench.device.measure import Bench, measure
from normkernels.bench.device.with_normkernels import LIBRARY
from normkernels.cuda import config, devices, strip_rules

BYTES = 1 << 28
ROWS = tuple(
    (BYTES // DTYPES[dtype] // cols, cols, dtype)
    for cols, dtype in product((1024, 4096, 16_384, 65_536), ("float32", "bfloat16"))
)
IMAGES = tuple(
    (*shape, dtype)
    for shape, dtype in product(((64, 256, 56, 56), (256, 512, 14, 14)), ("float32", "bfloat16"))
)
COLUMNS = tuple((n, BYTES // 4 // n, "float32") for n in (1024, 8192, 65_536))


@dataclass(frozen=True)
class Question:
    """A rule, what to change of it, and what it rules: a norm, a pass, and shapes with their dtype."""

    module: Any
    rule: str
    changes: tuple[Any, ...]
    op: str
    pass_: str
    shapes: tuple[Any, ...]

    @property
    def title(self) -> str:
        return f"{self.rule}: {self.op}, {self.pass_}"

    def cases(self) -> Iterator[Case]:
        for *shape, dtype in self.shapes:
            yield Case(self.op, self.pass_, tuple(shape), dtype, preset="rules")


FEWER, MORE, LESS = {"resident": 1}, {"resident": 3}, {"elements": 8}
OF_FORWARD = {}, FEWER, MORE, LESS, {"elements": 16}, {"long_threads": 256}
QUESTIONS = (
    Question(strip_rules, "STRIPS", ((0, 1), (0,), (1,), ()), "batch_norm", "forward", COLUMNS),
    Question(config, "SHARED_OUT", (4, 1, 2, 8), "group_norm", "backward", IMAGES),
    Question(config, "BACKWARD", ({}, FEWER, MORE, LESS), "layer_norm", "backward", ROWS),
    Question(config, "FORWARD", OF_FORWARD, "layer_norm", "forward", ROWS),
    Question(config, "GROUPS", ({}, FEWER, MORE, LESS), "batch_norm", "forward", IMAGES),
    Question(config, "GROUPS_BACKWARD", ({}, FEWER, LESS), "group_norm", "backward", IMAGES),
)


def changed(rule: Any, change: Any) -> Any:
    """A rule with fields replaced, another number for a number, some of several rules."""
    if isinstance(change, dict):
        return replace(rule, **change)
    return tuple(rule[k] for k in change) if isinstance(change, tuple) else change


def named(question: Question, change: Any) -> str:
    """A change in words."""
    rule = getattr(question.module, question.rule)
    if changed(rule, change) == rule:
        return "as it is"
    if isinstance(change, dict):
        return ", ".join(f"{field} {value}" for field, value in change.items())
    if isinstance(change, tuple):
        return " and ".join(f"number {k}" for k in change) + " only" if change else "none: read twice"
    return str(change)


@contextmanager
def in_force(question: Question, change: Any) -> Iterator[None]:
    """Launches by another rule."""
    before = getattr(question.module, question.rule)
    setattr(question.module, question.rule, changed(before, change))
    try:
        yield
    finally:
        setattr(question.module, question.rule, before)


def answer(question: Question, bench: Bench, end: float) -> str:
    """A table: the fraction of a copy's speed by case and change; empty where time was up."""
    names = [named(question, change) for change in question.changes]
    lines = [markdown.line([question.title, *names]), markdown.rule(1, len(names))]
    for case in question.cases():
        cells = []
        for change in question.changes:
            if monotonic() > end:
                cells.append("")
                continue
            with in_force(question, change):
                try:
                    row = measure(case, LIBRARY, bench)
                except Exception as error:  # a rule may ask for what a device has not: the others go on
                    if isinstance(error, devices.FatalDeviceError):
                        raise
                    cells.append(type(error).__name__)
                    continue
            assert row is not None
            cells.append(f"{row.into_out.fraction:.2f}")
        lines.append(markdown.line([f"{case.size} {case.dtype}", *cells]))
    return "\n".join(lines)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The page to write.")
@click.option("--seconds", type=click.FloatRange(min=1), default=400, show_default=True)
def main(out: Path, seconds: float) -> None:
    """Measure neighbours of the launch rules on the device at hand."""
    try:
        found = plan.about()
    except devices.DeviceUnavailable as error:
        raise click.UsageError(str(error)) from None
    end = monotonic() + seconds
    bench = Bench(
        l2_bytes=found.l2_bytes,
        memory_bytes=found.memory_bytes,
        effort=plan.QUICK,
        seed=0,
        copy=DeviceCopy(plan.copy_bytes(found), kernel_clock),
    )
    parts = [f"Fractions of a copy's speed on {found.name}, driver {found.driver}; first as the rules are."]
    for question in QUESTIONS:
        parts.append(answer(question, bench, end))
        click.echo(parts[-1])
        out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
