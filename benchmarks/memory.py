"""What a pass allocates beside its results: `python benchmarks/memory.py` writes the tables of docs/memory.md.

NumPy tells tracemalloc of every array, those of the buffer pool too; the few kilobytes that a kernel takes for
itself are not seen.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import ml_dtypes
import numpy as np

import normkernels as nk
from normkernels.bench import markdown
from normkernels.norms import NORMS, NormSpec

PAGE, BLOCK = Path(__file__).parents[1] / "docs" / "memory.md", "memory"
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}

# Where statistics, parameters and partial sums weigh most: long groups, short ones, and what lies between.
SHAPES = {
    "rows": ((1, 1 << 20), (8, 1 << 17), (1 << 10, 1 << 10), (1 << 18, 4)),
    "groups": ((1, 2, 1 << 19), (8, 32, 1 << 12), (64, 256, 8, 8), (64, 1 << 12, 2, 2)),
    "channels": ((1, 2, 1 << 19), (8, 32, 1 << 12), (64, 256, 8, 8), (1 << 10, 1 << 10), (4, 1 << 18)),
    "windows": ((1, 4, 1 << 18), (8, 32, 1 << 12), (64, 256, 8, 8)),
}


@dataclass(frozen=True)
class Case:
    """A norm of an array of this shape and dtype, with or without parameters, and what follows it."""

    spec: NormSpec
    shape: tuple[int, ...]
    dtype: str
    parameters: bool = True
    activation: str | None = None

    def arguments(self) -> dict[str, Any]:
        arguments = self.spec.arguments(self.shape, DTYPES[self.dtype], np.random.default_rng(0))
        if not self.parameters:
            arguments |= dict.fromkeys(set(arguments) & {"weight", "bias"})
        return arguments | ({"activation": self.activation} if self.activation else {})


def cases(spec: NormSpec) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES[spec.family]:
            yield Case(spec, shape, dtype)
            if "weight" in spec.parameters:
                yield Case(spec, shape, dtype, parameters=False)
            if spec.activation:
                yield Case(spec, shape, dtype, activation="relu")


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


def measured(case: Case) -> dict[str, int]:
    """Extra bytes of each pass: the call, the forward of training, with what it keeps, and the backward."""
    x = np.ones(case.shape, DTYPES[case.dtype])
    x.flat[::2] = 2
    passes, arguments = case.spec.kernels, case.arguments()
    _, saved = passes.forward(x, **arguments)  # compiled, and every plan made
    passes.backward(x, saved)
    passes.call(x, **arguments)
    return {
        "call": extra(lambda: passes.call(x, **arguments)),
        "forward": extra(lambda: passes.forward(x, **arguments)),
        "backward": extra(lambda: passes.backward(x, saved)),
    }
