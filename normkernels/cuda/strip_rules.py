"""Launch rules of the kernels that hold strips of columns: as `config`, from what the compiler says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .config import MOST_RESIDENT
from .devices import DeviceProperties
from .form import ACCESS_BYTES, WIDEST, Form


@dataclass(frozen=True)
class StripRule:
    """How teams hold strips of columns: how much a thread has in registers, and how many blocks a team."""

    elements: int
    resident: int
    blocks: int
    threads: int = 256


# What blocks read of each other grows with the square of their number: larger blocks where there are many.
FEW_BLOCKS = StripRule(elements=16, resident=2, blocks=8)
STRIPS = FEW_BLOCKS, StripRule(elements=64, resident=1, blocks=MOST_RESIDENT)
STRIPS_FUSED_BACKWARD = (
    StripRule(elements=8, resident=2, blocks=8),
    StripRule(elements=32, resident=1, blocks=MOST_RESIDENT),
)
# Vectors that a strip may be wide: a line of memory; two sectors for longer columns.
WIDTHS = (WIDEST, 4)
# Rows are so many times as long as what strips may have beside the last column.
IDLE = 3


def strip_rules(backward: bool, fused: bool) -> tuple[StripRule, ...]:
    """For a kernel that holds strips of columns: the first one that fits is taken."""
    return STRIPS_FUSED_BACKWARD if backward and fused else STRIPS


class Strips(NamedTuple):
    """How (rows, channels) are shared out, as the kernels in `strips` take it."""

    strips: int
    across: int
    slots: int


def strip_form(
    rows: int,
    channels: int,
    itemsize: int,
    addresses: Sequence[int],
    rules: Sequence[StripRule],
    device: DeviceProperties,
    form: Form = Form(),  # noqa: B008
) -> tuple[Form, Strips] | None:
    """The form of teams that hold strips of columns, with what else `form` says; None where none can.

    Rows have to begin at the begin of a vector. A team has at most half of the blocks that are there at
    once: while it meets, another one reads and writes.
    """
    lanes = ACCESS_BYTES // itemsize
    if channels % lanes or any(a % ACCESS_BYTES for a in addresses):
        return None
    for rule in rules:
        most = max(1, rule.elements * 4 // max(itemsize, 4) // lanes)
        room, found = min(rule.blocks, device.multiprocessors * rule.resident // 2), None
        for across in WIDTHS:
            strips, slots = -(-channels // (lanes * across)), rule.threads // across
            blocks = -(-rows // (slots * most))
            if blocks > max(1, room) or IDLE * (strips * across * lanes - channels) > channels:
                continue
            vectors = 1
            while vectors * slots * blocks < rows:
                vectors *= 2
            held = replace(form, vectors=vectors, lanes=lanes, threads=rule.threads, blocks=blocks)
            found = replace(held, resident=rule.resident), Strips(strips, across, slots)
            if strips * blocks >= device.multiprocessors:
                break
        if found is not None:
            return found
    return None
