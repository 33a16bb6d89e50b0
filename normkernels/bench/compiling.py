"""What compiling costs: the kernels of some norms, serial and parallel, timed as they are compiled.

Afterwards they are in the cache on disk: this is also how to fill it ahead of use.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from numba.core import event

from ..cpu.jit import KERNELS
from ..norms import NORMS
from .cases import Case
from .inputs import make_inputs
from .machine import machine
from .selection import fusible

# Small and large for each kind of kernel: rows, a few long rows, columns, short runs, runs, a few channels.
SHAPES = (
    ((4, 33), (2048, 128)),
    ((1, 40_000), (1, 200_000)),
    ((2, 8, 5, 5), (64, 64, 6, 6)),
    ((2, 8, 12, 12), (8, 64, 20, 20)),
    ((2, 3, 40, 50), (2, 3, 300, 200)),
)


# What to switch off for evaluation.
EVALUATION = {"batch_norm": "training", "batch_renorm": "training", "instance_norm": "use_input_stats"}


@dataclass(frozen=True)
class Compiled:
    """Seconds that it took to compile a kernel in one of its forms, serial or parallel."""

    kernel: str
    form: str
    dtype: str
    fuse: str
    seconds: float


def compile_all(ops: Sequence[str], dtypes: Sequence[str], fuses: Sequence[str] = ("",)) -> list[Compiled]:
    """Compile what these norms need; what is in the cache on disk already is loaded, and not listed."""
    compiled = []
    for dtype in dtypes:
        for op in ops:
            for fuse in fuses:
                if not fusible(op, fuse):
                    continue
                with _listening() as seconds:
                    for shape in (shape for sizes in SHAPES for shape in sizes):
                        _call(op, shape, dtype, fuse)
                compiled += [Compiled(*kernel, dtype, fuse, s) for kernel, s in seconds.items()]
    return compiled


def _call(op: str, shape: tuple[int, ...], dtype: str, fuse: str) -> None:
    spec = NORMS[op]
    if spec.family == "channels" and math.prod(shape) == shape[1]:
        return  # one value per channel cannot train
    shape = (*shape, *[2] * (spec.min_ndim - len(shape)))
    inputs = make_inputs(Case(op, "forward", shape, dtype, fuse=fuse))
    arguments = inputs.arguments | inputs.beside_x
    _, saved = spec.kernels.forward(inputs.x, **arguments)
    spec.kernels.backward(inputs.dy, saved, **inputs.beside_dy)
    spec.kernels.call(inputs.x, **arguments)
    if op in EVALUATION:
        spec.kernels.call(inputs.x, **{**arguments, EVALUATION[op]: False})


@contextmanager
def _listening() -> Iterator[dict[tuple[str, str], float]]:
    """Seconds spent compiling, by kernel and form."""
    forms = {id(getattr(k, form)): (k.name, form) for k in KERNELS for form in ("serial", "parallel")}
    started: dict[int, float] = {}
    seconds: dict[tuple[str, str], float] = {}

    class Listener(event.Listener):  # type: ignore[misc]  # numba is untyped
        def on_start(self, event: Any) -> None:
            started[id(event.data["dispatcher"])] = perf_counter()

        def on_end(self, event: Any) -> None:
            kernel = id(event.data["dispatcher"])
            if kernel in forms:
                spent = perf_counter() - started[kernel]
                seconds[forms[kernel]] = seconds.get(forms[kernel], 0.0) + spent

    with event.install_listener("numba:compile", Listener()):
        yield seconds


def render(compiled: Sequence[Compiled], command: str) -> str:
    """Seconds as Markdown: a row for a kernel and what is fused, a column for a dtype and form."""
    columns = list(dict.fromkeys((c.dtype, c.form) for c in compiled))
    lines: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for c in compiled:
        row = lines.setdefault((c.kernel, c.fuse), {})
        row[c.dtype, c.form] = row.get((c.dtype, c.form), 0.0) + c.seconds
    m = machine(0)
    rows = [["kernel", "fused", *(f"{dtype} {form}" for dtype, form in columns)]]
    rows.append(["---", "---", *["--:"] * len(columns)])
    for (kernel, fuse), row in lines.items():
        rows.append([kernel, fuse, *(f"{row[c]:.1f} s" if c in row else "–" for c in columns)])
    versions = ", ".join(f"{name} {v}" for name, v in m.versions.items())
    total = f"{len(compiled)} variants, {sum(c.seconds for c in compiled):.0f} s"
    head = f"Measured with `{command}` on {m.cpu} ({versions}), {m.date[:10]}: {total}."
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in rows)])
