"""How speed goes with size and threads: norms of 1 KB to 4 GB, one thread and all, and a fitted model.

    python benchmarks/scaling.py --into docs/scaling.md [--json FILE]

writes the tables between the markers of the page, and the chart beside it. `--from FILE` takes stored results
instead of measuring. Needs an idle machine, SciPy (extra `ab`) and some minutes.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numba
import numpy as np
import psutil
from scipy.optimize import least_squares

import normkernels as nk
from normkernels.bench import files, schema
from normkernels.bench.copy import Copy, copy_bytes
from normkernels.bench.machine import Machine, machine, usage
from normkernels.bench.markdown import insert, line, rule
from normkernels.bench.summary import BUSY, duration
from normkernels.cpu import tuning

MEASURED, MODEL, EXPECTED = "scaling", "scaling-model", "scaling-expected"
PICTURE = "scaling.svg"

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30
SIZES = [KB << 2 * k for k in range(12)]  # 1 KB to 4 GB
TENSORS = {"forward": 2, "backward": 3}
OPS = ("layer_norm", "batch_norm")
COLUMNS, CHANNELS, IMAGE = 1024, 64, 32
# A call on less than this stays on one thread, and a thread has this much of a tensor at least.
PARALLEL, PIECE = tuning.PARALLEL_BYTES, 128 * KB

# The machine that the page speaks of.
CORES, MEMORY_CHANNELS = 64, 12
CHANNEL_GBS, EFFICIENCY = 38.4, 0.8  # DDR5-4800, and what a copy gets of it
PRIVATE, SHARED = 2 * MB, 4 * MB  # caches, each core's and its part of what all share


@dataclass(frozen=True)
class Point:
    """Seconds of one call on float32 of so many bytes."""

    op: str
    pass_: str
    nbytes: int
    threads: int
    seconds: float

    @property
    def moved(self) -> int:
        return TENSORS[self.pass_] * self.nbytes

    @property
    def gbs(self) -> float:
        return self.moved / self.seconds / 1e9


@dataclass(frozen=True)
class Results:
    """What was measured: large copies in GB/s by numbers of threads, every point, and what part of the
    processors other work used meanwhile."""

    machine: Machine
    copy: dict[str, float]
    points: list[Point]
    others: float

    def of(self, op: str, pass_: str) -> list[Point]:
        return [p for p in self.points if (p.op, p.pass_) == (op, pass_)]


def shape_of(op: str, nbytes: int) -> tuple[int, ...]:
    """Rows of up to 1024, or images of 64 channels and up to 32 x 32."""
    size = nbytes // 4
    if op == "layer_norm":
        return size // min(size, COLUMNS), min(size, COLUMNS)
    side = min(IMAGE, math.isqrt(size // CHANNELS))
    return size // (CHANNELS * side * side), CHANNELS, side, side


def passes(op: str, x: Any, dy: Any, out: Any) -> dict[str, Callable[[int], Any]]:
    """The calls that are timed; their results go into `out`."""
    ones, zeros = (np.full(x.shape[1], value, np.float32) for value in (1, 0))
    if op == "layer_norm":
        _, saved = nk.layer_norm_forward(x, x.shape[1], ones, zeros, out=out)
        forward = lambda n: nk.layer_norm(x, x.shape[1], ones, zeros, out=out, threads=n)  # noqa: E731
        return {
            "forward": forward,
            "backward": lambda n: nk.layer_norm_backward(dy, saved, out=out, threads=n),
        }
    _, saved = nk.batch_norm_forward(x, None, None, ones, zeros, training=True, out=out)
    return {
        "forward": lambda n: nk.batch_norm(x, None, None, ones, zeros, training=True, out=out, threads=n),
        "backward": lambda n: nk.batch_norm_backward(dy, saved, out=out, threads=n),
    }


def seconds(call: Callable[[int], Any], threads: int, effort: float) -> float:
    """The median of some samples; in each the arrays are those of the call before."""
    call(threads)
    start = perf_counter()
    call(threads)
    calls = max(1, math.ceil(effort / 10 / (perf_counter() - start)))
    samples: list[float] = []
    begin = perf_counter()
    while len(samples) < 3 or (perf_counter() - begin < effort and len(samples) < 25):
        start = perf_counter()
        for _ in range(calls):
            call(threads)
        samples.append((perf_counter() - start) / calls)
    return median(samples)


def largest(available: int) -> int:
    """The largest size of which three tensors fit in a quarter of the memory that is free, 4 GB at most."""
    return max(s for s in {*SIZES, *(2 * s for s in SIZES)} if s <= min(SIZES[-1], available // 4 // 3))


def measure(most: int, effort: float) -> Results:
    """All sizes up to `most`, and `most`."""
    counts = sorted({1, numba.config.NUMBA_NUM_THREADS})
    found = machine(counts[-1])
    copies = [Copy(min(copy_bytes(found.last_level_bytes), most), n) for n in counts]
    best: dict[str, float] = {}
    before = usage()
    points: list[Point] = []
    for nbytes in [*(s for s in SIZES if s < most), most]:
        x = np.random.default_rng(0).standard_normal(nbytes // 4, np.float32)
        dy, out = x[::-1].copy(), np.empty_like(x)
        for op in OPS:
            shaped = (a.reshape(shape_of(op, nbytes)) for a in (x, dy, out))
            for pass_, call in passes(op, *shaped).items():
                points += [Point(op, pass_, nbytes, n, seconds(call, n, effort)) for n in counts]
        for copy in copies:
            gbs = copy.bytes_moved / min(copy.plain(), copy.streaming()) / 1e9
            best[str(copy.threads)] = max(best.get(str(copy.threads), 0.0), gbs)
    return Results(machine(counts[-1]), best, points, before.shares(usage())[1])


@dataclass(frozen=True)
class Computer:
    """What the model asks of a machine: bytes of each core's cache, and of the one that all share."""

    private: float
    shared: float

    @classmethod
    def of(cls, m: Machine) -> "Computer":
        private = m.caches.get("L2", m.caches.get("L1d", 0))
        return cls(private, m.last_level_bytes if len(m.caches) > 2 else 0)


