"""Arrays between small and large: from which size on threads and streaming stores pay.

    python benchmarks/middle.py --into docs/decisions/0017-the-middle.md

Layer norm of rows of 768 float32, and batch norm in evaluation of 64 channels, which are last. Cold: inputs
and outputs rotate through a gigabyte. Pipeline: x has just been written, y is read next; the time of both
without the norm is taken off. Needs an idle machine; two minutes.
"""

from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np

import normkernels as nk
from normkernels.bench import markdown
from normkernels.bench.machine import machine
from normkernels.cpu import tuning

COLS, CHANNELS = 768, 64
ROTATION = 1 << 30
STORES = {"through the caches": 1 << 60, "past them": 0}
Array = Any
Norm = Callable[[Array, Array, int | None], None]


def _layer_norm(x: Array, y: Array, threads: int | None) -> None:
    weight = np.ones(x.shape[1], np.float32)
    nk.layer_norm(x, x.shape[1], weight, weight, dim=-1, out=y, threads=threads)  # dim: without the look-up


def _batch_norm(x: Array, y: Array, threads: int | None) -> None:
    ones = np.ones(x.shape[1], np.float32)
    axis = np.int64(1)  # no int: without the look-up
    nk.batch_norm(x, ones, ones, ones, ones, channel_axis=axis, out=y, threads=threads)  # type: ignore[arg-type]


NORMS: dict[str, tuple[Norm, int]] = {
    "layer norm": (_layer_norm, COLS),
    "batch norm": (_batch_norm, CHANNELS),
}


def _seconds(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def streaming(norm: Norm, cols: int, nbytes: int, threads: int | None) -> list[float]:
    """Seconds: cold through the caches and past them, then the same of the pipeline."""
    shape = nbytes // (4 * cols), cols
    pairs = [np.ones((2, *shape), np.float32) for _ in range(max(3, ROTATION // (2 * nbytes)))]
    x, y = pairs.pop()
    written = np.ones(shape, np.float32)
    cold: dict[str, list[float]] = {name: [] for name in STORES}
    pipeline, without = {name: [] for name in STORES}, []
    rotating: Iterator[Array] = cycle(pairs)
    for _ in range(max(11, min(60, (400 << 20) // nbytes))):
        for name, limit in STORES.items():
            tuning.STREAM_BYTES = limit
            other, target = next(rotating)
            cold[name].append(_seconds(lambda: norm(other, target, threads)))  # noqa: B023
            y.sum()
            pipeline[name].append(
                _seconds(
                    lambda: (np.copyto(x, written), norm(x, y, threads), y.sum())  # type: ignore[func-returns-value]
                )
            )
        without.append(_seconds(lambda: (np.copyto(x, written), y.sum())))  # type: ignore[func-returns-value]
    spent = median(without)
    return [*(median(v) for v in cold.values()), *(median(v) - spent for v in pipeline.values())]


def alone_and_together(nbytes: int) -> tuple[float, float]:
    """Seconds on one thread and on all, of arrays that are in the cache."""
    x = np.ones((nbytes // (4 * COLS), COLS), np.float32)
    y, found = np.empty_like(x), ([], [])
    for _ in range(200):
        for threads, times in zip((1, None), found, strict=True):
            _layer_norm(x, y, threads)
            times.append(_seconds(lambda t=threads: _layer_norm(x, y, t)))
    return median(found[0]), median(found[1])


def tables() -> str:
    m = machine(0)
    lines = [
        "| norm | MB of x | cold | cold, all threads | pipeline | pipeline, all threads |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, (norm, cols) in NORMS.items():
        for mb in (1, 2, 4, 8, 16, 24, 32, 64, 128):
            one, all_ = streaming(norm, cols, mb << 20, 1), streaming(norm, cols, mb << 20, None)
            ratios = one[1] / one[0], all_[1] / all_[0], one[3] / one[2], all_[3] / all_[2]
            lines.append(" | ".join([f"| {name} | {mb}", *(f"{r:.2f}" for r in ratios)]) + " |")
    threads = [
        "| KB of x | " + " | ".join(str(2**k) for k in range(5, 12)) + " |",
        "| --- " + "| --: " * 7 + "|",
    ]
    tuning.PARALLEL_BYTES = 0
    both = (alone_and_together(1024 << k) for k in range(5, 12))
    threads.append("| all threads | " + " | ".join(f"{b / a:.2f}" for a, b in both) + " |")
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    where = (
        f"{m.cpu}, {m.cores} cores, last-level cache of {m.cache_bytes >> 20} MB ({versions}), {m.date[:10]}"
    )
    return "\n".join(
        [
            f"{where}.",
            "",
            "Time past the caches over time through them:",
            "",
            *lines,
            "",
            "Time on all threads over time on one:",
            "",
            *threads,
        ]
    )


@click.command(help=(__doc__ or "").splitlines()[0])
@click.option("--into", type=click.Path(path_type=Path), help="Put the tables into a page.")
def main(into: Path | None) -> None:
    text = tables()
    click.echo(text)
    if into:
        markdown.insert(into, text, "middle")


if __name__ == "__main__":
    main()
