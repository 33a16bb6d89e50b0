"""Memory of devices, in stream order, from a pool per device.

Freed memory stays with the pool and costs the next array nothing; small blocks on the legacy stream are
handed to the next array of that size without the driver. While a stream is captured, an
array becomes a node of the graph, and another node frees it if it is dropped in the same capture.
One that outlives the capture belongs to the graph's result: to launch such a graph again, instantiate
it with AUTO_FREE_ON_LAUNCH, as PyTorch does, or give `out`.
"""

import contextlib
import ctypes
import functools
import math
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _buffers
from . import devices, simulated
from .arrays import DeviceArray, Shape, dense_strides
from .devices import check, making_current

ROUNDED = 512
"""Bytes are asked for in multiples of this, so that arrays of almost one size take each other's place."""


class _Spare:
    """Freed small blocks of a device on the legacy stream, which nobody destroys or captures.

    What the host calls in order is in order there, so a block may be used at once. The driver's part in a new
    array and its end is 3 of the 5 µs that these take (measured with a driver that does nothing); kernels on
    large arrays take longer than that. There is no lock: a list's append and pop are done at once, and arrays
    may be dropped, by the garbage collector, anywhere in here.
    """

    LARGEST = 1 << 20
    MOST = 32 << 20

    def __init__(self, device: int, limit: int) -> None:
        self.device = device
        self.limit = limit
        self.addresses: defaultdict[int, list[int]] = defaultdict(list)
        self.held = 0
        """Bytes, roughly: threads may miscount."""

    def take(self, nbytes: int) -> int:
        """The address of a block of so many bytes; 0 where there is none."""
        try:
            address = self.addresses[nbytes].pop()
        except IndexError:
            return 0
        self.held -= nbytes
        return address

    def give(self, address: int, nbytes: int) -> None:
        self.addresses[nbytes].append(address)
        self.held += nbytes
        if self.held > min(self.limit, self.MOST):
            self.release()

    def release(self) -> None:
        """Give all of them to the driver's pool."""
        for nbytes in list(self.addresses):
            while address := self.take(nbytes):
                _free((address, self.device, 0, 0, set()))
        self.held = sum(nbytes * len(self.addresses[nbytes]) for nbytes in list(self.addresses))


_spare: dict[int, _Spare] = {}
_pools: dict[int, Any] = {}
_making = threading.Lock()


def pool(device: int) -> Any:
    """Memory of our own that stays: `NORMKERNELS_BUFFER_BYTES` of it, or an eighth of the device's."""
    if device not in _pools:
        with _making:
            if device not in _pools:
                _pools[device] = _made(device)
    return _pools[device]


def _made(device: int) -> Any:
    driver = devices.driver
    properties = driver.CUmemPoolProps()
    properties.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    properties.location.id = device
    made = check(driver.cuMemPoolCreate(properties))
    kept = _buffers.wanted()
    if kept is None:
        kept = check(driver.cuDeviceTotalMem(check(driver.cuDeviceGet(device)))) // 8
    _keep(made, kept)
    _spare[device] = _Spare(device, kept)
    _buffers.elsewhere.append((functools.partial(limit, device), functools.partial(release, device)))
    return made


def _keep(handle: Any, nbytes: int) -> None:
    driver = devices.driver
    threshold = driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
    check(driver.cuMemPoolSetAttribute(handle, threshold, driver.cuuint64_t(nbytes)))


def limit(device: int, nbytes: int) -> None:
    """How much memory the pool of a device may hold without using it."""
    with making_current(device):
        _keep(pool(device), nbytes)
    _spare[device].limit = nbytes
    _spare[device].release()


def release(device: int) -> None:
    """Give the memory that the pool of a device does not use back."""
    _spare[device].release()
    with making_current(device):
        check(devices.driver.cuMemPoolTrimTo(pool(device), 0))


