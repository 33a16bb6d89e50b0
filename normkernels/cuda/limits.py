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

    def both(holds: Callable[..., bool], *rules: Any, beside: int = 0) -> tuple[int, int]:
        forward, backward = (
            _last(lambda n, rule=rule: holds(rule, itemsize, device, n * lanes + beside)) * lanes + beside
            for rule in rules
        )
        return forward, backward

    strips, fused = strip_rules.STRIPS, strip_rules.STRIPS_FUSED_BACKWARD
    return {
        "row": both(_row, config.FORWARD, config.BACKWARD),
        "row, odd": both(_row, config.FORWARD, config.BACKWARD, beside=1),
        "channel or group": both(_run, config.GROUPS, config.GROUPS_BACKWARD),
        "column": both(_column, strips, strips),
        "column, activation": both(_column, strips, fused),
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
