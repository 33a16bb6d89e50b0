"""Launch rules of local response normalization, as data."""

from dataclasses import dataclass
from typing import NamedTuple

from .form import ACCESS_BYTES, WARP, Form


@dataclass(frozen=True)
class WalkRule:
    """How threads walk over channels, from every element to the same one of the next channel."""

    threads: int = 256
    resident: int = 4
    waves: int = 4
    length: int = 8
    """Vectors that a thread takes where it does not walk over channels."""


WALK = WalkRule()

# Of the L2 cache, for what a backward in two kernels keeps there in between.
KEPT = 0.5


class Walk(NamedTuple):
    """Threads begin at the vectors of the first of `rows` rows of `width` elements, group after group.

    From row to row an element moves by `across` within its channel and `over` channels.
    """

    rows: int
    width: int
    length: int
    pieces: int
    across: int
    over: int
    blocks: int


def walk_form(itemsize: int, inner: int, addresses: tuple[int, ...], rule: WalkRule) -> Form:
    """A form with vectors that are of one channel."""
    lanes = ACCESS_BYTES // itemsize
    while inner % lanes or any(a // itemsize % lanes for a in addresses):
        lanes //= 2
    return Form(lanes=lanes, threads=rule.threads, resident=rule.resident)


def walk(outer: int, channels: int, inner: int, form: Form, rule: WalkRule, multiprocessors: int) -> Walk:
    """From channel to channel where they are long enough to be read well, else from tile to tile."""
    groups, rows, width, pieces = outer, channels, inner, 1
    length = rows
    if inner < WARP * form.lanes:
        rows, width = rule.length, form.block * form.lanes
        groups, length = -(-outer * channels * inner // (rows * width)), rows
    blocks = -(-groups * (width // form.lanes) // form.block)
    if width == inner:
        wanted = -(-multiprocessors * form.resident * rule.waves // blocks)
        length = -(-rows // min(wanted, -(-rows // rule.length)))
        pieces = -(-rows // length)
    over = width // inner % channels
    return Walk(rows, width, length, pieces, width % inner, over, blocks * pieces)