@dataclass(frozen=True)
class Model:
    """A pass of a norm: seconds of a call and of a parallel region, and GB/s of bytes in each level.

    `all_shared` and `all_memory` are the most that all cores together get.
    """

    call: float
    region: float
    private: float
    shared: float
    memory: float
    all_shared: float
    all_memory: float

    def seconds(self, computer: Computer, moved: float, nbytes: float, threads: int) -> float:
        """call + region * log2(threads) + bytes / rate, summed over the levels that the bytes come from."""
        used = 1.0 if nbytes < PARALLEL else min(float(threads), nbytes / PIECE)
        beyond = [1.0] + [_missed(moved, c) for c in (used * computer.private, computer.shared)] + [0.0]
        beyond[2] = min(beyond[1:3])
        rates = (
            used * self.private,
            _together(used * self.shared, self.all_shared),
            _together(used * self.memory, self.all_memory),
        )
        shares = (near - far for near, far in pairwise(beyond))
        parts = (share * moved / rate / 1e9 for share, rate in zip(shares, rates, strict=True))
        return self.call + self.region * math.log2(used) + sum(parts)


def _missed(moved: float, cache: float) -> float:
    """The part of the bytes that a cache does not hold, where it keeps an arbitrary part of them."""
    return max(0.0, 1 - cache / moved)


def _together(cores: float, limit: float) -> float:
    """The smaller of two rates, rounded off near where they meet."""
    return float((cores**-4 + limit**-4) ** -0.25)


