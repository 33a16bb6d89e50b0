"""The gate itself: prepare, measure, judge, measure what was flagged, or a control that moved, again."""

from collections.abc import Callable
from dataclasses import replace
from time import perf_counter

from ..machine import Machine
from ..revision import web_address
from ..selection import BadOption
from .checkouts import cases_at, checkouts, commit_of
from .outcome import Outcome, Plan, Side
from .pairs import BASE, DEFAULT_MINUTES, HEAD, Arms, Failed
from .verdict import Comparison, Pair, compare, moved


def run(
    plan: Plan, machine: Machine, stage: Callable[[str, int | None], None], step: Callable[[], None]
) -> Outcome:
    """Run the gate. `stage` is told what begins and how many processes that takes, `step` of each of them."""
    start = perf_counter()
    base, head = commit_of("--base", plan.base), commit_of("--head", plan.head)
    if base == head and not plan.aa:
        raise BadOption(f"--base and --head must be two commits (or use --aa), got {base[:9]} twice")
    stage("checking out", None)
    with checkouts({BASE: plan.base, HEAD: plan.head}, plan.isolated, plan.threads) as arms_at:
        arms = Arms(arms_at, cases_at(arms_at[HEAD].root, plan.cases), root_matters=not plan.isolated)
        stage("compiling and checking", None)
        arms.prepare()
        only_base, notes = _removed(arms, plan)
        arms.check_power(plan.pairs)
        seconds, minutes = arms.seconds_to_spend(plan.pairs, plan.minutes, (perf_counter() - start) / 60)
        if plan.minutes is None and minutes > DEFAULT_MINUTES:
            needed = f"{minutes:g} minutes and not {DEFAULT_MINUTES}"
            notes.append(f"{plan.pairs} pairs of {len(arms.names)} cases need {needed} on this machine")
        plan = replace(plan, minutes=minutes)
        names = [*arms.names, *arms.controls]
        stage(f"measuring, {minutes:g} minutes at most", 2 * plan.pairs)
        taken = arms.measure(names, plan.pairs, seconds, plan.seed, step)
        first, controls = _judged(arms, taken, plan)
        flagged = [c.name for c in first if c.verdict != "same"]
        shaken = {c.name for c in controls if moved(c, plan.threshold)}
        again: list[Comparison] = []
        if flagged or shaken:
            stage(f"measuring {len(flagged)} and the controls again", 2 * plan.pairs)
            names, seed = [*flagged, *arms.controls], plan.seed + plan.pairs
            again, controls = _judged(arms, arms.measure(names, plan.pairs, seconds, seed, step), plan)
    sides = {name: Side(checkout.ref, checkout.commit) for name, checkout in arms_at.items()}
    notes += [f"read from head in both arms, although base has another: {name}" for name in arms.shared]
    return Outcome(
        machine=machine,
        base=sides[BASE],
        head=sides[HEAD],
        plan=plan,
        seconds=perf_counter() - start,
        first=first,
        again=again,
        controls=controls,
        moved=[c.name for c in controls if c.name in shaken and moved(c, plan.threshold)],
        only_head=arms.only_head,
        only_base=only_base,
        notes=notes,
        bytes={name: nbytes for name, nbytes in arms.bytes.items() if nbytes},
        url=web_address(arms_at[HEAD].repository),
    )


def _removed(arms: Arms, plan: Plan) -> tuple[list[str], list[str]]:
    """Cases that base alone has, by a list of its own; and a note where it has one that cannot be read."""
    try:
        own = cases_at(arms.checkouts[BASE].root, plan.cases)
        return (arms.removed(own) if own.file else []), []
    except BadOption:
        return [], []
    except Failed as error:
        return [], [f"which cases base alone has is not known: {error}"]


def _judged(
    arms: Arms, taken: dict[str, list[Pair]], plan: Plan
) -> tuple[list[Comparison], list[Comparison]]:
    """What one run says of its cases, and of the controls."""
    cases = {name: pairs for name, pairs in taken.items() if name not in arms.controls}
    controls = {name: taken[name] for name in arms.controls}
    return compare(cases, plan.threshold, plan.seed), compare(controls, plan.threshold, plan.seed)
