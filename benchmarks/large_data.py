"""Data larger than memory: a cluster of processes with little memory each takes a file of four times as much.

    python benchmarks/large_data.py --into docs/large-data.md [--json FILE]

writes the tables between the markers of the page; `--from FILE` takes stored results instead of measuring.
Needs the extras `dask` and `bench`, the bytes of the data twice on disk, and some minutes.
"""

import argparse
import hashlib
import json
import logging
import math
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.distributed import Client, Future, LocalCluster

import normkernels as nk
from normkernels._dask import SPLIT_EVERY
from normkernels.bench import files, schema
from normkernels.bench.machine import Machine, machine, usage
from normkernels.bench.markdown import insert, line, rule
from normkernels.bench.summary import BUSY, duration

MEASURED, EXPECTED = "large-data", "large-data-expected"

MB, GB, TB = 1e6, 1e9, 1e12
FEATURES = 1000
STEPS = ("moments", "zscore")
# Seconds after which a step is given up.
PATIENCE = 600
# Chunks of a few numbers, by which the cost of a task is measured.
SMALL_CHUNKS = 2000

# The machines that the page speaks of.
DATA, MACHINES, CORES = 100 * TB, 100, 32
DISK, NETWORK = 2 * GB, 25e9 / 8  # bytes per second of each: an NVMe disk, Ethernet of 25 Gbit/s
CHUNK_BYTES = 1 * GB
# Of a merge: count, mean, m2, and what the last two lost, in float64.
NUMBERS = 5


@dataclass(frozen=True)
class Step:
    """One step on a cluster: its time, and a hash of the result.

    killed: whether a worker was killed while it ran; peak_bytes: the most memory that a worker held so far.
    """

    name: str
    workers: int
    killed: bool
    seconds: float
    peak_bytes: int
    digest: str


@dataclass(frozen=True)
class Results:
    """bytes: of the data, float32; limit: memory of a worker; task_seconds: a task that does nothing."""

    machine: Machine
    bytes: int
    chunk_bytes: int
    limit: int
    steps: list[Step]
    task_seconds: float
    others: float


def write_data(path: Path, rows: int, chunk: int) -> None:
    """Numbers with a mean of 1000 sd, float32."""
    with path.open("wb") as file:
        for i, start in enumerate(range(0, rows, chunk)):
            x = np.random.default_rng(i).standard_normal((min(chunk, rows - start), FEATURES), np.float32)
            file.write(x + np.float32(1000))


def read(path: str, delay: float, block_info: Any = None) -> Any:
    """Rows of the file: a task opens it, so that no array travels with the graph."""
    (start, stop), _ = block_info[None]["array-location"]
    time.sleep(delay)
    return np.fromfile(path, np.float32, (stop - start) * FEATURES, offset=4 * start * FEATURES).reshape(
        -1, FEATURES
    )


def lazy(path: Path, chunk: int, delay: float = 0.0) -> Any:
    """The file as a Dask array."""
    rows = path.stat().st_size // (4 * FEATURES)
    chunks = da.core.normalize_chunks((chunk, FEATURES), (rows, FEATURES))
    return da.map_blocks(read, str(path), delay, chunks=chunks, dtype=np.float32, meta=np.empty((0, 0), "f4"))


def write(block: Any, path: str, block_info: Any = None) -> Any:
    """Put a block into a file, and return its hash."""
    start = block_info[0]["array-location"][0][0]
    with open(path, "r+b") as file:
        file.seek(4 * start * FEATURES)
        file.write(block)
    digest = hashlib.sha256(block.tobytes()).digest()
    return np.frombuffer(digest, np.uint64).reshape(1, -1)


def moments_of(x: Any, out: Path) -> Any:
    return dask.delayed(bits)(nk.moments(x))


def bits(moments: Any) -> Any:
    """The bits of moments, in merges too."""
    return np.stack([moments.mean, moments.var, *(a for pair in moments._pairs() for a in pair)])


def scores_of(x: Any, out: Path) -> Any:
    """Statistics first, in a pass of their own; then the output, written chunk by chunk: hashes remain."""
    statistics = nk.moments(x).compute()
    y = nk.zscore(x, statistics=statistics)
    chunks = ((1,) * x.numblocks[0], (4,))
    return y.map_blocks(write, str(out), chunks=chunks, dtype=np.uint64, meta=np.empty((0, 0), np.uint64))