def fitted(points: Sequence[Point], computer: Computer) -> tuple[Model, float]:
    """The model of least squares of the logarithm of the times, and its median error as a factor less 1."""
    alone, most = [p for p in points if p.threads == 1], max(p.threads for p in points)
    small, peak = min(p.seconds for p in points), max(p.gbs for p in alone)
    last = max(alone, key=lambda p: p.nbytes).gbs

    def model(logarithms: Any) -> Model:
        call, region, private, shared, memory, *times = map(float, np.exp(logarithms))
        return Model(call, region, private, shared, memory, shared * times[0], memory * times[1])

    def errors(logarithms: Any) -> Any:
        found = model(logarithms)
        return [math.log(found.seconds(computer, p.moved, p.nbytes, p.threads) / p.seconds) for p in points]

    start = np.log([small, small, peak, max(last, peak / 2), last, 1.5, 1.5])
    # All cores get no less than one does, and how much more many would get is not seen here.
    bounds = start - math.log(1e3), start + math.log(1e3)
    bounds[0][-2:], bounds[1][-2:] = 0.0, math.log(8 * most)
    found = least_squares(errors, start, bounds=bounds, loss="soft_l1", f_scale=0.1).x
    return model(found), math.exp(median(map(abs, errors(found)))) - 1


def on_many_cores(model: Model, of_copy: float) -> tuple[Computer, Model]:
    """The machine of the page, and the model there: caches go with the cores, memory is what it is."""
    copy = MEMORY_CHANNELS * CHANNEL_GBS * EFFICIENCY
    there = replace(model, all_shared=CORES * model.shared, all_memory=of_copy * copy)
    return Computer(PRIVATE, CORES * SHARED), there


def of_copy(results: Results, op: str, pass_: str, threads: int) -> float:
    """The largest size's part of the speed of a large copy by the same threads."""
    last = max((p for p in results.of(op, pass_) if p.threads == threads), key=lambda p: p.nbytes)
    return min(1.0, last.gbs / results.copy[str(threads)])


def size(nbytes: float) -> str:
    unit, name = next((u for u in ((GB, "GB"), (MB, "MB"), (KB, "KB")) if nbytes >= u[0]), (1, "B"))
    return f"{nbytes / unit:.0f} {name}"


def title(op: str, pass_: str) -> str:
    return f"{op.replace('_', ' ')} {pass_}"


KINDS = [(op, pass_) for op in OPS for pass_ in TENSORS]


def measured_table(results: Results) -> str:
    """GB/s of compulsory bytes, and their part of a copy's, for each size, pass and number of threads."""
    counts = sorted({p.threads for p in results.points})
    head = [f"{title(*kind)}, {n} thread{'s' * (n > 1)}" for kind in KINDS for n in counts]
    lines = [line(["one tensor", *head]), rule(1, len(head))]
    by = {(p.op, p.pass_, p.nbytes, p.threads): p for p in results.points}
    for nbytes in sorted({p.nbytes for p in results.points}):
        row = [by[(*kind, nbytes, n)] for kind in KINDS for n in counts]
        cells = [f"{p.gbs:.1f} ({p.gbs / results.copy[str(p.threads)]:.2f})" for p in row]
        lines.append(line([size(nbytes), *cells]))
    m = results.machine
    copies = ", ".join(f"{results.copy[str(n)]:.1f} GB/s by {n}" for n in counts)
    versions = ", ".join(f"{name} {v}" for name, v in m.versions.items())
    caches = ", ".join(f"{level} {size(nbytes)}" for level, nbytes in m.caches.items())
    busy = (
        f" **Other work used {results.others:.0%} of the processors meanwhile.**"
        if results.others > BUSY
        else ""
    )
    return "\n".join(
        [
            *lines,
            "",
            f"GB/s, and in brackets the part of a large copy by as many threads ({copies}). Measured with "
            f"`python benchmarks/scaling.py` on {m.title}, {m.memory_bytes / GB:.0f} GB, caches {caches} "
            f"({versions}), {m.date[:10]}.{busy}",
        ]
    )


def model_table(models: dict[Any, tuple[Model, float]]) -> str:
    """The fitted numbers."""
    head = ["call", "region", "caches of a core", "shared cache, a core", "all", "memory, a core", "all"]
    lines = [line(["pass", *head, "median error"]), rule(1, len(head) + 1)]
    for kind, (m, error) in models.items():
        rates = (m.private, m.shared, m.all_shared, m.memory, m.all_memory)
        cells = [duration(m.call), duration(m.region), *(f"{r:.1f}" for r in rates), f"{error:.0%}"]
        lines.append(line([title(*kind), *cells]))
    return "\n".join(lines)


