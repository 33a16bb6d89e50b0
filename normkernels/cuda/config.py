"""Launch rules as data: how rows of any length are shared out among threads.

Chosen from what the compiler says of registers (docs/cuda.md); not yet from measurements.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from .devices import DeviceProperties
from .form import ACCESS_BYTES, FLUSH, MAGIC_BITS, WARP, Form

MOST_RESIDENT = 1 << 20
MOST_BLOCKS = (1 << 31) - 1
"""Of a launch."""


@dataclass(frozen=True)
class Rule:
    """How a kernel's teams grow with the length of rows.

    A thread holds up to `elements` in registers, fewer where something else needs them (`held`). Teams grow
    to `threads`, and blocks of so many leave room for `resident` of them on a multiprocessor, smaller ones
    for as many more. Longer rows get a team of `long_threads`, then several blocks of `threads`: while one
    team meets, another one of the same multiprocessor reads and writes.
    """

    elements: int
    threads: int
    resident: int
    long_threads: int
    smallest: int = 4
    """Threads of the smallest team: fewer would read in pieces shorter than a sector of memory."""
    block: int = 128
    """Threads that several short rows share a block of."""


# Elements of 4 bytes that fit beside the parameters of a forward, and the four vectors of a backward:
# `normkernels resources` shows that nothing is spilt, and with more it would be.
FORWARD = Rule(elements=32, threads=256, resident=2, long_threads=512)
BACKWARD = Rule(elements=16, threads=256, resident=2, long_threads=512)
# Beside what meets the ends of rows.
EDGED = 8
# Kernels over runs cut long ones into pieces, so that their teams need not grow: few elements leave room for
# more blocks. Activations, most of all in float64, need registers of their own.
RUNS = Rule(elements=8, threads=256, resident=2, long_threads=256)
RUNS_FUSED = replace(RUNS, resident=1)
GROUPS = Rule(elements=16, threads=256, resident=2, long_threads=256)
GROUPS_BACKWARD = Rule(elements=16, threads=256, resident=2, long_threads=256)


def lanes(
    itemsize: int,
    cols: int,
    tensors: Sequence[int],
    parameters: Sequence[int] = (),
) -> tuple[int, bool]:
    """Elements of a vector, and whether rows of `cols` elements may begin or end within one.

    Of addresses: all tensors begin at one place within a vector, or they are read one by one.
    """
    full = ACCESS_BYTES // itemsize
    places = {a // itemsize % full for a in tensors}
    if cols % full == 0 and places == {0} and not any(a % ACCESS_BYTES for a in parameters):
        return full, False
    return (full, True) if len(places) == 1 else (1, False)


def magic(inner: int) -> int:
    """A factor by which i // inner is `i * magic >> MAGIC_BITS` (Granlund & Montgomery 1994)."""
    return -(-(1 << MAGIC_BITS) // inner)


def held(rule: Rule, itemsize: int, lanes: int, form: Form, residual: bool) -> int:
    """Elements that a thread holds at most, as compiled without spilling for sm_80, sm_90 and sm_100.

    Half of a rule's where arithmetic is in float64, accesses are of less than 16 bytes, or something is
    fused; a quarter where a residual is read element by element; EDGED where rows begin within a vector.
    """
    narrow = lanes * itemsize < ACCESS_BYTES
    halvings = int(itemsize > 4 or narrow or residual or form.activation is not None)
    halvings += narrow and residual
    elements = EDGED if form.edges else rule.elements >> halvings
    return elements * 4 // max(itemsize, 4)


def row_form(
    cols: int,
    itemsize: int,
    lanes: int,
    rule: Rule,
    form: Form = Form(),  # noqa: B008
    residual: bool = False,
) -> Form:
    """The form of teams that hold rows of `cols` elements, with what else `form` says.

    residual: whether there is a tensor more than the norm itself needs.
    """
    most = max(1, held(rule, itemsize, lanes, form, residual) // lanes)
    return _team(vectors_of(cols, lanes, form.edges), most, lanes, rule, form)


def run_form(
    runs: int, inner: int, itemsize: int, lanes: int, rule: Rule, form: Form, residual: bool = False
) -> Form:
    """The form of teams that hold so many runs of `inner` elements."""
    narrow = not form.edges and lanes * itemsize < ACCESS_BYTES
    fused, wide = form.activation is not None, itemsize > 4
    if fused and wide:  # activations in float64 take registers of their own
        rule = replace(rule, resident=1)
    most = max(1, (rule.elements >> (wide or narrow or residual or fused)) // lanes)
    most = max(1, most * 4 // max(itemsize, 4))
    return _team(runs * vectors_of(inner, lanes, form.edges), most, lanes, rule, form)


@lru_cache(maxsize=1024)
def held_runs(
    runs: int,
    inner: int,
    itemsize: int,
    places: tuple[int, ...],
    rule: Rule,
    device: DeviceProperties,
    activation: str | None,
    centred: bool = True,
    renorm: bool = False,
) -> Form | None:
    """The form of teams that hold so many runs; None where the device has no room for one.

    places: where each tensor begins within 16 bytes. Three of them are what a norm itself needs.
    """
    lanes, edges = run_lanes(itemsize, inner, places)
    form = Form(edges=edges, centred=centred, renorm=renorm, activation=activation)
    form = run_form(runs, inner, itemsize, lanes, rule, form, len(places) > 3)
    return form if together(form, device) else None


def vectors_of(n: int, lanes: int, edges: bool) -> int:
    """How many vectors meet n elements, wherever in the first one these begin."""
    return -(-(n + (lanes - 1 if edges else 0)) // lanes)


def run_lanes(itemsize: int, inner: int, addresses: Sequence[int]) -> tuple[int, bool]:
    """As `lanes`, for runs that may be shorter than a vector."""
    full = ACCESS_BYTES // itemsize
    while full > inner:
        full //= 2
    places = {a // itemsize % full for a in addresses}
    if inner % full == 0 and places == {0}:
        return full, False
    return (full, True) if len(places) == 1 else (1, False)


def together(form: Form, device: DeviceProperties) -> bool:
    """Whether the blocks of a team can be there at once, and its vectors be counted.

    What has no such team is read twice.
    """
    return (
        form.blocks <= min(device.multiprocessors * form.resident, form.threads)
        and form.vectors * form.members < MOST_RESIDENT
    )


def _team(needed: int, most: int, lanes: int, rule: Rule, form: Form) -> Form:
    """The form of teams that hold so many vectors, up to `most` to a thread."""
    threads = rule.smallest
    while threads < rule.threads and threads * most < needed:
        threads *= 2
    if threads * most < needed <= rule.long_threads * most:
        threads = rule.long_threads
    blocks = -(-needed // (threads * most))
    vectors = 1
    while vectors * threads * blocks < needed:
        vectors *= 2
    teams = max(1, rule.block // threads) if blocks == 1 and threads <= WARP else 1
    resident = max(1, rule.resident * rule.threads // (threads * teams))
    return replace(
        form, vectors=vectors, lanes=lanes, threads=threads, blocks=blocks, teams=teams, resident=resident
    )


def _at_once(form: Form, device: DeviceProperties) -> int:
    """How many teams can be there at once."""
    return device.multiprocessors * form.resident // form.blocks * form.teams


def row_grid(rows: int, form: Form, device: DeviceProperties) -> int:
    """How many blocks take `rows` rows: a team for each; those that can be there at once if they meet."""
    if form.blocks == 1:
        return min(-(-rows // form.teams), MOST_BLOCKS)
    return min(rows, _at_once(form, device)) * form.blocks


def sweep_grid(rows: int, cols: int, form: Form, device: DeviceProperties) -> int:
    """How many blocks sum up over rows: as many as can be there at once, since each writes what it has.

    The rows of a team begin alike within a vector: so there is a multiple of as many teams as there are
    places, or 0 where the device has no room for them.
    """
    teams = _at_once(form, device)
    teams -= teams % max(form.teams, _places(cols, form))
    return min(teams // form.teams, -(-rows // form.teams)) * form.blocks


# Teams that groups are shared out to, for each that can be there at once: the last ones end sooner.
SHARED_OUT = 4


def group_parts(samples: int, groups: int, form: Form, device: DeviceProperties) -> int:
    """How many teams share the samples of a group, each of which writes what it has summed up.

    No more than it takes, so that none of them is without a sample for long.
    """
    each = -(-samples // min(samples, -(-SHARED_OUT * _at_once(form, device) // groups)))
    return -(-samples // each)


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
    outer: int, channels: int, inner: int, itemsize: int, form: Form, multiprocessors: int, deep: bool
) -> Pieces:
    """The pieces for runs of `inner` elements; `deep`: samples share their statistics."""
    rule = RUNS if form.activation is None else RUNS_FUSED
    wide = max(itemsize, 4) // 4
    most = max(1, rule.elements // wide // form.lanes)
    room = (rule.threads * most - form.edges) * form.lanes
    tiles = -(-inner // room)
    width = min(inner, -(-inner // (tiles * form.lanes)) * form.lanes)
    form = _team(vectors_of(width, form.lanes, form.edges), most, form.lanes, rule, form)
    depth = max(1, min(outer, PIECE // width, DEEPEST)) if deep and tiles == 1 else 1
    while depth > 1 and outer * channels * form.threads < depth * multiprocessors * BUSY:
        depth //= 2
    return Pieces(form, width, tiles, depth)


def merging_form(partials: int) -> Form:
    """The form of teams that merge so many partial results."""
    threads = 1
    while threads < min(MERGING, partials):
        threads *= 2
    return Form(threads=threads, teams=MERGING_BLOCK // threads if threads <= WARP else 1)


# Numbers in float64 that memory is read in.
SECTOR = 4


@dataclass(frozen=True)
class ColumnRule:
    """How threads walk down columns: how many elements each has in flight, and how blocks are made."""

    elements: int
    threads: int = 256
    resident: int = 2
    strips: tuple[int, ...] = (32, 64)
    """Vectors that a strip may be wide where a row of memory is not a strip of its own."""


MOMENTS = ColumnRule(elements=32)
# With residual or gradient beside x, and with an activation besides.
PAIRS = ColumnRule(elements=16)
ACTIVATED = ColumnRule(elements=8, threads=128, resident=3)
FINISH = ColumnRule(elements=1)


def column_rule(tensors: int, activation: str | None) -> ColumnRule:
    """For a kernel that meets so many tensors."""
    if activation is not None:
        return ACTIVATED
    return MOMENTS if tensors < 3 else PAIRS


class Columns(NamedTuple):
    """How (outer, channels) are cut, as the kernels in `columns` take it."""

    start: int
    total: int
    width: int
    strips: int
    across: int
    slots: int
    length: int
    pieces: int

    @property
    def arguments(self) -> tuple[int, ...]:
        return self[:-1]

    @property
    def plane(self) -> int:
        """Elements of one half of partial sums."""
        return self.pieces * self.width

    @property
    def blocks(self) -> int:
        return self.strips * self.pieces


def column_form(itemsize: int, size: int, addresses: tuple[int, ...], rule: ColumnRule) -> tuple[Form, int]:
    """The form of kernels over columns, and at which element of a vector the arrays begin.

    Arrays that begin alike within a vector are read in vectors, however many channels there are.
    """
    lanes = full = ACCESS_BYTES // itemsize
    while lanes > 1 and (len({a // itemsize % lanes for a in addresses}) > 1 or size < 2 * lanes):
        lanes //= 2
    lead = addresses[0] // itemsize % lanes
    edges = bool(lead or size % lanes)
    elements = rule.elements * 4 // max(itemsize, 4) // (2 if edges or lanes < full else 1)
    vectors = max(1, elements // lanes)
    form = Form(vectors=vectors, lanes=lanes, threads=rule.threads, resident=rule.resident, edges=edges)
    return form, lead


# For rows that no team can hold, which are read twice.
LONG = ColumnRule(elements=4)
LONG_ACTIVATED = replace(ACTIVATED, elements=4)


def long_form(itemsize: int, lanes: int, form: Form) -> Form:
    """The form of kernels in which a thread has the same few columns of every row."""
    rule = LONG if form.activation is None else LONG_ACTIVATED
    vectors = max(1, rule.elements * 4 // max(itemsize, 4) // lanes)
    return replace(form, vectors=vectors, lanes=lanes, threads=rule.threads, resident=rule.resident)


def _places(cols: int, form: Form) -> int:
    """At how many places within a vector rows begin, in turn."""
    return form.lanes // math.gcd(cols, form.lanes) if form.edges else 1


def phases_of(rows: int, cols: int, form: Form) -> int:
    """How many rows there are before one that begins at the same place within a vector, or in all."""
    return min(rows, _places(cols, form))


def long_grid(cols: int, phases: int, form: Form) -> int:
    """How many blocks walk over rows of so many columns."""
    return -(-vectors_of(cols, form.lanes, form.edges) // (form.vectors * form.threads)) * phases


def split_columns(
    start: int, total: int, channels: int, form: Form, rule: ColumnRule, multiprocessors: int
) -> Columns:
    """Rows of memory that all begin alike within a vector, in strips and pieces for one wave of blocks."""
    width = math.lcm(channels, form.lanes)
    vectors = width // form.lanes

    def busy(across: int) -> float:
        return vectors / (-(-vectors // across) * across) * (form.block // across * across)

    own = (vectors,) if vectors <= form.block else ()
    across = max((*(min(s, form.block) for s in rule.strips), *own), key=busy)
    strips, slots = -(-vectors // across), form.block // across
    rows, wave = -(-(total - start) // width), max(1, multiprocessors * form.resident // strips)
    step = slots * form.vectors
    pieces = wave * -(-rows // (wave * slots * FLUSH))
    length = -(-rows // (pieces * step)) * step
    return Columns(start, total, width, strips, across, slots, length, -(-rows // length))


def finish_across(channels: int, entries: int, threads: int, multiprocessors: int) -> int:
    """Channels that a block finishes side by side; the rest of its threads share out the entries."""
    across = min(channels, max(SECTOR, min(channels // multiprocessors, WARP)), threads)
    return max(across, threads // max(1, entries))
