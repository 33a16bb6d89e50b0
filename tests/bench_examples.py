"""Cases and results that were never measured."""

import dataclasses
from typing import Any

from normkernels.bench import machine
from normkernels.bench.cases import Case
from normkernels.bench.results import Baseline, CopySpeed, Results, Row, Timing


def case(
    op: str = "layer_norm", pass_: str = "forward", shape: tuple[int, ...] = (8, 16), **more: Any
) -> Case:
    return Case(op, pass_, shape, **more)


def row(fraction: float = 0.5, ratio: float = 2.0, cold: bool = True, **more: Any) -> Row:
    """A row of a copy speed of 10 GB/s and a time of one second."""
    timing = Timing(1.0, 0.9, 1.2, 10 * fraction, fraction)
    other = Timing(ratio, ratio, ratio, 10 * fraction / ratio, fraction / ratio)
    speed = CopySpeed(10.0, 8.0)
    into_out = dataclasses.replace(timing, fraction=0.8)
    return Row(case(**more), cold, 3, 1, 1e-7, timing, into_out, speed, Baseline("numpy", other, speed))


def made(rows: list[Row]) -> Results:
    here = machine.machine(threads=1)
    return Results(here, {"preset": ["gpt2"], "quick": True}, CopySpeed(10.0, 8.0), rows, ["too/large"])


DEVICE = machine.Device("Test GPU", "9.0", 132, 60 << 20, 1 << 37, "580.1, CUDA 13.0")


def made_on_device(rows: list[Row]) -> Results:
    """The same with a device, where two libraries were measured besides."""

    def beside(r: Row) -> Row:
        assert r.baseline is not None
        torch, triton = (
            dataclasses.replace(r.baseline, name=name, call=call)
            for name, call in (("torch", 8e-6), ("triton", 4e-5))
        )
        return dataclasses.replace(r, baseline=torch, others=[triton], call=9e-6, copy_alike=20.0)

    results = made([beside(r) for r in rows])
    options = {"quick": True, "device": "cuda", "seconds": None, "seed": 7}
    here = dataclasses.replace(results.machine, device=DEVICE)
    return dataclasses.replace(results, machine=here, options=options, notes=["cupy was not measured"])
