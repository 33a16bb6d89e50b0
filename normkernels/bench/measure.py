"""Measure one case beside its two limits, a large copy and two phases, and beside what shares its process."""

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._buffers import release_buffers
from ..norms import NORMS, Passes
from .cases import Case
from .check import check
from .condition import in_condition
from .copy import Copy
from .inputs import Array, Inputs, copied, make_inputs
from .phases import Phases
from .results import Baseline, CopySpeed, Row, Timing
from .steps import in_steps
from .timing import BASELINE, Contender, Effort, Sample, take_turns

if TYPE_CHECKING:
    from .peers.peer import Peer


def measure(
    case: Case,
    copy: Copy,
    cache_bytes: int,
    effort: Effort,
    steps: bool = False,
    here: Mapping[str, "Peer"] = MappingProxyType({}),
) -> Row:
    """Check the case against the reference, then time it; raises check.Mismatch.

    The others of the row are the steps of a fused case, and the libraries that need no process of their own.
    """
    inputs = make_inputs(case)
    error = check(case, inputs)
    slots = case.slots(cache_bytes)
    limit = Phases(case, inputs.arguments, copy) if case.cold else None
    contenders = [
        contender(case, NORMS[case.op].kernels, inputs, slots),
        *([contender(case, in_steps(case.op), inputs, slots)] if steps else []),
        *(limit.contenders() if limit else []),
    ]
    for each in contenders:
        each.warm_up()
    calls = contenders[0].calls
    timed = [in_condition(case, each) for each in contenders]
    samples = [timed[0].into_out, *(each.fresh for each in timed)]
    (into_out, fresh, *others), speed, copy_gbs = beside(copy, samples, effort)
    del contenders, each, samples, timed
    release_buffers()
    found = [Baseline("steps", Timing.of(others.pop(0), case.bytes_moved, copy_gbs), speed)] if steps else []
    return Row(
        case=case,
        cold=case.cold,
        repetitions=len(fresh),
        calls=calls,
        error=error,
        fresh=Timing.of(fresh, case.bytes_moved, copy_gbs),
        into_out=Timing.of(into_out, case.bytes_moved, copy_gbs),
        copy=speed,
        baseline=None,
        phases=limit.timing(others, copy_gbs) if limit else None,
        others=[*found, *(_in_this_process(name, here[name], case, inputs, speed) for name in here)],
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
        return Contender(passes.call, [(x,) for x in xs], keywords, reads=xs)
    saved = [passes.forward(x, **each)[1] for x, each in zip(xs, keywords, strict=True)]
    dys, beside_dy = _slots(inputs.dy, inputs.beside_dy, slots, clone)
    return Contender(passes.backward, list(zip(dys, saved, strict=True)), beside_dy, attrgetter("dx"), dys)


def _slots(
    tensor: Array, beside: dict[str, Array], slots: int, clone: Callable[[Any], Any]
) -> tuple[list[Array], list[dict[str, Array]]]:
    """A tensor and those beside it, as often as there are slots."""
    copies = range(slots - 1)
    besides = [{name: clone(a) for name, a in beside.items()} for _ in copies]
    return [tensor, *(clone(tensor) for _ in copies)], [beside, *besides]


def _in_this_process(name: str, peer: "Peer", case: Case, inputs: Inputs, speed: CopySpeed) -> Baseline:
    """A library without threads. It is slow: its own temporaries keep its data cold."""
    slow = peer.contender(case, inputs, slots=1)
    if not case.cold:
        slow.warm_up()
    (seconds,) = take_turns([in_condition(case, slow).fresh], BASELINE)
    return Baseline(name, Timing.of(seconds, case.bytes_moved, [speed.best]), speed)