def expected_table(results: Results, models: dict[Any, tuple[Model, float]]) -> str:
    """Of the machine of the page: time and GB/s for some sizes, and how many cores memory can feed."""
    sizes = [64 * KB, MB, 16 * MB, 256 * MB, 4 * GB]
    lines = [line(["pass", *map(size, sizes), "cores that fill the memory"]), rule(1, len(sizes) + 1)]
    for kind, (model, _) in models.items():
        computer, there = on_many_cores(model, of_copy(results, *kind, results.machine.threads))
        cells = []
        for nbytes in sizes:
            moved = TENSORS[kind[1]] * nbytes
            time = there.seconds(computer, moved, nbytes, CORES)
            cells.append(f"{duration(time)}, {moved / time / 1e9:.0f} GB/s")
        cells.append(f"{min(CORES, math.ceil(there.all_memory / there.memory))}")
        lines.append(line([title(*kind), *cells]))
    return "\n".join(lines)


def chart(results: Results, models: dict[Any, tuple[Model, float]]) -> bytes:
    """Measured points, the model's lines through them, and its line for the machine of the page."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    here, many = Computer.of(results.machine), f"{CORES} cores, expected"
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for ax, (kind, (model, _)) in zip(figure.subplots(2, 2, sharex=True).flat, models.items(), strict=True):
        sizes = np.geomspace(KB, 4 * GB, 200)
        moved = TENSORS[kind[1]] * sizes
        points = results.of(*kind)
        for n, colour in zip(sorted({p.threads for p in points}), ("#3b75af", "#e08a3c"), strict=False):
            own = [p for p in points if p.threads == n]
            label = f"{n} thread{'s' * (n > 1)}"
            ax.plot([p.nbytes for p in own], [p.gbs for p in own], "o", ms=4, color=colour, label=label)
            times = [model.seconds(here, b, s, n) for b, s in zip(moved, sizes, strict=True)]
            ax.plot(sizes, moved / times / 1e9, "-", lw=1, color=colour)
        computer, there = on_many_cores(model, of_copy(results, *kind, results.machine.threads))
        times = [there.seconds(computer, b, s, CORES) for b, s in zip(moved, sizes, strict=True)]
        ax.plot(sizes, moved / times / 1e9, "--", lw=1.2, color="0.4", label=many)
        ax.set_xscale("log", base=2)
        ax.set_yscale("log")
        ax.set_xticks(SIZES[::2], [size(s) for s in SIZES[::2]], fontsize=8)
        ax.set_title(title(*kind), loc="left", fontsize=10)
        ax.grid(color="0.9")
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.supxlabel("bytes of one tensor, float32", fontsize=9)
    figure.supylabel("GB/s of the bytes that must move", fontsize=9)
    picture = BytesIO()
    # The same results give the same file, and text stays text.
    with rc_context({"svg.hashsalt": "scaling", "svg.fonttype": "none"}):
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()


def write_page(page: Path, results: Results) -> None:
    """The tables, between their markers, and the chart, in the folder `results` beside the page."""
    computer = Computer.of(results.machine)
    models = {kind: fitted(results.of(*kind), computer) for kind in KINDS}
    insert(page, measured_table(results), MEASURED)
    insert(page, model_table(models), MODEL)
    insert(page, expected_table(results, models), EXPECTED)
    files.write(page.parent / "results" / PICTURE, chart(results, models))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, metavar="PAGE", help="the page to write into")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the results")
    parser.add_argument("--from", dest="stored", type=Path, metavar="FILE", help="results to take")
    parser.add_argument("--most", type=int, metavar="MB", help="the largest tensor; default what fits")
    parser.add_argument("--effort", type=float, default=0.5, metavar="S", help="seconds for each point")
    options = parser.parse_args()
    if options.stored:
        results = schema.made(Results, schema.read(options.stored))
    else:
        most = largest(psutil.virtual_memory().available)
        results = measure(min(most, options.most * MB) if options.most else most, options.effort)
    print(measured_table(results))
    if options.json:
        files.write(options.json, json.dumps(asdict(results), indent=1).encode())
    if options.into:
        write_page(options.into, results)


if __name__ == "__main__":
    main()
