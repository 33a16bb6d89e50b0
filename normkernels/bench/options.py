"""Options that several commands have."""

from functools import partial
from pathlib import Path
from typing import Any

import click
import numba

from .selection import BadOption


def _file(context: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:
    if value == "":
        raise BadOption(f"{parameter.opts[0]} must name a file, got ''")
    return None if value is None else Path(value)


file_option = partial(click.option, type=click.Path(), callback=_file, metavar="FILE")


class Percent(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """10 or 10%, as the fraction 0.1."""

    name = "percent"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            fraction = float(str(value).removesuffix("%")) / 100
        except ValueError:
            fraction = -1.0
        if not 0 < fraction < 10:
            option = parameter.opts[0] if parameter else "it"
            raise BadOption(f"{option} must be a percentage above 0, like 10%, got {value}")
        return fraction


def thread_count(threads: int | None) -> int:
    """How many threads are meant by --threads; raises BadOption."""
    most = numba.config.NUMBA_NUM_THREADS
    if threads is None:
        return int(numba.get_num_threads())
    if not 1 <= threads <= most:
        raise BadOption(f"--threads must be between 1 and {most}, got {threads}")
    return threads
