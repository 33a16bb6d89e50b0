"""The limit of two phases: what the passes of a norm cost this memory system without their arithmetic.

A norm needs its statistics before it can write: it reads a block, then reads it again, from the cache, and
writes. The block of columns (channels-last, (N, C)) is the whole array, which is read twice where it does
not fit into the cache. In evaluation, and of windows, there is one phase only.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..cpu.fusion import copy_run
from ..cpu.jit import loop, primitive
from ..cpu.loops import sums as added
from ..cpu.parallel import team_of
from ..cpu.pointers import fence, offset
from ..cpu.tracing import step
from ..norms import NORMS
from .cases import MOST_SLOTS, Case
from .copy import Copy
from .inputs import Array
from .results import Timing
from .timing import Contender

# Elements of the smallest block, which fits into a level-1 cache; every block is a multiple of STEP.
LEAST = 4096
STEP = 64

# Each block is read, then written; all are read, then all written; or there is one phase only.
BLOCKS, TWICE, ONCE = "blocks", "twice", "once"


@step
def _add(i, so_far, first, second):
    return so_far[0] + first[i], so_far[1] + second[i]


@primitive
def _read(source, start, n):
    """The sum of n elements from `start`, of two halves that do not wait for each other."""
    first, second = added(2, n // 2, _add, offset(source, start), offset(source, start + n // 2))
    return first + second


@primitive
def _first(p, sources, reads, sums, n, block):
    """The first phase of block p: it is read, of each of the `reads` sources of n elements.

    The compiler would leave that out, were the sums not stored.
    """
    for k in range(p * block, reads * n, n):
        sums[p % 64 * STEP] = _read(sources, k, block)


@primitive
def _second(p, sources, reads, targets, writes, sums, n, block, stream):
    """The second phase of block p: it is read again, and written to each of the `writes` targets."""
    last = offset(sources, (reads - 1) * n + p * block)
    for k in range(p * block, (reads - 1) * n, n):
        sums[p % 64 * STEP] = _read(sources, k, block)
    for k in range(p * block, writes * n, n):
        copy_run(last, block, offset(targets, k), stream)
    if stream:
        fence()


@loop
def _block_by_block(p, sources, reads, targets, writes, sums, n, block, stream):
    _first(p, sources, reads, sums, n, block)
    _second(p, sources, reads, targets, writes, sums, n, block, stream)


@loop
def _all_first(p, sources, reads, sums, n, block):
    _first(p, sources, reads, sums, n, block)


@loop
def _then_all(p, sources, reads, targets, writes, sums, n, block, stream):
    _second(p, sources, reads, targets, writes, sums, n, block, stream)


class Phases:
    """The two phases of a case, in the memory of a copy, with plain and with streaming stores."""

    def __init__(self, case: Case, arguments: Mapping[str, Any], copy: Copy) -> None:
        self._case, self._copy = case, copy
        writes = 2 if "sum" in case.fused and case.pass_ == "forward" else 1
        reads = NORMS[case.op].tensors(case.pass_, case.fused) - writes
        room = copy.source.size // max(reads, writes)
        self._n, self._block, self._order = _blocks(case, arguments, copy.threads, room)
        self._sums = np.empty(64 * STEP, np.float32)
        sets = range(min(MOST_SLOTS, room // self._n))
        self._sources, self._targets = (
            [memory[i * size : (i + 1) * size] for i in sets]
            for memory, size in ((copy.source, reads * self._n), (copy.target, writes * self._n))
        )

    def contenders(self) -> list[Contender]:
        """Both forms; the layer before a pipeline writes the first source."""
        return [
            Contender(
                partial(self._call, stream),
                list(zip(self._sources, self._targets, strict=True)),
                {},
                lambda target: target[: self._n],
                [source[: self._n] for source in self._sources],
            )
            for stream in (False, True)
        ]

    def timing(self, forms: Sequence[Sequence[float]], copy_gbs: Sequence[float]) -> Timing:
        """The faster of the forms, from the seconds of each: for tensors of the size of the case."""
        scale = self._case.tensor_bytes / (4 * self._n)
        fastest = min(forms, key=lambda seconds: float(np.median(seconds)))
        return Timing.of([scale * s for s in fastest], self._case.bytes_moved, copy_gbs)

    def _call(self, stream: bool, sources: Array, targets: Array) -> Array:
        team, sums, n, block = team_of(self._copy.threads), self._sums, self._n, self._block
        reads, writes = sources.size // n, targets.size // n
        if self._order == BLOCKS:
            _block_by_block(team, n // block, sources, reads, targets, writes, sums, n, block, stream)
            return targets
        if self._order == TWICE:
            _all_first(team, n // block, sources, reads, sums, n, block)
        _then_all(team, n // block, sources, reads, targets, writes, sums, n, block, stream)
        return targets


def _blocks(case: Case, arguments: Mapping[str, Any], threads: int, room: int) -> tuple[int, int, str]:
    """Elements of float32 of a tensor and of a block, and how the blocks are gone through.

    Where the tensor is too large for the memory at hand, a smaller one with blocks of the same length.
    """
    n = min(case.tensor_bytes // 4, room)
    groups = _groups(case, arguments)
    block = min(max(LEAST, case.tensor_bytes // 4 // (groups or 1)), n) // STEP * STEP
    is_columns = NORMS[case.op].family == "channels" and case.channel_axis == len(case.shape) - 1
    if groups is None:
        return n // LEAST * LEAST, LEAST, ONCE
    if is_columns or n // block < threads:
        return n // LEAST * LEAST, LEAST, TWICE
    return n // block * block, block, BLOCKS


def _groups(case: Case, arguments: Mapping[str, Any]) -> int | None:
    """How many groups of elements have statistics of their own; None where none are computed before y is."""
    family = NORMS[case.op].family
    if family == "windows" or case.evaluation:
        return None
    if family == "channels":
        return case.shape[1]
    if family == "groups":
        return case.shape[0] * int(arguments.get("num_groups", case.shape[1]))
    if "normalized_shape" in arguments:
        return math.prod(case.shape) // math.prod(arguments["normalized_shape"])
    return case.shape[0]
