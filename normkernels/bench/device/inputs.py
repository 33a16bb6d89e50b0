"""The data of a case on a device: a block that the host made, repeated where the tensors are large."""

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ...cuda import devices
from ...cuda.arrays import DeviceArray
from ...cuda.devices import check, making_current
from ...cuda.memory import empty, upload
from ...cuda.simulated import SimulatedArray, wrap
from ...norms import NORMS
from ..cases import Case
from ..inputs import Array, Inputs

# Of a tensor, made and judged in float64 on the host, which would take minutes for whole ones.
BLOCK_BYTES = 8 << 20
MOST_BLOCKS = 1024

# Sets of tensors that take turns: they fill the L2 cache so many times, as far as there is memory.
FILLS = 4
MOST_SLOTS = 512
MEMORY_SHARE = 0.4


def blocks(case: Case) -> int:
    """How often the block is repeated along the first axis: its length must be divided."""
    first, least = case.shape[0], 2 if NORMS[case.op].family == "channels" else 1
    if len(case.shape) < 2 or case.op == "weight_norm":  # with a parameter for each of the first axis
        return 1
    wanted = math.ceil(case.tensor_bytes / BLOCK_BYTES)
    able = [n for n in range(1, min(first // least, MOST_BLOCKS) + 1) if first % n == 0]
    return min((n for n in able if n >= wanted), default=able[-1] if able else 1)


def block_of(case: Case) -> Case:
    """The case of a block."""
    return replace(case, shape=(case.shape[0] // blocks(case), *case.shape[1:]))


def slots(case: Case, l2_bytes: int, memory_bytes: int) -> int:
    """How many sets of tensors take turns: none finds its own in the cache, unless it always would."""
    if not case.cold:
        return 1
    room = int(MEMORY_SHARE * memory_bytes) // case.bytes_moved
    return max(2, min(MOST_SLOTS, math.ceil(FILLS * l2_bytes / case.bytes_moved), room))


def memory(case: Case, l2_bytes: int, memory_bytes: int) -> int:
    """Bytes that a case takes: the sets, and what libraries allocate for intermediate results."""
    return slots(case, l2_bytes, memory_bytes) * case.bytes_moved + 6 * case.tensor_bytes


def on_device(inputs: Inputs, times: int) -> Inputs:
    """The inputs of a block, its tensors repeated so often."""

    def tensor(a: Array) -> Any:
        return repeated(upload(a), times)

    x = tensor(inputs.x)
    return Inputs(
        x,
        x if inputs.dy is inputs.x else tensor(inputs.dy),
        {k: upload(a) if isinstance(a, np.ndarray) else a for k, a in inputs.arguments.items()},
        {k: tensor(a) for k, a in inputs.beside_x.items()},
        {k: tensor(a) for k, a in inputs.beside_dy.items()},
    )


def transfer(target: DeviceArray, source: DeviceArray) -> None:
    """The driver's copy, of dense arrays."""
    if isinstance(target, SimulatedArray) and isinstance(source, SimulatedArray):
        target.memory[...] = source.memory.reshape(target.shape)
        return
    with making_current(target.device):
        check(devices.driver.cuMemcpyDtoDAsync(target.address, source.address, source.nbytes, target.stream))


def repeated(block: DeviceArray, times: int) -> DeviceArray:
    """Copies of an array, one after the other along its first axis."""
    shape = (times * block.shape[0], *block.shape[1:]) if block.shape else ()
    made = empty(shape, block.dtype, block.device, block.stream)
    flat = made.reshape(-1)
    for i in range(times):
        transfer(flat.part(i * block.size, block.size), block.reshape(-1))
    return made


def clone(a: DeviceArray) -> DeviceArray:
    """A copy of a dense array."""
    return repeated(a, 1)


def poisoned(like: Array, times: int) -> DeviceArray:
    """As a block of this shape, repeated so often, but full of NaN."""
    return repeated(upload(np.full_like(like, np.nan)), times)


def part(a: DeviceArray, first: int, count: int) -> Array:
    """Some of the first axis of an array of any strides, on the host."""
    if isinstance(a, SimulatedArray):
        return wrap(a.memory[first : first + count]).copy_to_host()
    shape = (count, *a.shape[1:])
    address = a.address + first * a.strides[0]
    return DeviceArray(shape, a.strides, a.dtype, address, a.device, a.stream, a.owner).copy_to_host()
