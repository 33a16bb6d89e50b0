"""The limit: how fast this machine copies memory, with the threads the kernels have."""

from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..cpu.fusion import copy_run
from ..cpu.jit import loop
from ..cpu.parallel import team_of
from ..cpu.pointers import fence, offset
from ..cpu.tuning import CACHE_LINE

BLOCK = 16384


@loop
def _plain(b: int, source: Any, target: Any) -> None:
    """target = source, a block of it."""
    copy_run(offset(source, b * BLOCK), BLOCK, offset(target, b * BLOCK), None)


@loop
def _streaming(b: int, source: Any, target: Any) -> None:
    """As `_plain`, past the caches; target must begin a cache line."""
    copy_run(offset(source, b * BLOCK), BLOCK, offset(target, b * BLOCK), True)
    fence()


def copy_bytes(cache_bytes: int) -> int:
    """Bytes of the array to copy: well beyond the last-level cache, and 64 MB to 256 MB."""
    return min(max(4 * cache_bytes, 64 << 20), 256 << 20)


def _aligned(elements: int) -> NDArray[np.float32]:
    memory = np.empty(elements * 4 + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    return memory[start : start + elements * 4].view(np.float32)


class Copy:
    """A large copy in two forms; a sample is its time in seconds.

    Which form is faster differs between machines, so the copy speed is that of the faster one.
    """

    def __init__(self, nbytes: int, threads: int) -> None:
        elements = max(1, nbytes // 4 // (4 * BLOCK)) * 4 * BLOCK
        self.source = _aligned(elements)
        self.source[:] = np.arange(elements, dtype=np.float32)
        self.target = _aligned(elements)
        self.threads = threads
        self.bytes_moved = 2 * self.source.nbytes
        self.plain()
        self.streaming()

    def plain(self) -> float:
        return self._seconds(_plain)

    def streaming(self) -> float:
        return self._seconds(_streaming)

    def _seconds(self, form: Any) -> float:
        team = team_of(self.threads)
        # First what ran before must be out of the cache: see timing.Contender.
        end = self.source.size // 4
        form(team, end // BLOCK, self.source[-end:], self.target[-end:])
        start = perf_counter()
        form(team, self.source.size // BLOCK, self.source, self.target)
        return perf_counter() - start