class Block:
    """Memory while arrays look at it."""

    __slots__ = ("address", "capture", "device", "nbytes", "readers", "spare", "stream")

    def __init__(
        self, address: int, nbytes: int, device: int, stream: int, capture: int, spare: _Spare | None
    ) -> None:
        self.address = address
        self.nbytes = nbytes
        self.device = device
        self.stream = stream
        self.capture = capture
        """Of the graph that the memory belongs to; 0 for none."""
        self.spare = spare
        """Where the block goes when it is dropped, unless another stream has used it."""
        self.readers: set[int] = set()
        """Other streams that use the memory."""

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        if finalizing():  # at the end the driver frees all, and names of modules may be gone
            return
        if self.spare is None or self.readers:
            _free((self.address, self.device, self.stream, self.capture, self.readers))
        else:
            self.spare.give(self.address, self.nbytes)


Freed = tuple[int, int, int, int, set[int]]
_later: deque[Freed] = deque()
"""What was dropped while its stream was captured, in a graph that it is no part of."""


def _free(freed: Freed) -> None:
    address, device, stream, owner, readers = freed
    try:
        with making_current(device):
            now = devices.capture(stream)
            if now not in (0, owner):
                _later.append(freed)
                return
            for reader in readers:
                if devices.capture(reader) == now:
                    devices.wait(stream, reader)
            devices.driver.cuMemFreeAsync(address, stream)  # fails for a graph's memory if that never ran
    except Exception as error:  # nobody could catch it; after a fork or a fatal error there is always one
        devices.explain(error)  # remembers what is fatal, for the next call


def _allocate(nbytes: int, device: int, stream: int) -> Block:
    size = -(-nbytes // ROUNDED) * ROUNDED
    small = stream == 0 and size <= _Spare.LARGEST
    if small and (spare := _spare.get(device)) is not None and (address := spare.take(size)):
        return Block(address, size, device, stream, 0, spare)
    with making_current(device):
        capture = devices.capture(stream)
        if _later and not capture:
            for _ in range(len(_later)):
                with contextlib.suppress(IndexError):  # another thread was quicker
                    _free(_later.popleft())
        if capture < 0:
            raise RuntimeError(devices.IN_THE_WAY)
        found = check(devices.driver.cuMemAllocFromPoolAsync(size, pool(device), stream), size)
    return Block(int(found), size, device, stream, capture, _spare[device] if small else None)


def empty(shape: Shape, dtype: np.dtype[Any], device: int, stream: int) -> DeviceArray:
    """An uninitialized array in C order, at a multiple of 256 bytes; freed on its stream when dropped."""
    devices.require()
    if devices.simulated():
        return simulated.wrap(np.empty(shape, dtype), stream=stream)
    nbytes = math.prod(shape) * dtype.itemsize
    block = _allocate(nbytes, device, stream) if nbytes else None
    address = 0 if block is None else block.address
    return DeviceArray(shape, dense_strides(shape, dtype.itemsize), dtype, address, device, stream, block)


def upload(host: np.ndarray[Any, np.dtype[Any]], device: int = 0, stream: int = 0) -> DeviceArray:
    """A copy of a host array, of the same strides."""
    devices.require()
    first, past = DeviceArray(host.shape, host.strides, host.dtype, host.ctypes.data, 0, 0, host).extent()
    made, start = workspace(past - first, device, stream), host.ctypes.data - first
    raw = np.frombuffer(memoryview((ctypes.c_char * made.nbytes).from_address(first)), np.uint8)
    if isinstance(made, simulated.SimulatedArray):
        made.memory[...] = raw
        like_host = np.ndarray(host.shape, host.dtype, made.memory, start, host.strides)
        return simulated.wrap(like_host, stream=stream)
    if made.size:
        with making_current(device):
            check(devices.driver.cuMemcpyHtoDAsync(made.address, first, made.nbytes, stream))
            check(devices.driver.cuStreamSynchronize(stream))
    address = made.address + start
    return DeviceArray(host.shape, host.strides, host.dtype, address, device, stream, made.owner)


def workspace(nbytes: int, device: int, stream: int) -> DeviceArray:
    """Bytes for a kernel's intermediate results."""
    return empty((nbytes,), np.dtype(np.uint8), device, stream)
