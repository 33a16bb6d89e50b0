"""What is fixed when a kernel is compiled."""

from dataclasses import astuple, dataclass
from functools import cached_property
from typing import Any

from .._layout import ACTIVATIONS

ACCESS_BYTES = 16
"""The widest access to memory."""

WARP = 32

MAGIC_BITS = 40
"""From which bit on a product with `config.magic` is a quotient: exact below 2**20."""

STEPS = 4
"""How many exchanges between the blocks of a team a kernel may have for one row."""

WIDEST = 8
"""Vectors of the widest strip of columns that a team holds."""

SLOTS = 2 * STEPS
"""Room for those of two rows: a slot is used again only after all blocks have met in between."""

FLUSH = 128
"""How many rows sums over rows are taken of in the dtype of x, before float64 takes over."""


@dataclass(frozen=True)
class Form:
    """How a row is shared out among the threads of its team, and what the kernel computes.

    A team is what has one row in its registers: part of a warp, a block, or several blocks.
    Each thread holds `vectors` vectors of `lanes` neighbouring elements.
    """

    vectors: int = 1
    lanes: int = 1
    threads: int = 32
    """Threads of a team in one block: a power of two up to 32, or all of the block."""
    blocks: int = 1
    """Blocks of a team; with several a block belongs to one team."""
    teams: int = 1
    """Teams of a block, several only where these are a warp at most."""
    resident: int = 1
    """Blocks that a multiprocessor has to have room for, which bounds the registers of a thread."""
    edges: bool = False
    """Whether a row may begin or end within a vector."""
    centred: bool = True
    """False: the mean is taken to be 0."""
    renorm: bool = False
    """Whether batch norm is batch renormalization."""
    activation: str | None = None

    def __hash__(self) -> int:
        return self._hash  # a form is looked up in every launch

    def __reduce__(self) -> Any:
        return Form, astuple(self)  # in another process the hash is another

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self.__dict__.values()))

    @property
    def kind(self) -> int:
        """The number of the activation, -1 for none."""
        return -1 if self.activation is None else ACTIVATIONS.index(self.activation)

    @property
    def members(self) -> int:
        """Threads of a team."""
        return self.threads * self.blocks

    @property
    def block(self) -> int:
        """Threads of a block."""
        return self.threads * self.teams

    @property
    def bounds(self) -> tuple[int, int]:
        """Threads of a block and blocks of a multiprocessor, as the compiler is told.

        Small blocks as if all of a multiprocessor were one: that leaves as many registers to a thread, but
        the compiler plans with more otherwise (rows.forward, eight vectors of float32, 4 blocks of 128
        threads for sm_80: 284 bytes spilt).
        """
        return (self.block, self.resident) if self.block >= 256 else (self.block * self.resident, 1)

    @property
    def stride(self) -> int:
        """Elements between the vectors of a thread."""
        return self.members * self.lanes

    @property
    def capacity(self) -> int:
        """Elements that a team holds."""
        return self.vectors * self.stride

    @property
    def strip_room(self) -> int:
        """Numbers of a block that holds strips: two vectors and two of a thread, six of a column."""
        return 2 * self.lanes * (self.block + WIDEST) + 2 * self.block + 6 * WIDEST * self.lanes