def done(future: Future, client: Client) -> float:
    """The part of the tasks that is finished."""

    def parts(dask_scheduler: Any) -> tuple[int, int]:
        states = [task.state for task in dask_scheduler.tasks.values()]
        return sum(s in ("memory", "released", "forgotten") for s in states), len(states)

    finished, total = client.run_on_scheduler(parts)
    return 1.0 if future.done() else finished / max(total, 1)


def kill_one(future: Future, client: Client, pids: dict[str, int]) -> None:
    """Kill a worker, without a word, once a quarter of the tasks is done."""
    while done(future, client) < 0.25:
        time.sleep(0.01)
    if future.done():
        raise SystemExit("the work was done before a worker could be killed: give it more data, or a --delay")
    os.kill(min(pids.values()), signal.SIGKILL)


def step(name: str, x: Any, out: Path, client: Client, workers: int, kill: bool) -> Step:
    """Run one step to its end, or kill a worker on the way."""
    make: Callable[..., Any] = {"moments": moments_of, "zscore": scores_of}[name]
    pids = client.run(os.getpid)
    begin = time.perf_counter()
    future = client.compute(make(x, out))
    if kill:
        kill_one(future, client, pids)
    result = future.result(timeout=PATIENCE)
    seconds = time.perf_counter() - begin
    client.wait_for_workers(workers, timeout=PATIENCE)
    peaks = client.run(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    if kill and set(client.run(os.getpid).values()) == set(pids.values()):
        raise SystemExit("no worker was killed")
    digest = hashlib.sha256(np.ascontiguousarray(result).tobytes()).hexdigest()
    return Step(name, workers, kill, seconds, 1024 * max(peaks.values()), digest)


def warm() -> None:
    """Load what the steps call."""
    x = np.ones((64, FEATURES), np.float32)
    nk.zscore(x, statistics=nk.moments(x, threads=1), threads=1)


def cost_of_a_task(client: Client) -> float:
    """Seconds of one of many tasks that have nothing to do."""
    x = da.zeros(SMALL_CHUNKS, chunks=1)
    begin = time.perf_counter()
    x.map_blocks(np.negative).sum(split_every=SMALL_CHUNKS).compute()
    return (time.perf_counter() - begin) / SMALL_CHUNKS


def measure(
    data: int, chunk_bytes: int, limit: int, counts: list[int], folder: Path, delay: float
) -> Results:
    """Every step with each number of workers, and again with a worker killed."""
    rows, chunk = data // (4 * FEATURES), max(1, chunk_bytes // (4 * FEATURES))
    source, out = folder / "x.bin", folder / "y.bin"
    write_data(source, rows, chunk)
    out.touch()
    os.truncate(out, source.stat().st_size)
    found: list[Step] = []
    before, cost = usage(), 0.0
    for workers in counts:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            memory_limit=limit,
            dashboard_address=None,
            local_directory=str(folder),
            silence_logs=logging.CRITICAL,
        )
        with closing(cluster), Client(cluster, timeout=PATIENCE) as client:
            client.wait_for_workers(workers, timeout=PATIENCE)
            client.run(warm)
            for kill in (False, True):
                x = lazy(source, chunk, delay)
                found += [step(name, x, out, client, workers, kill) for name in STEPS]
            cost = cost_of_a_task(client)
            others = before.shares(usage())[1]
    for name in STEPS:
        if len({s.digest for s in found if s.name == name}) > 1:
            raise SystemExit(f"{name} has other bits with other workers")
    here = machine(min(max(counts), os.cpu_count() or 1), ("dask", "distributed"))
    return Results(here, 4 * rows * FEATURES, chunk_bytes, limit, found, cost, others)


def measured_table(results: Results) -> str:
    """Time, speed and memory of each step."""
    head = ["step", "workers", "a worker killed", "time", "data / s", "peak of a worker", "result"]
    lines = [line(head), rule(1, len(head) - 1)]
    for s in results.steps:
        lines.append(
            line(
                [
                    {"moments": "`moments`", "zscore": "`moments`, then `zscore` into a file"}[s.name],
                    str(s.workers),
                    "yes" if s.killed else "no",
                    duration(s.seconds),
                    f"{results.bytes / s.seconds / MB:.0f} MB/s",
                    f"{s.peak_bytes / MB:.0f} MB",
                    f"`{s.digest[:8]}`",
                ]
            )
        )
    m = results.machine
    versions = ", ".join(f"{name} {v}" for name, v in m.versions.items())
    busy = f" **Other work used {results.others:.0%} of the processors.**" if results.others > BUSY else ""
    return "\n".join(
        [
            *lines,
            "",
            f"{results.bytes / MB:.0f} MB of float32, {FEATURES} features, in chunks of "
            f"{results.chunk_bytes / MB:.0f} MB: {results.bytes / results.limit:.1f} times the limit of a "
            f"worker, {results.limit / MB:.0f} MB, which is a process of one thread. The result is the start "
            "of a hash of all its bits. Measured with `python benchmarks/large_data.py` on "
            f"{m.title}, {m.memory_bytes / GB:.0f} GB ({versions}), {m.date[:10]}.{busy}",
        ]
    )


