"""`normkernels bench --device cuda`. Nothing of CUDA is imported before it is known to be there."""

import secrets
from typing import Any

import click

from ..._devices import DeviceUnavailable
from ..results import Results
from ..selection import BadOption, Selection
from ..work import Work

SIMULATOR = (
    "--device cuda needs a device, got numba's simulator (NUMBA_ENABLE_CUDASIM): "
    "the tests run there, by `pytest -m cuda`"
)


def needed() -> None:
    """Raises BadOption where there is no device to measure."""
    from ...cuda import devices

    if devices.simulated():
        raise BadOption(SIMULATOR)
    try:
        devices.require()
    except DeviceUnavailable as error:
        raise BadOption(str(error)) from None


def prepared(
    chosen: Selection, baseline: str | None, seconds: float | None, seed: int | None, options: dict[str, Any]
) -> Work:
    """Check the options; what to do then. Raises BadOption."""
    needed()
    from . import plan as planning
    from .libraries import OWN
    from .run import NothingMeasured, run

    if seconds is not None and not seconds > 0:
        raise BadOption(f"--seconds must be above 0, got {seconds}")
    if seed is not None and seed < 0:
        raise BadOption(f"--seed must be 0 or more, got {seed}")
    device, cases, libraries = planning.about(), planning.cases(chosen), planning.others(baseline)
    fit, skipped = planning.fitting(cases, device)
    if not fit:
        raise BadOption(f"a case must fit into the memory of the device, got {skipped[0].id}")
    plan = planning.DevicePlan(
        device=device,
        cases=fit,
        libraries=libraries,
        effort=planning.QUICK if chosen.quick else planning.FULL,
        seconds=seconds or (planning.QUICK_SECONDS if chosen.quick else planning.FULL_SECONDS),
        seed=secrets.randbelow(1 << 31) if seed is None else seed,
        copy_bytes=planning.copy_bytes(device),
    )
    own = f"{OWN}: "  # an error says it already
    asked = {**options, "device": "cuda", "seconds": seconds, "seed": plan.seed}

    def do(starting: Any) -> Results:
        try:
            return run(plan, asked, skipped, starting)
        except NothingMeasured as error:
            raise click.ClickException(str(error).removeprefix(own)) from None

    def failed(outcome: Results) -> str:
        problems = [note for note in outcome.notes if note.startswith(own)]
        return f"{problems[0].removeprefix(own)} ({len(problems)} such)" if problems else ""

    return Work(len(fit) * (1 + len(libraries)), do, failed)
