"""Output buffers, reused.

A fresh large array costs as much in page faults as a kernel that fills it. Here a buffer whose last
array has been dropped is kept, up to a limit, and handed to the next array that fits.
"""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from .results import Array

ALIGNMENT = 64
# Below this, malloc reuses its own memory, which costs 6 µs less than the pool (measured).
SMALLEST = 2 * 1024 * 1024
ENVIRONMENT = "NORMKERNELS_BUFFER_BYTES"


def _default_limit() -> int:
    """An eighth of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 8
    except (AttributeError, ValueError, OSError):
        return 1 << 30


def _initial_limit() -> int:
    text = os.environ.get(ENVIRONMENT)
    if text is None:
        return _default_limit()
    if not text.isdigit():
        raise ValueError(f"{ENVIRONMENT} must be a number of bytes, got {text!r}")
    return int(text)


class _Memory:
    """Memory as a flat writeable array; `owner` keeps it alive."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, owner: Any, start: int, size: int, dtype: np.dtype[Any]) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "shape": (size,),
            "typestr": dtype.str,
            "data": (start, False),
            "version": 3,
        }


class _Lease(_Memory):
    """A block of the pool while arrays look at it: NumPy keeps this object as their base."""

    __slots__ = ()
    pool: "_Pool"

    def __del__(self) -> None:
        self.pool.put(self.owner)


class _Pool:
    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.idle: list[Array] = []
        # Reentrant: dropping an array inside the lock may return its buffer.
        self.lock = threading.RLock()

    def get(self, nbytes: int) -> Array:
        """A block of at least nbytes: the smallest idle one that is not more than half empty.

        Of equal ones it is the last that was put back, which may still be in the cache.
        """
        with self.lock:
            fits = [b for b in self.idle if nbytes <= b.nbytes <= 2 * nbytes]
            if fits:
                best = min(reversed(fits), key=lambda b: b.nbytes)
                self.idle = [b for b in self.idle if b is not best]
                return best
        return np.empty(nbytes, np.uint8)

    def put(self, block: Array) -> None:
        with self.lock:
            self.idle.append(block)
            self.trim()

    def trim(self) -> None:
        """Forget the buffers that have been idle longest until the rest is within the limit."""
        with self.lock:
            while self.idle and sum(b.nbytes for b in self.idle) > self.limit:
                del self.idle[0]


_pool = _Pool(_initial_limit())
if hasattr(os, "register_at_fork"):  # what another thread holds would stay held in the child
    _lock = _pool.lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_set: int | None = None
elsewhere: list[tuple[Callable[[int], None], Callable[[], None]]] = []
"""Of pools on devices, once there are any: what sets their limit, and what empties them."""
_Lease.pool = _pool  # on the class: the module's names may be gone when the last arrays are


def empty(size: int, dtype: np.dtype[Any]) -> Array:
    """An uninitialized flat array, of reused memory where it is large."""
    nbytes = size * dtype.itemsize
    if nbytes < SMALLEST or nbytes > _pool.limit:
        return np.empty(size, dtype)
    block = _pool.get(nbytes + ALIGNMENT)
    start = block.ctypes.data
    return np.asarray(_Lease(block, start + -start % ALIGNMENT, size, dtype))


def flat(x: Array) -> Array:
    """x as kernels see it: flat, contiguous, aligned and writeable; a copy where its strides ask for one.

    A read-only array becomes another view of its memory, because numba would compile every kernel
    again for its type; kernels do not write to their inputs.
    """
    flags = x.flags
    if flags.carray:
        return x.reshape(-1)
    if not (flags.c_contiguous and flags.aligned):
        return np.array(x, order="C").reshape(-1)
    return np.asarray(_Memory(x, x.ctypes.data, x.size, x.dtype))


def wanted() -> int | None:
    """The limit that somebody has set, by a call or in the environment."""
    if _set is not None or os.environ.get(ENVIRONMENT) is None:
        return _set
    return _initial_limit()


def set_buffer_limit(nbytes: int) -> None:
    """Set how much memory idle output buffers may hold, on the host and on each device.

    Parameters
    ----------
    nbytes : int
        Bytes; 0 turns reuse off. The default is an eighth of the machine's memory, or the
        environment variable ``NORMKERNELS_BUFFER_BYTES``.

    Raises
    ------
    TypeError, ValueError
        If nbytes is no integer, or negative.

    Examples
    --------
    >>> import normkernels as nk
    >>> nk.set_buffer_limit(256 * 1024**2)  # at most 256 MB wait for reuse
    >>> nk.set_buffer_limit(0)  # none does
    """
    if not isinstance(nbytes, int | np.integer):
        raise TypeError(f"buffer limit must be an integer, got {nbytes!r}")
    if nbytes < 0:
        raise ValueError(f"buffer limit must be 0 or more bytes, got {nbytes}")
    global _set
    _set = _pool.limit = int(nbytes)
    _pool.trim()
    for limit, _ in elsewhere:
        limit(_set)


def release_buffers() -> None:
    """Give the memory of all idle output buffers back.

    Examples
    --------
    >>> import normkernels as nk
    >>> nk.release_buffers()
    """
    with _pool.lock:
        _pool.idle = []
    for _, release in elsewhere:
        release()
