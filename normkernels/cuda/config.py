"""Launch rules as data: how rows of any length are shared out among threads.

Chosen from what the compiler says of registers (docs/cuda.md); not yet from measurements.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from .form import Form

ACCESS_BYTES = 16
"""The widest access to memory."""

WARP = 32

# From how many bits on a product of `magic` is a quotient: exact for indices and runs below 2**20.
MAGIC_BITS = 40
MOST_RESIDENT = 1 << 20


@dataclass(frozen=True)
class Rule:
    """How a kernel's teams grow with the length of rows.

    A thread holds up to `elements` in registers. Teams grow to `threads`; blocks of less than that leave
    room for `resident` of them on a multiprocessor. Longer rows get teams of `long_threads`, then of several
    such blocks.
    """

    elements: int
    threads: int
    resident: int
    long_threads: int
    long_resident: int = 1
    smallest: int = 4
    """Threads of the smallest team: fewer would read in pieces shorter than a sector of memory."""
    block: int = 128
    """Threads that several short rows share a block of."""


# Elements of 4 bytes, of which a thread has registers for 32 beside parameters in a forward, for 16 in a
# backward with its four vectors, and where the ends of rows take registers too.
FORWARD = Rule(elements=32, threads=256, resident=2, long_threads=512)
EDGES = Rule(elements=16, threads=256, resident=2, long_threads=512)
BACKWARD = Rule(elements=16, threads=256, resident=2, long_threads=512)
# Kernels over runs cut long ones into pieces, so that their teams need not grow: few elements leave room for
# more blocks. Activations, most of all in float64, need registers of their own.
RUNS = Rule(elements=8, threads=256, resident=2, long_threads=256, long_resident=2)
RUNS_FUSED = replace(RUNS, resident=1, long_resident=1)


def lanes(itemsize: int, cols: int, addresses: tuple[int, ...], columns: bool = False) -> tuple[int, bool]:
    """Elements of a vector, and whether rows of `cols` elements may begin or end within one.

    All arrays begin at one place within a vector, or they are read one by one; with `columns`, sums over
    columns, rows have to begin alike too.
    """
    full = ACCESS_BYTES // itemsize
    places = {a // itemsize % full for a in addresses}
    if cols % full == 0 and places == {0}:
        return full, False
    if columns:
        count = full
        while cols % count or any(p % count for p in places):
            count //= 2
        return count, False
    return (full, True) if len(places) == 1 else (1, False)


def magic(inner: int) -> int:
    """A factor by which i // inner is `i * magic >> MAGIC_BITS` (Granlund & Montgomery 1994)."""
    return -(-(1 << MAGIC_BITS) // inner)


def row_form(cols: int, itemsize: int, lanes: int, rule: Rule, form: Form = Form()) -> Form:  # noqa: B008
    """The form of teams that hold rows of `cols` elements, with what else `form` says."""
    wide = max(itemsize, 4) // 4
    most = max(1, rule.elements // wide // lanes)
    needed = -(-(cols + (lanes - 1 if form.edges else 0)) // lanes)
    threads, resident = rule.smallest, rule.resident
    while threads < rule.threads and threads * most < needed:
        threads *= 2
    if threads * most < needed:
        threads, resident = rule.long_threads, rule.long_resident
    blocks = -(-needed // (threads * most))
    vectors = 1
    while vectors * threads * blocks < needed:
        vectors *= 2
    teams = max(1, rule.block // threads)
    return replace(
        form, vectors=vectors, lanes=lanes, threads=threads, blocks=blocks, teams=teams, resident=resident
    )


def row_grid(rows: int, form: Form, multiprocessors: int, rows_of_a_team: int = 1, waves: int = 1) -> int:
    """How many blocks take `rows` rows, each team several of them where there are many."""
    wanted = -(-rows // (form.teams * rows_of_a_team))
    if form.blocks > 1:  # all of them have to be there at once
        return min(wanted, multiprocessors * form.resident // form.blocks) * form.blocks
    return min(wanted, multiprocessors * form.resident * waves)


# Elements that a piece of several runs has at most, unless it is one, and samples that it has at most: what
# it adds up in float32.
PIECE = 1024
DEEPEST = 64
# Threads of a multiprocessor that pieces have to go round for before they are made of several runs.
BUSY = 1024
# Threads that merge the partial results of one statistic, and of a block of them.
MERGING = 256
MERGING_BLOCK = 128


class Pieces(NamedTuple):
    """How an array seen as (outer, channels, inner) is shared out among teams, as in `runs`."""

    form: Form
    width: int
    """Elements of a run in one piece."""
    tiles: int
    """Pieces of a run."""
    depth: int
    """Samples of a piece."""

    @property
    def cut(self) -> tuple[int, int, int | None]:
        """width, tiles and depth as kernels take them."""
        return self.width, self.tiles, None if self.depth == 1 else self.depth

    def number(self, outer: int, channels: int) -> int:
        """How many pieces there are."""
        return -(-outer // self.depth) * channels * self.tiles


def run_pieces(
    outer: int, channels: int, inner: int, itemsize: int, rule: Rule, form: Form, multiprocessors: int,
    deep: bool,
) -> Pieces:  # fmt: skip
    """The pieces for runs of `inner` elements; `deep`: samples share their statistics."""
    wide = max(itemsize, 4) // 4
    vectors = rule.threads * max(1, rule.elements // wide // form.lanes)
    room = (vectors - form.edges) * form.lanes
    tiles = -(-inner // room)
    width = min(inner, -(-inner // (tiles * form.lanes)) * form.lanes)
    form = row_form(width, itemsize, form.lanes, rule, form)
    depth = max(1, min(outer, PIECE // width, DEEPEST)) if deep and tiles == 1 else 1
    while depth > 1 and outer * channels * form.threads < depth * multiprocessors * BUSY:
        depth //= 2
    return Pieces(form, width, tiles, depth)


def merging_form(partials: int) -> Form:
    """The form of teams that merge so many partial results."""
    threads = 1
    while threads < min(MERGING, partials):
        threads *= 2
    return Form(threads=threads, teams=max(1, MERGING_BLOCK // threads))
