"""Launch rules as data: how rows of any length are shared out among threads.

Chosen from what the compiler says of registers (docs/cuda.md); not yet from measurements.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .devices import DeviceProperties
from .form import MAGIC_BITS, Form

ACCESS_BYTES = 16
"""The widest access to memory."""

WARP = 32

MOST_RESIDENT = 1 << 20


@dataclass(frozen=True)
class Rule:
    """How a kernel's teams grow with the length of rows.

    A thread holds up to `elements` in registers, fewer where something else needs them (`held`). Teams grow
    to `threads`; blocks of less than that leave room for `resident` of them on a multiprocessor. Longer rows
    get teams of `long_threads`, then of several such blocks.
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
    narrow: int = 1
    """How often `elements` is halved where accesses are of less than 16 bytes."""


# Elements of 4 bytes that fit beside the parameters of a forward, and the four vectors of a backward:
# `normkernels resources` shows that nothing is spilt, and with more it would be.
FORWARD = Rule(elements=32, threads=256, resident=2, long_threads=512)
BACKWARD = Rule(elements=16, threads=256, resident=2, long_threads=512)
# Every vector has an address of its own where a row is several runs.
GROUPS_FORWARD = replace(FORWARD, elements=16)
GROUPS_BACKWARD = replace(BACKWARD, narrow=2)


def lanes(
    itemsize: int,
    cols: int,
    tensors: Sequence[int],
    parameters: Sequence[int] = (),
    columns: bool = False,
) -> tuple[int, bool]:
    """Elements of a vector, and whether rows of `cols` elements may begin or end within one.

    Of addresses: all tensors begin at one place within a vector, or they are read one by one; with
    `columns`, sums over columns, rows have to begin alike too.
    """
    full = ACCESS_BYTES // itemsize
    places = {a // itemsize % full for a in tensors}
    if cols % full == 0 and places == {0} and not any(a % ACCESS_BYTES for a in parameters):
        return full, False
    if columns:
        count = full
        while cols % count or any(p % count for p in places) or any(a % (4 * count) for a in parameters):
            count //= 2
            if count == 1:
                break
        return count, False
    return (full, True) if len(places) == 1 else (1, False)


def magic(inner: int) -> int:
    """A factor by which i // inner is `i * magic >> MAGIC_BITS` (Granlund & Montgomery 1994)."""
    return -(-(1 << MAGIC_BITS) // inner)


def held(rule: Rule, itemsize: int, lanes: int, form: Form, residual: bool) -> int:
    """Elements that a thread holds at most, as compiled without spilling for sm_80, sm_90 and sm_100.

    Half of a rule's where arithmetic is in float64, accesses are of less than 16 bytes, or something is
    fused; half of that where rows begin within a vector, or a residual is read element by element.
    """
    narrow = form.edges or lanes * itemsize < ACCESS_BYTES
    beside = itemsize > 4 or residual or form.activation is not None
    halvings = max(rule.narrow if narrow else 0, int(beside))
    halvings += form.edges or (narrow and residual)
    return (rule.elements >> halvings) * 4 // max(itemsize, 4)


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


def longest(form: Form, device: DeviceProperties) -> int:
    """Elements of the longest row that teams of this form can have, however many blocks they take."""
    blocks = device.multiprocessors * form.resident
    beside = form.lanes - 1 if form.edges else 0
    return min(MOST_RESIDENT, blocks * form.capacity // form.blocks - beside)


def row_grid(rows: int, cols: int, form: Form, device: DeviceProperties) -> int:
    """How many blocks take `rows` rows, each team several of them where there are many.

    Raises ValueError where not even one row fits the device.
    """
    wanted, at_once = -(-rows // form.teams), device.multiprocessors * form.resident
    if form.blocks == 1:
        return min(wanted, at_once)
    if cols > (most := longest(form, device)):
        raise ValueError(f"rows must have at most {most} elements on this device, got {cols}")
    return min(wanted, at_once // form.blocks) * form.blocks  # all of them have to be there at once