@dataclass(frozen=True)
class Projection:
    """What the data of the page need on its machines: seconds of a pass, and of what is in it."""

    disk: float
    arithmetic: float
    tasks: float
    depth: int
    merged_bytes: float

    @property
    def network(self) -> float:
        """Seconds in which the machines receive all statistics that are merged."""
        return self.merged_bytes / (MACHINES * NETWORK)

    @property
    def seconds(self) -> float:
        """The slowest of what goes on at once."""
        return max(self.disk, self.arithmetic, self.tasks) + self.network


def projected(results: Results) -> Projection:
    """Reading, arithmetic and merges of one pass for moments."""
    rate = max(results.bytes / s.seconds / s.workers for s in results.steps if s.name == "moments")
    chunks = DATA / CHUNK_BYTES
    merges = chunks / (SPLIT_EVERY - 1)
    return Projection(
        DATA / (MACHINES * DISK),
        DATA / (MACHINES * CORES * rate),
        (chunks + merges) * results.task_seconds,
        math.ceil(math.log(chunks, SPLIT_EVERY)),
        (chunks + merges) * NUMBERS * 8 * FEATURES,
    )


def expected_table(results: Results) -> str:
    """The projection, and what it is computed from."""
    p = projected(results)
    rows = [
        ("reading from disks, a pass", f"{MACHINES} × {DISK / GB:.0f} GB/s", duration(p.disk)),
        (
            "arithmetic of moments",
            f"{MACHINES} × {CORES} cores at the speed of a worker above",
            duration(p.arithmetic),
        ),
        (
            "scheduling",
            f"{DATA / CHUNK_BYTES:,.0f} chunks of {CHUNK_BYTES / GB:.0f} GB and their merges, "
            f"{duration(results.task_seconds)} a task, as measured",
            duration(p.tasks),
        ),
        ("depth of the merge tree", f"{SPLIT_EVERY} at once", str(p.depth)),
        (
            "bytes moved by merges",
            f"{NUMBERS} numbers of 8 bytes for each of {FEATURES} features, every one between machines",
            f"{p.merged_bytes / GB:.2g} GB, {duration(p.network)} at {MACHINES} × {NETWORK / GB:.3g} GB/s",
        ),
        ("**a pass for moments**", "the slowest of the first three, and the merges", duration(p.seconds)),
        (
            "**moments, then zscore**",
            "two passes; the second writes as much as it reads",
            duration(3 * p.seconds),
        ),
    ]
    return "\n".join([line(["", "from", ""]), rule(2, 1), *map(line, rows)])


def write_page(page: Path, results: Results) -> None:
    """The tables, between their markers."""
    insert(page, measured_table(results), MEASURED)
    insert(page, expected_table(results), EXPECTED)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, metavar="PAGE", help="the page to write into")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the results")
    parser.add_argument("--from", dest="stored", type=Path, metavar="FILE", help="results to take")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[2, 4], metavar="N", help="processes; 2 and 4"
    )
    parser.add_argument("--limit", type=int, default=512, metavar="MB", help="memory of a worker; 512")
    parser.add_argument("--data", type=int, metavar="MB", help="default four times the memory of a worker")
    parser.add_argument("--chunk", type=int, default=32, metavar="MB", help="32")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the files are written, and removed")
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="S", help="seconds that a read takes longer"
    )
    options = parser.parse_args()
    if options.stored:
        results = schema.made(Results, schema.read(options.stored))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            sizes = (options.data or 4 * options.limit, options.chunk, options.limit)
            data, chunk, limit = (int(size * MB) for size in sizes)
            results = measure(data, chunk, limit, options.workers, Path(folder), options.delay)
    print(measured_table(results))
    print(expected_table(results))
    if options.json:
        files.write(options.json, json.dumps(asdict(results), indent=1).encode())
    if options.into:
        write_page(options.into, results)


if __name__ == "__main__":
    main()
