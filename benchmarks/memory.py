"""What a pass allocates beside its results: `python benchmarks/memory.py` writes the table of docs/memory.md.

NumPy tells tracemalloc of every array, those of the buffer pool too. What a kernel takes for itself is not
seen: the page says how much that is.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import normkernels as nk
from normkernels.bench import markdown
from normkernels.norms import NORMS, NormSpec

PAGE, BLOCK = Path(__file__).parents[1] / "docs" / "memory.md", "memory"

# Where statistics, parameters and partial sums weigh most: long groups, short ones, and what lies between.
SHAPES = {
    "rows": ((1, 1 << 20), (8, 1 << 17), (1 << 10, 1 << 10), (1 << 18, 4)),
    "groups": ((1, 2, 1 << 19), (8, 32, 1 << 12), (64, 256, 8, 8), (64, 1 << 12, 2, 2)),
    "channels": ((1, 2, 1 << 19), (8, 32, 1 << 12), (64, 256, 8, 8), (1 << 10, 1 << 10), (4, 1 << 18)),
    "windows": ((1, 4, 1 << 18), (8, 32, 1 << 12), (64, 256, 8, 8)),
}


@dataclass(frozen=True)
class Bound:
    """At most this part of x, float32, so many bytes for each group with statistics, and `CONSTANT`."""

    share: float
    group: int = 0

    def bytes(self, size: int, groups: int) -> float:
        return self.share * 4 * size + self.group * groups + CONSTANT


CONSTANT = 1 << 20
# Of the one-shot call, the forward of training and the backward, which with an activation keeps its gradient.
BOUNDS = {
    "rows": {"call": Bound(0.05), "forward": Bound(0.05, 16), "backward": Bound(1.5)},
    "groups": {"call": Bound(0.05), "forward": Bound(0.05, 16), "backward": Bound(1.6)},
    "channels": {"call": Bound(0.05, 48), "forward": Bound(0.05, 48), "backward": Bound(0.05, 64)},
    "instance_norm": {"call": Bound(0.05, 40), "forward": Bound(0.05, 40), "backward": Bound(1.6)},
    "weight_norm": {"call": Bound(0.05), "forward": Bound(0.05, 16), "backward": Bound(0.05, 8)},
    "windows": {"call": Bound(0.0), "forward": Bound(0.0), "backward": Bound(0.1)},
}
ACTIVATION = 1.0


@dataclass(frozen=True)
class Case:
    """A norm of float32 of this shape, with parameters or without, and what follows it."""

    spec: NormSpec
    shape: tuple[int, ...]
    parameters: bool = True
    activation: str | None = None
    dtype: Any = np.float32

    def arguments(self) -> dict[str, Any]:
        arguments = self.spec.arguments(self.shape, self.dtype, np.random.default_rng(0))
        if not self.parameters:
            arguments |= dict.fromkeys(set(arguments) & {"weight", "bias"})
        return arguments | ({"activation": self.activation} if self.activation else {})

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def bound(self, pass_: str, groups: int) -> float:
        bound = BOUNDS[self.spec.name if self.spec.name in BOUNDS else self.spec.family][pass_]
        kept = ACTIVATION if self.activation and pass_ == "backward" else 0.0
        return bound.bytes(self.size, groups) + kept * 4 * self.size


def cases(spec: NormSpec) -> Iterator[Case]:
    for shape in SHAPES[spec.family]:
        yield Case(spec, shape)
        if "weight" in spec.parameters:
            yield Case(spec, shape, parameters=False)
        if spec.activation:
            yield Case(spec, shape, activation="relu")


def _bytes_of(result: Any) -> int:
    """Bytes of the arrays that a pass returns; of what a forward keeps, those of y only."""
    arrays = result if isinstance(result, nk.Grads) else (result[0] if isinstance(result, tuple) else result,)
    return sum(a.nbytes for a in arrays if a is not None)


def extra(pass_: Callable[[], Any]) -> int:
    """Bytes that a pass has at its peak beside its results."""
    nk.release_buffers()
    tracemalloc.start()
    try:
        result = pass_()
        return tracemalloc.get_traced_memory()[1] - _bytes_of(result)
    finally:
        tracemalloc.stop()


def measured(case: Case) -> tuple[dict[str, int], int]:
    """Extra bytes of the call, the forward of training and the backward, and the number of groups."""
    x = np.ones(case.shape, case.dtype)
    x.flat[::2] = 2
    passes, arguments = case.spec.kernels, case.arguments()
    _, saved = passes.forward(x, **arguments)  # compiled, and every plan made
    passes.backward(x, saved)
    passes.call(x, **arguments)
    found = {
        "call": extra(lambda: passes.call(x, **arguments)),
        "forward": extra(lambda: passes.forward(x, **arguments)),
        "backward": extra(lambda: passes.backward(x, saved)),
    }
    return found, saved.rstd.size


def table() -> str:
    """Extra bytes as a part of those of x."""
    lines = ["| norm | shape | | call | forward | backward |", "| --- | --- | --- | --: | --: | --: |"]
    for spec in NORMS.values():
        for case in cases(spec):
            found, _ = measured(case)
            kind = "relu" if case.activation else "" if case.parameters else "no parameters"
            shape = "×".join(map(str, case.shape))
            parts = " | ".join(f"{found[p] / (4 * case.size):.2f}" for p in ("call", "forward", "backward"))
            lines.append(f"| {spec.name} | {shape} | {kind} | {parts} |")
    return "\n".join(lines)


@click.command(help=f"Measure the memory that each norm and pass takes, and write it into {PAGE.name}.")
def main() -> None:
    markdown.insert(PAGE, table(), BLOCK)


if __name__ == "__main__":
    main()
