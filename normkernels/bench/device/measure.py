"""One library on one case: checked, then timed beside copies."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from ...cuda import devices
from ..cases import Case
from ..inputs import Inputs, make_inputs
from ..measure import beside
from ..results import Row, Timing
from ..timing import Contender, Effort, take_turns
from .check import judge, named
from .clock import call_clock, kernel_clock
from .copy import DeviceCopy
from .inputs import block_of, blocks, on_device, poisoned, slots

# Tensors of which launching may take longer than the kernel does: for these, calls are timed, too.
SMALL_BYTES = 1 << 20
CALLS = 100
CALL_EFFORT = Effort(seconds=0.05, least=5, most=25)

# The contender of a case over so many sets of tensors; None where the library does not have the case.
# The inputs are on the device; a forward moves the running statistics among their arguments.
Contending = Callable[[Case, Inputs, int], Contender | None]


@dataclass(frozen=True)
class Library:
    """One that computes norms."""

    contender: Contending
    takes_out: bool = False
    """Whether its functions have the keyword `out`."""


@dataclass(frozen=True)
class Bench:
    """What cases are measured with."""

    l2_bytes: int
    memory_bytes: int
    effort: Effort
    seed: int
    copy: DeviceCopy


def measure(case: Case, library: Library, bench: Bench) -> Row | None:
    """A row without other implementations; raises check.Mismatch."""
    host = make_inputs(block_of(case), bench.seed)
    inputs = on_device(host, blocks(case))
    contender = library.contender(case, inputs, slots(case, bench.l2_bytes, bench.memory_bytes))
    if contender is None:
        return None
    out = poisoned(host.x, blocks(case)) if library.takes_out else None
    error = verify(case, host, inputs, contender, out)
    contender.clock = kernel_clock()
    contender.warm_up()
    samples = [contender.fresh, *([contender.into_out] if library.takes_out else [])]
    alike = bench.copy.alike(case.bytes_moved)
    timed = [*samples, *(each.fresh for each in alike)]
    seconds, speed, copy_gbs = beside(bench.copy, timed, bench.effort)
    fresh, into_out = (
        Timing.of(s, case.bytes_moved, copy_gbs) for s in (seconds[0], seconds[len(samples) - 1])
    )
    fastest = min(median(each) for each in seconds[len(samples) :])
    return Row(
        case=case,
        cold=case.cold,
        repetitions=len(seconds[0]),
        calls=contender.calls,
        error=error,
        fresh=fresh,
        into_out=into_out,
        copy=speed,
        baseline=None,
        call=per_call(contender) if case.tensor_bytes <= SMALL_BYTES else None,
        copy_alike=case.bytes_moved / fastest / 1e9,
    )


def verify(case: Case, host: Inputs, inputs: Inputs, contender: Contender, out: Any) -> float:
    """The worst error of one call, into `out` where there is one; raises check.Mismatch."""
    results = named(case, contender.once(**({} if out is None else {"out": out})))
    forward = case.pass_ == "forward"
    if forward and "sum_out" in inputs.beside_x:
        results["sum_out"] = inputs.beside_x["sum_out"]
    # a backward has had a forward for each set of tensors
    return judge(case, host, results, inputs.arguments if forward else {})


def per_call(contender: Contender) -> float:
    """Seconds of a call among many, with all that the host does for it."""
    contender.clock, contender.calls = call_clock(), CALLS if not devices.simulated() else 1
    (seconds,) = take_turns([contender.fresh], CALL_EFFORT)
    return median(seconds)
