"""Arrays on a device in the layout of a plan: new ones, and flat as kernels see them."""

import math
from collections.abc import Sequence

import numpy as np

from .._layout import Layout
from . import copies, devices, memory
from .arrays import DeviceArray
from .devices import check, making_current, properties
from .form import SLOTS, Form
from .run import launch
from .simulated import SimulatedArray

FLOAT64 = np.dtype(np.float64)

ELEMENTWISE = Form(threads=256, resident=2)
AXES = 4
"""Of an array that one copy can have, beside those that others swallow."""


def grid(count: int, like: DeviceArray) -> int:
    """Blocks for a kernel that takes so many elements one by one."""
    return min(-(-count // ELEMENTWISE.threads), 8 * properties(like.device).multiprocessors)


def dense(x: DeviceArray, like: DeviceArray) -> DeviceArray:
    """x in C order, as kernels want it, to whom shapes are nothing; a copy where it is not."""
    if x.is_c_contiguous and x.is_aligned:
        return x
    made = memory.empty(x.shape, x.dtype, like.device, like.stream)
    _copy(x, made, like)
    return made


def flat(layout: Layout, x: DeviceArray, like: DeviceArray) -> DeviceArray:
    """x as kernels see it: in the order of memory; a copy, on the stream of `like`, where it is not dense."""
    return dense(x if layout.order is None else x.transpose(layout.order), like)


def empty(layout: Layout, like: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
    """A new array of this layout, and as kernels see it."""
    if layout.order is None:
        made = memory.empty(layout.shape, layout.dtype, like.device, like.stream)
        return made, made
    shape = tuple(layout.shape[a] for a in layout.order)
    made = memory.empty(shape, layout.dtype, like.device, like.stream)
    return made.transpose(sorted(range(len(shape)), key=layout.order.__getitem__)), made


def fits(layout: Layout, x: DeviceArray) -> bool:
    """Whether the flat view of x shares its memory."""
    seen = x if layout.order is None else x.transpose(layout.order)
    return seen.is_c_contiguous and seen.is_aligned


def vector(size: int, like: DeviceArray, dtype: np.dtype = FLOAT64) -> DeviceArray:
    """Room for so many numbers."""
    return memory.empty((size,), dtype, like.device, like.stream)


def zeros(size: int, like: DeviceArray, dtype: np.dtype = FLOAT64) -> DeviceArray:
    """Zeros of float64, or of integers."""
    made = vector(size, like, dtype)
    if isinstance(made, SimulatedArray):
        made.memory[:] = 0
    elif size:
        with making_current(made.device):
            check(devices.driver.cuMemsetD8Async(made.address, 0, made.nbytes, made.stream))
    return made


def copy(x: DeviceArray) -> DeviceArray:
    """The same elements in memory of their own."""
    made = memory.empty(x.shape, x.dtype, x.device, x.stream)
    _copy(x, made, x)
    return made


def assign(out: DeviceArray, value: DeviceArray, like: DeviceArray) -> None:
    """out = value, on the stream of `like`; what comes on the stream of out comes later."""
    if (out.address, out.strides) != (value.address, value.strides):
        _copy(value, out, like)
    like.precede(out)


def gradient(sums: DeviceArray, like: DeviceArray) -> DeviceArray:
    """Sums in the shape and dtype of the parameter that they belong to."""
    if sums.dtype == like.dtype:
        return sums.reshape(like.shape)
    made = memory.empty(like.shape, like.dtype, sums.device, sums.stream)
    _copy(sums.reshape(like.shape), made, sums)
    return made


def dense_or_none(x: DeviceArray | None, like: DeviceArray) -> DeviceArray | None:
    """As `dense`, for a parameter that may be absent."""
    return None if x is None else dense(x, like)


def moved(running: Sequence[DeviceArray], dense: Sequence[DeviceArray], like: DeviceArray) -> None:
    """Running statistics that have moved in C order, where they lie."""
    for given, now in zip(running, dense, strict=True):
        assign(given, now, like)


def pair(size: int, like: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
    """Room for two statistics, such as mean and rstd."""
    both = vector(2 * size, like)
    return both.part(0, size), both.part(size, size)


def meeting(
    form: Form, blocks: int, like: DeviceArray, numbers: int = 2 * SLOTS
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """exchange and flags, through which the blocks of a team meet; None for teams of one block.

    numbers: how many a block has room for.
    """
    if form.blocks == 1:
        return None, None
    return vector(numbers * blocks, like), zeros(blocks, like, np.dtype(np.int64))


def _merged(shape: Sequence[int], *strides: Sequence[int]) -> list[tuple[int, ...]]:
    """Length and strides of each axis, those that can be walked over as one made one."""
    axes: list[tuple[int, ...]] = []
    for axis in zip(shape, *strides, strict=True):
        if axis[0] == 1:
            continue
        if axes and all(
            outer == inner * axis[0] for outer, inner in zip(axes[-1][1:], axis[1:], strict=True)
        ):
            axes[-1] = (axes[-1][0] * axis[0], *axis[1:])
        else:
            axes.append(axis)
    return axes


def _copy(x: DeviceArray, y: DeviceArray, like: DeviceArray) -> None:
    """y = x, whose shapes are equal, on the stream of `like`."""
    axes = _merged(x.shape, [s // x.itemsize for s in x.strides], [s // y.itemsize for s in y.strides])
    _copy_axes(x, y, like, axes, 0, 0)


def _copy_axes(
    x: DeviceArray, y: DeviceArray, like: DeviceArray, axes: list[tuple[int, ...]], at_x: int, at_y: int
) -> None:
    if len(axes) > AXES:
        (n, step_x, step_y), *rest = axes
        for k in range(n):
            _copy_axes(x, y, like, rest, at_x + k * step_x, at_y + k * step_y)
        return
    lengths, of_x, of_y = zip(*([(1, 0, 0)] * (AXES - len(axes)) + axes), strict=True)
    count = math.prod(lengths)
    if count:
        launch(
            copies.strided, ELEMENTWISE, grid(count, like), like,
            x, y, at_x, at_y, count, *lengths[1:], *of_x, *of_y,
        )  # fmt: skip
