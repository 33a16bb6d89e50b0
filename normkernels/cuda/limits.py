"""What the launch rules read once: the longest rows, channels and columns that a team can hold."""

from collections.abc import Callable
from typing import Any

from . import config, strip_rules
from .devices import DeviceProperties
from .form import ACCESS_BYTES, Form

MANY = 1 << 30
"""More rows than there can be teams."""


def longest(itemsize: int, device: DeviceProperties) -> dict[str, tuple[int, int]]:
    """Elements of the longest that is read once, forward and backward, with nothing fused but what is said.

    All arrays begin at a multiple of 16 bytes.
    """
    lanes = ACCESS_BYTES // itemsize

    def last(holds: Callable[..., bool], rule: Any, beside: int = 0) -> int:
        return _last(lambda n: holds(rule, itemsize, device, n * lanes + beside)) * lanes + beside

    forward, backward = config.FORWARD, config.BACKWARD
    strips, fused = strip_rules.STRIPS, strip_rules.STRIPS_FUSED_BACKWARD
    return {
        "row": (last(_row, forward), last(_row, backward)),
        "row, odd": (last(_row, forward, 1), last(_row, backward, 1)),
        "channel or group": (last(_run, config.GROUPS), last(_run, config.GROUPS_BACKWARD)),
        "column": (last(_column, strips), last(_column, strips)),
        "column, activation": (last(_column, strips), last(_column, fused)),
    }


def _row(rule: config.Rule, itemsize: int, device: DeviceProperties, cols: int) -> bool:
    lanes, edges = config.lanes(itemsize, cols, (0,))
    form = config.row_form(cols, itemsize, lanes, rule, Form(edges=edges))
    if not config.together(form, device):
        return False
    return rule is not config.BACKWARD or config.sweep_grid(MANY, cols, form, device) > 0


def _run(rule: config.Rule, itemsize: int, device: DeviceProperties, inner: int) -> bool:
    return config.held_runs(1, inner, itemsize, (0,), rule, device, None) is not None


def _column(
    rules: tuple[strip_rules.StripRule, ...], itemsize: int, device: DeviceProperties, rows: int
) -> bool:
    channels = 64 * ACCESS_BYTES // itemsize
    return strip_rules.strip_form(rows, channels, itemsize, (0,), rules, device) is not None


def _last(holds: Callable[[int], bool]) -> int:
    """The last number that this is true of; it is of all before."""
    low, high = 1, MANY
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
