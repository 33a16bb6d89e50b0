"""The gate itself: prepare, measure, judge, measure what was flagged again."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from ..machine import Machine
from .checkouts import cases_at, checkouts
from .outcome import Outcome, Side
from .pairs import BASE, HEAD, Arms
from .verdict import compare, moved


@dataclass(frozen=True)
class Plan:
    """What to compare and how."""

    base: str
    head: str
    cases: str | None
    pairs: int
    threshold: float
    minutes: float
    isolated: bool
    threads: int
    seed: int
    aa: bool


def run(
    plan: Plan, machine: Machine, stage: Callable[[str, int | None], None], step: Callable[[], None]
) -> Outcome:
    """Run the gate. `stage` is told what begins and how many processes that takes, `step` of each of them."""
    start = perf_counter()
    stage("checking out", None)
    with checkouts({BASE: plan.base, HEAD: plan.head}, plan.isolated, plan.threads) as arms_at:
        arms = Arms(arms_at, cases_at(arms_at[HEAD].root, plan.cases), root_matters=not plan.isolated)
        stage("compiling and checking", None)
        arms.prepare()
        seconds = arms.seconds_to_spend(plan.pairs, plan.minutes - (perf_counter() - start) / 60)
        names = [*arms.names, *arms.controls]
        stage("measuring", 2 * plan.pairs)
        taken = arms.measure(names, plan.pairs, seconds, plan.seed, step)
        first = compare({name: taken[name] for name in arms.names}, plan.threshold, plan.seed)
        flagged = [c.name for c in first if c.verdict != "same"]
        again = []
        if flagged:
            stage(f"measuring {len(flagged)} again", 2 * plan.pairs)
            repeated = arms.measure(
                [*flagged, *arms.controls], plan.pairs, seconds, plan.seed + plan.pairs, step
            )
            again = compare({name: repeated[name] for name in flagged}, plan.threshold, plan.seed)
            taken = {name: [*taken[name], *repeated.get(name, [])] for name in arms.controls}
        controls = compare({name: taken[name] for name in arms.controls}, plan.threshold, plan.seed)
    sides = {name: Side(checkout.ref, checkout.commit) for name, checkout in arms_at.items()}
    return Outcome(
        machine=machine,
        base=sides[BASE],
        head=sides[HEAD],
        threshold=plan.threshold,
        seconds=perf_counter() - start,
        first=first,
        again=again,
        controls=controls,
        moved=[c.name for c in controls if moved(c, plan.threshold)],
        only_head=arms.only_head,
        aa=plan.aa,
    )
