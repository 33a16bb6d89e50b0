"""How near a pass is to what the machine's memory allows, and how far from plain NumPy."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from .cases import CASES, PASSES, bytes_moved, compiled
from .numpy_norms import numpy_call

COPIED = 128 << 20  # bytes


def seconds(*functions: Callable[[], Any], repetitions: int = 9) -> list[float]:
    """Median time of each function, all taking turns, so that none has the machine's better minutes."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repetitions):
        for function, taken in zip(functions, times, strict=True):
            start = perf_counter()
            function()
            taken.append(perf_counter() - start)
    return [median(taken) for taken in times]


def copier() -> Callable[[], Any]:
    """`numpy.copyto` of 128 MB into memory in use, shared by as many threads as the kernels have."""
    threads = int(os.environ.get("NUMBA_NUM_THREADS", "1"))
    source = np.ones(COPIED, np.uint8)
    target = np.zeros_like(source)
    sources, targets = np.array_split(source, threads), np.array_split(target, threads)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(np.copyto, targets, sources))


class Traffic:
    """Bytes moved per second, that divided by the same of a copy, and how many times NumPy's speed.

    The bytes are what a pass must at least move: x and y; dy, x and dx. Tensors are of a batch of 64,
    6 to 67 MB: where one fits in the last-level cache the fraction can exceed 1.
    A higher value is better here. asv does not know that: `asv compare` marks it as worse.
    """

    version = "1"
    params = (list(CASES), list(PASSES))
    param_names = ("case", "pass")
    timeout = 120

    def setup(self, case: str, pass_: str) -> None:
        self.batch = 1 if case.startswith("weight_norm") else 64
        self.run = compiled(case, self.batch, pass_)
        self.bytes = bytes_moved(case, self.batch, pass_)

    def track_gbps(self, case: str, pass_: str) -> float:
        (taken,) = seconds(self.run)
        return self.bytes / taken / 1e9

    def track_copy_fraction(self, case: str, pass_: str) -> float:
        """Of the bytes per second of `copier`, which reads 128 MB and writes 128 MB."""
        taken, copying = seconds(self.run, copier())
        return (self.bytes / taken) / (2 * COPIED / copying)

    def track_speedup_vs_numpy(self, case: str, pass_: str) -> float:
        """Against numpy_norms.py: float32, one thread."""
        taken, numpy = seconds(self.run, numpy_call(case, self.batch, pass_), repetitions=3)
        return numpy / taken

    track_gbps.unit = "GB/s"  # type: ignore[attr-defined]
    track_copy_fraction.unit = "of copy speed"  # type: ignore[attr-defined]
    track_speedup_vs_numpy.unit = "x NumPy"  # type: ignore[attr-defined]
