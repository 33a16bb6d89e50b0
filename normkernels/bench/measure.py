"""Measure one case beside a large copy and a baseline."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np

from .._buffers import release_buffers
from ..norms import NORMS, Passes
from .cases import Case
from .check import check
from .copy import Copy
from .inputs import Array, Inputs, copied, make_inputs
from .results import Baseline, CopySpeed, Row, Timing
from .steps import in_steps
from .timing import BASELINE, Contender, Effort, Sample, take_turns


def measure(case: Case, copy: Copy, cache_bytes: int, effort: Effort, baseline: str) -> Row:
    """Check the case against the reference, then time it; raises check.Mismatch."""
    inputs = make_inputs(case)
    error = check(case, inputs)
    contenders = [contender(case, NORMS[case.op].kernels, inputs, case.slots(cache_bytes))]
    if baseline == "steps":
        contenders.append(contender(case, in_steps(case.op), inputs, case.slots(cache_bytes)))
    for each in contenders:
        each.warm_up()
    calls = contenders[0].calls
    samples = [contenders[0].into_out, *(each.fresh for each in contenders)]
    (into_out, fresh, *in_turn), speed, copy_gbs = beside(copy, samples, effort)
    del contenders, each, samples
    release_buffers()
    other = _numpy(case, inputs, speed) if baseline == "numpy" else None
    if in_turn:
        other = Baseline("steps", Timing.of(in_turn[0], case.bytes_moved, copy_gbs), speed)
    return Row(
        case=case,
        cold=case.cold,
        repetitions=len(fresh),
        calls=calls,
        error=error,
        fresh=Timing.of(fresh, case.bytes_moved, copy_gbs),
        into_out=Timing.of(into_out, case.bytes_moved, copy_gbs),
        copy=speed,
        baseline=other,
    )


class Copying(Protocol):
    """A large copy in two forms, whatever the memory."""

    bytes_moved: int

    def plain(self) -> float: ...

    def streaming(self) -> float: ...


def beside(
    copy: Copying, samples: Sequence[Sample], effort: Effort
) -> tuple[list[list[float]], CopySpeed, list[float]]:
    """Seconds of each of `samples`, the copy speed, and the speed of its faster form by repetition.

    The streaming copy comes last before the samples: it leaves nothing in the cache to be written back.
    """
    plain, streaming, *seconds = take_turns([copy.plain, copy.streaming, *samples], effort)
    forms = [[copy.bytes_moved / s / 1e9 for s in form] for form in (plain, streaming)]
    speed = CopySpeed.of(*forms)
    return seconds, speed, forms[int(speed.streaming > speed.plain)]


def contender(
    case: Case, passes: Passes, inputs: Inputs, slots: int, clone: Callable[[Any], Any] = np.ndarray.copy
) -> Contender:
    """The pass of a case over `slots` copies of its data, made by `clone`."""
    arguments = copied(inputs.arguments)
    xs, beside_x = _slots(inputs.x, inputs.beside_x, slots, clone)
    keywords = [arguments | beside for beside in beside_x]
    if case.pass_ == "forward":
        return Contender(passes.call, [(x,) for x in xs], keywords)
    saved = [passes.forward(x, **each)[1] for x, each in zip(xs, keywords, strict=True)]
    dys, beside_dy = _slots(inputs.dy, inputs.beside_dy, slots, clone)
    return Contender(passes.backward, list(zip(dys, saved, strict=True)), beside_dy, attrgetter("dx"))


def _slots(
    tensor: Array, beside: dict[str, Array], slots: int, clone: Callable[[Any], Any]
) -> tuple[list[Array], list[dict[str, Array]]]:
    """A tensor and those beside it, as often as there are slots."""
    copies = range(slots - 1)
    besides = [{name: clone(a) for name, a in beside.items()} for _ in copies]
    return [tensor, *(clone(tensor) for _ in copies)], [beside, *besides]


def _numpy(case: Case, inputs: Inputs, speed: CopySpeed) -> Baseline:
    """The reference in the dtype of the case. It is slow: its own temporaries keep its data cold."""
    spec = NORMS[case.op]
    passes = spec.in_steps(spec.reference) if case.fuse else spec.reference
    reference = contender(case, passes, inputs, slots=1)
    if not case.cold:
        reference.warm_up()
    (seconds,) = take_turns([reference.fresh], BASELINE)
    return Baseline("numpy", Timing.of(seconds, case.bytes_moved, [speed.best]), speed)
