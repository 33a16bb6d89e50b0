"""Measure one case beside a large copy and a baseline."""

from operator import attrgetter

from ..norms import NORMS, Passes
from .cases import Case
from .check import check
from .copy import Copy
from .inputs import Inputs, copied, make_inputs
from .results import Baseline, CopySpeed, Row, Timing
from .timing import BASELINE, Contender, Effort, take_turns


def measure(case: Case, copy: Copy, cache_bytes: int, effort: Effort, numpy: bool) -> Row:
    """Check the case against the reference, then time it; raises check.Mismatch."""
    inputs = make_inputs(case)
    error = check(case, inputs)
    kernels = contender(case, NORMS[case.op].kernels, inputs, case.slots(cache_bytes))
    kernels.warm_up()
    samples = [copy.plain, copy.streaming, kernels.fresh, kernels.into_out]
    plain, streaming, fresh, into_out = take_turns(samples, effort)
    speed = CopySpeed.of(plain, streaming, copy.bytes_moved)
    calls = kernels.calls
    del kernels, samples
    return Row(
        case=case,
        cold=case.cold,
        repetitions=len(fresh),
        calls=calls,
        error=error,
        fresh=Timing.of(fresh, case.bytes_moved, speed.best),
        into_out=Timing.of(into_out, case.bytes_moved, speed.best),
        copy=speed,
        baseline=_numpy(case, inputs, speed) if numpy else None,
    )


def contender(case: Case, passes: Passes, inputs: Inputs, slots: int) -> Contender:
    """The pass of a case over `slots` copies of its data."""
    arguments = copied(inputs.arguments)
    xs = [inputs.x, *(inputs.x.copy() for _ in range(slots - 1))]
    if case.pass_ == "forward":
        return Contender(passes.call, [(x,) for x in xs], arguments)
    saved = [passes.forward(x, **arguments)[1] for x in xs]
    dys = [inputs.dy, *(inputs.dy.copy() for _ in range(slots - 1))]
    return Contender(passes.backward, list(zip(dys, saved, strict=True)), {}, attrgetter("dx"))


def _numpy(case: Case, inputs: Inputs, speed: CopySpeed) -> Baseline:
    """The reference in the dtype of the case. It is slow: its own temporaries keep its data cold."""
    reference = contender(case, NORMS[case.op].reference, inputs, slots=1)
    if not case.cold:
        reference.warm_up()
    (seconds,) = take_turns([reference.fresh], BASELINE)
    return Baseline("numpy", Timing.of(seconds, case.bytes_moved, speed.best), speed)
