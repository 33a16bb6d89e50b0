"""From shape, strides and dtype to what a kernel needs to know: plans, made once per signature."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from . import _buffers
from .results import Array

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie: its axes from the slowest to the fastest in memory."""

    shape: Shape
    dtype: np.dtype[Any]
    order: Shape | None
    """None: C-contiguous, nothing to permute."""
    dense: bool
    """False: no order makes the elements contiguous, so the array is copied to C order."""

    def flat(self, x: Array) -> Array:
        """x as kernels see it: one flat, contiguous, aligned, writeable view; a copy where x is not dense."""
        if self.order is not None:
            x = x.transpose(self.order)
        if not (x.flags.c_contiguous and x.flags.aligned):
            x = np.array(x, order="C")
        return _buffers.writeable(x.reshape(-1))

    def empty(self) -> tuple[Array, Array]:
        """A new array of this layout, and its flat view."""
        flat = _buffers.empty(math.prod(self.shape), self.dtype)
        return self.shaped(flat), flat

    def shaped(self, flat: Array) -> Array:
        if self.order is None:
            return flat.reshape(self.shape)
        return flat.reshape([self.shape[a] for a in self.order]).transpose(np.argsort(self.order))

    def fits(self, x: Array) -> bool:
        """Whether the flat view of x shares its memory."""
        return bool(x.flags.aligned) and (x if self.order is None else x.transpose(self.order)).flags.c_contiguous


@dataclass(frozen=True)
class RowPlan:
    """An array seen as (rows, cols), statistics per row."""

    layout: Layout
    rows: int
    cols: int
    parameter_shape: Shape

    @property
    def nbytes(self) -> int:
        return self.rows * self.cols * self.layout.dtype.itemsize


@dataclass(frozen=True)
class ChannelPlan:
    """An array seen as (outer, channels, inner), statistics per channel."""

    layout: Layout
    outer: int
    channels: int
    inner: int

    @property
    def count(self) -> int:
        """Elements of one channel."""
        return self.outer * self.inner

    @property
    def nbytes(self) -> int:
        return self.count * self.channels * self.layout.dtype.itemsize


def _memory_order(shape: Shape, strides: Shape, itemsize: int) -> Shape | None:
    """The axes from slowest to fastest if their elements fill memory without gaps, else None.

    Axes of one element come first: where they lie makes no difference.
    """
    order = sorted(range(len(shape)), key=lambda a: (shape[a] > 1, -strides[a], a))
    expected = itemsize
    for a in reversed(order):
        if shape[a] > 1 and strides[a] != expected:
            return None
        expected *= shape[a]
    return tuple(order)


def _layout(shape: Shape, strides: Shape, dtype: np.dtype[Any], fixed: int = 0) -> Layout:
    """The layout of an array of which the last `fixed` axes must be the fastest, in their order."""
    identity = tuple(range(len(shape)))
    order = identity if math.prod(shape) == 0 else _memory_order(shape, strides, dtype.itemsize)
    if order is None:
        return Layout(shape, dtype, None, False)
    varying = [a for a in order if shape[a] > 1]
    if varying == sorted(varying):
        return Layout(shape, dtype, None, True)
    tail = [a for a in identity[len(shape) - fixed :] if shape[a] > 1]
    if varying[len(varying) - len(tail) :] != tail:
        return Layout(shape, dtype, None, False)
    return Layout(shape, dtype, order, True)


@lru_cache(maxsize=512)
def row_plan(shape: Shape, strides: Shape, dtype: np.dtype[Any], normalized: int) -> RowPlan:
    """Plan for statistics over the last `normalized` axes."""
    layout = _layout(shape, strides, dtype, fixed=normalized)
    split = len(shape) - normalized
    return RowPlan(layout, math.prod(shape[:split]), math.prod(shape[split:]), shape[split:])


@lru_cache(maxsize=512)
def channel_plan(shape: Shape, strides: Shape, dtype: np.dtype[Any], axis: int) -> ChannelPlan:
    """Plan for statistics over all axes but one."""
    layout = _layout(shape, strides, dtype)
    order = layout.order or tuple(range(len(shape)))
    place = order.index(axis)
    outer = math.prod(shape[a] for a in order[:place])
    return ChannelPlan(layout, outer, shape[axis], math.prod(shape[a] for a in order[place + 1 :]))


@lru_cache(maxsize=512)
def moments_plan(shape: Shape, strides: Shape, dtype: np.dtype[Any], axes: Shape) -> tuple[Shape, ChannelPlan]:
    """Axes to transpose x to first, so that the kept ones are neighbours, and the plan for the result."""
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    order = _layout(shape, strides, dtype).order or tuple(range(len(shape)))
    start = order.index(kept[0]) if kept else 0
    if order[start : start + len(kept)] != kept:
        order, start = kept + axes, 0
    stop = start + len(kept)
    permuted = tuple(shape[a] for a in order)
    layout = Layout(permuted, dtype, None, True)
    sizes = permuted[:start], permuted[start:stop], permuted[stop:]
    return order, ChannelPlan(layout, *(math.prod(s) for s in sizes))
