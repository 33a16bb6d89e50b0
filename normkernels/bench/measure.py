"""Measure one case beside a large copy and a baseline."""

from collections.abc import Sequence
from operator import attrgetter

from .._buffers import release_buffers
from ..norms import NORMS, Passes
from .cases import Case
from .check import check
from .copy import Copy
from .inputs import Inputs, copied, make_inputs
from .results import Baseline, CopySpeed, Row, Timing
from .timing import BASELINE, Contender, Effort, Sample, take_turns


def measure(case: Case, copy: Copy, cache_bytes: int, effort: Effort, numpy: bool) -> Row:
    """Check the case against the reference, then time it; raises check.Mismatch."""
    inputs = make_inputs(case)
    error = check(case, inputs)
    kernels = contender(case, NORMS[case.op].kernels, inputs, case.slots(cache_bytes))
    kernels.warm_up()
    (fresh, into_out), speed, copy_gbs = beside(copy, [kernels.fresh, kernels.into_out], effort)
    calls = kernels.calls
    del kernels
    release_buffers()
    return Row(
        case=case,
        cold=case.cold,
        repetitions=len(fresh),
        calls=calls,
        error=error,
        fresh=Timing.of(fresh, case.bytes_moved, copy_gbs),
        into_out=Timing.of(into_out, case.bytes_moved, copy_gbs),
        copy=speed,
        baseline=_numpy(case, inputs, speed) if numpy else None,
    )


def beside(
    copy: Copy, samples: Sequence[Sample], effort: Effort
) -> tuple[list[list[float]], CopySpeed, list[float]]:
    """Seconds of each of `samples`, the copy speed, and the speed of its faster form by repetition.

    The streaming copy comes last before the samples: it leaves nothing in the cache to be written back.
    """
    plain, streaming, *seconds = take_turns([copy.plain, copy.streaming, *samples], effort)
    forms = [[copy.bytes_moved / s / 1e9 for s in form] for form in (plain, streaming)]
    speed = CopySpeed.of(*forms)
    return seconds, speed, forms[int(speed.streaming > speed.plain)]


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
    return Baseline("numpy", Timing.of(seconds, case.bytes_moved, [speed.best]), speed)
