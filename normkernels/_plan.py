"""From shape, strides and dtype to a plan: which view, which axis; made once per signature."""

import itertools
import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from ._layout import ChannelPlan, GroupPlan, Layout, RowPlan, Shape

# Elements of a part of an array that is taken in parts. With half of it, starting threads takes longer than
# the work where other processes keep the cores busy (measured).
PART = 2**19
# Scratch memory for a channel, or for an element of a sample where runs are shorter than SHORT_RUN.
CHANNEL_BYTES = 128
SHORT_RUN = 128
# Channels below which the samples of single elements are folded, and the elements of a row made so. There
# must be 8 such rows, or what every column takes would not be repaid.
NARROW = 256
FOLDED = 2048

# Elements behind normalized axes from which these are taken as they lie: 2 to 6 take longer, forward and
# backward, than copies whose rows are contiguous; 8 are even in the forward.
LEAST_BEHIND = 8


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
        return Layout(shape, dtype, None)
    varying = [a for a in order if shape[a] > 1]
    if varying == sorted(varying):
        return Layout(shape, dtype, None)
    tail = [a for a in identity[len(shape) - fixed :] if shape[a] > 1]
    if varying[len(varying) - len(tail) :] != tail:
        return Layout(shape, dtype, None)
    return Layout(shape, dtype, order)


@lru_cache(maxsize=512)
def row_plan(
    shape: Shape, strides: Shape, dtype: np.dtype[Any], axes: Shape, centred: bool = True
) -> RowPlan:
    """Plan for statistics over these axes, whose order is that of the axes of weight and bias."""
    sizes = tuple(shape[a] for a in axes)
    kept = [a for a in range(len(shape)) if a not in axes]
    if (*kept, *axes) == tuple(range(len(shape))):
        layout, inner = _layout(shape, strides, dtype, fixed=len(axes)), 1
    else:
        layout, inner = _across(shape, strides, dtype, axes)
    rows, cols = math.prod(shape[a] for a in kept), math.prod(sizes)
    return RowPlan(layout, rows, cols, sizes, layout.nbytes, centred, inner=inner)


def _across(shape: Shape, strides: Shape, dtype: np.dtype[Any], axes: Shape) -> tuple[Layout, int]:
    """A layout in which these axes are neighbours in their order, and how many elements lie behind them.

    They are the last ones, and x is copied, where they are no neighbours, or where few elements lie behind.
    """
    layout = _layout(shape, strides, dtype)
    order = layout.order or tuple(range(len(shape)))
    varying, named = ([a for a in some if shape[a] > 1] for some in (order, axes))
    start = varying.index(named[0]) if named else len(varying)
    stop = start + len(named)
    inner = math.prod(shape[a] for a in varying[stop:])
    if varying[start:stop] != named or 1 < inner < LEAST_BEHIND:
        return Layout(shape, dtype, (*(a for a in order if a not in axes), *axes)), 1
    return layout, inner


@lru_cache(maxsize=512)
def group_plan(shape: Shape, dtype: np.dtype[Any], axis: int, groups: int) -> GroupPlan:
    """Plan for statistics per sample, the first axis, and group of channels, which lie on `axis`."""
    order = (0, axis, *(a for a in range(1, len(shape)) if a != axis))
    layout = Layout(shape, dtype, None if axis == 1 else order)
    channels, inner = shape[axis] // groups, math.prod(shape[a] for a in order[2:])
    return GroupPlan(
        layout, shape[0], groups, channels, inner, layout.nbytes, divisor=max(1, channels * inner)
    )


@lru_cache(maxsize=512)
def weight_plan(shape: Shape, dtype: np.dtype[Any], axis: int | None) -> GroupPlan:
    """Plan for a norm over all axes but one, or over all."""
    order = None if axis in (None, 0) else (axis, *(a for a in range(len(shape)) if a != axis))
    layout = Layout(shape, dtype, order)
    rows = 1 if axis is None else shape[axis]
    inner = math.prod(n for a, n in enumerate(shape) if a != axis)
    return GroupPlan(layout, 1, rows, 1, inner, layout.nbytes, centred=False)


@lru_cache(maxsize=512)
def channel_plan(shape: Shape, strides: Shape, dtype: np.dtype[Any], axis: int) -> ChannelPlan:
    """Plan for statistics over all axes but one."""
    layout = _layout(shape, strides, dtype)
    order = layout.order or tuple(range(len(shape)))
    place = order.index(axis)
    outer = math.prod(shape[a] for a in order[:place])
    inner = math.prod(shape[a] for a in order[place + 1 :])
    return _channel_plan(layout, outer, shape[axis], inner, shape[axis])


def _channel_plan(layout: Layout, outer: int, channels: int, inner: int, whole: int) -> ChannelPlan:
    """A single channel is one run, however it lies. whole: channels of the array that this is a part of."""
    if channels == 1 and whole == 1:
        outer, inner = 1, outer * inner
    fold = max(1, min(FOLDED // whole, outer // 8)) if inner == 1 and 0 < whole < NARROW else 1
    return ChannelPlan(layout, outer, channels, inner, layout.nbytes, fold)


@lru_cache(maxsize=512)
def moments_plan(
    shape: Shape, strides: Shape, dtype: np.dtype[Any], axes: Shape, whole: int = 0
) -> tuple[Shape, ChannelPlan]:
    """Axes to transpose x to first, so that the kept ones are neighbours, and the plan for the result.

    whole: channels of the array of which this is a part.
    """
    kept = tuple(a for a in range(len(shape)) if a not in axes)
    order = _layout(shape, strides, dtype).order or tuple(range(len(shape)))
    start = order.index(kept[0]) if kept else 0
    if order[start : start + len(kept)] != kept:
        order, start = kept + axes, 0
    stop = start + len(kept)
    permuted = tuple(shape[a] for a in order)
    layout = Layout(permuted, dtype, None)
    outer, channels, inner = (math.prod(s) for s in (permuted[:start], permuted[start:stop], permuted[stop:]))
    return order, _channel_plan(layout, outer, channels, inner, whole or channels)


def parts(shape: Shape, strides: Shape, axes: Iterable[int], most: int) -> list[tuple[slice, ...]]:
    """Indices that cut an array along `axes`, first the slowest in memory, into parts of `most` elements.

    They are larger only where no axis is left to cut.
    """
    steps = list(shape)
    for a in sorted(axes, key=lambda a: -abs(strides[a])):
        size = math.prod(steps)
        if size <= most:
            break
        steps[a] = max(1, most // (size // steps[a]))
    cuts = ([slice(i, i + step) for i in range(0, n, step)] for n, step in zip(shape, steps, strict=True))
    return list(itertools.product(*cuts))


def moments_parts(
    shape: Shape, strides: Shape, axes: Shape, plan: ChannelPlan, copied: bool
) -> list[tuple[slice, ...]] | None:
    """Parts that bound what statistics over `axes` need besides their results; None for the whole array.

    Of many channels with few elements each, kernels would keep more than a sixteenth of the array; and
    copies, where kernels need them, would be of the whole.
    """
    width = plan.channels * (plan.inner if plan.inner < SHORT_RUN else 1)
    many = width > PART and CHANNEL_BYTES * width > plan.nbytes // 16
    if plan.layout.size <= PART or not (many or copied):
        return None
    kept = [a for a in range(len(shape)) if a not in axes]
    return parts(shape, strides, kept, PART if many else max(PART, plan.layout.size // 16))
