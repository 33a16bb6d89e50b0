"""Results to make reports of: plain ones, and ones with names that try to be more than text."""

import dataclasses
from typing import Any

from normkernels.bench.ab.outcome import Outcome, Plan, Side
from normkernels.bench.ab.verdict import Comparison
from normkernels.bench.cases import Case
from normkernels.bench.machine import Machine
from normkernels.bench.results import Baseline, CopySpeed, Results, Row, Timing
from normkernels.bench.revision import Revision

NASTY = [
    "<script>alert(1)</script>",
    "</script><script>document.title='ran'</script>",
    "<!--<script>",
    '"><img src=x onerror="document.title=\'ran\'">',
    "' onfocus='alert(1)' autofocus='",
    "&lt;b&gt; &amp; {{ 7 * 7 }} {% raw %}",
    "line\u2028paragraph\u2029end",
]

MACHINE = Machine(
    cpu="Test CPU",
    cores=2,
    logical_cores=2,
    caches={"L3": 1 << 25},
    last_level_bytes=1 << 25,
    memory_bytes=1 << 34,
    threads=2,
    threading_layer="omp",
    os="Linux",
    python="3.11.7",
    versions={"normkernels": "0.1.0", "numba": "0.68.1"},
    date="2026-11-20T12:00:00+00:00",
)
COPY = CopySpeed(40.0, 30.0)


def row(case: Case, fraction: float, ratio: float | None = None, nbytes: int = 0) -> Row:
    """A case at a fraction of a copy of 40 GB/s; `ratio` times faster than NumPy."""
    gbs = fraction * COPY.best
    seconds = (nbytes or case.bytes_moved) / gbs / 1e9
    timing = Timing(seconds, 0.9 * seconds, 1.2 * seconds, gbs, fraction)
    other = ratio and Timing(ratio * seconds, seconds, ratio * seconds, gbs / ratio, fraction / ratio)
    return Row(
        case=case,
        cold="rms" not in case.op,
        repetitions=3,
        calls=1,
        error=0.0,
        fresh=timing,
        into_out=dataclasses.replace(timing, fraction=fraction + 0.1),
        copy=COPY,
        baseline=Baseline("numpy", other, COPY) if other else None,
    )


def run_of(rows: list[Row], **more: Any) -> Results:
    options = {"preset": ["gpt2"], "quick": True}
    return Results(MACHINE, options, COPY, rows, ["too/large"], Revision("abcdef0123", "main", False), **more)


def some_results() -> Results:
    """Two norms at several batches and sizes, and one that stays in cache."""
    layers = [
        Case("layer_norm", p, (64, 768), preset="gpt2", count=25, batch=1) for p in ("forward", "backward")
    ]
    images = [Case("batch_norm", "forward", (n, 64, 28, 28)) for n in (2, 10, 4, 1)]
    small = Case("rms_norm", "forward", (4, 64), "float64")
    return run_of(
        [
            row(layers[0], 0.5, 4),
            row(layers[1], 0.4, 3),
            *(row(case, 0.9 - 0.1 * i, 8 + i) for i, case in enumerate(images)),
            row(small, 0.05),
        ]
    )


def changed(results: Results, **fields: Any) -> Results:
    """The same on a machine that differs in some fields."""
    return dataclasses.replace(results, machine=dataclasses.replace(results.machine, **fields))


def nasty_results(name: str) -> Results:
    """`name` in every field that holds text, but for the date."""
    cases = [
        Case(name, name, (n, 3, 4), dtype=name, layout=name, preset=name, batch=8, fuse=name) for n in (1, 2)
    ]
    rows = [row(case, 0.5, 2, nbytes=1000) for case in cases]
    rows = [dataclasses.replace(r, baseline=dataclasses.replace(r.baseline, name=name)) for r in rows]
    machine = Machine(
        **{
            **dataclasses.asdict(MACHINE),
            "cpu": name,
            "os": name,
            "python": name,
            "threading_layer": name,
            "versions": {name: name},
            "caches": {name: 1},
        }
    )
    return Results(machine, {name: [name], "op": [name]}, COPY, rows, [name], Revision(name, name, True))


def compared(name: str, base: float, ratio: float) -> Comparison:
    """A case of the gate that was measured in twelve pairs."""
    pairs = [(base * (1 + i / 100), ratio * base * (1 + i / 100)) for i in range(-5, 7)]
    verdict = "slower" if ratio > 1.1 else "faster" if ratio < 0.9 else "same"
    return Comparison(name, base, base * ratio, ratio, 0.99 * ratio, 1.01 * ratio, 0.01, verdict, pairs)


def gate_outcome(*ratios: float, **more: Any) -> Outcome:
    """The gate on another package: two batches of a function, and a function that says no bytes."""
    names = "contrast/16x128", "contrast/64x128", "total"
    controls = compared("control: copy", 2e-3, 1.0), compared("control: NumPy", 1e-4, 1.0)
    fields = {
        "machine": dataclasses.replace(MACHINE, threads=1),
        "base": Side("main", "a" * 40),
        "head": Side("topic", "b" * 40),
        "plan": Plan("main", "topic", None, 12, 0.1, 10.0, False, 1, 0, False),
        "seconds": 60.0,
        "first": [compared(n, 1e-3 * (i + 1), r) for i, (n, r) in enumerate(zip(names, ratios, strict=True))],
        "again": [],
        "controls": list(controls),
        "moved": [],
        "only_head": {},
        "bytes": {names[0]: 1 << 20, names[1]: 1 << 26},
        "url": "https://example.org/imagestats",
    }
    return Outcome(**{**fields, **more})
