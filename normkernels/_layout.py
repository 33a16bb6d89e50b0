"""What a kernel needs to know of its arrays: plans, made in `_plan`."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from . import _buffers
from .results import Array

Shape = tuple[int, ...]
ACTIVATIONS = ("relu", "sigmoid", "silu", "gelu")


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie: its axes from the slowest to the fastest in memory."""

    shape: Shape
    dtype: np.dtype[Any]
    order: Shape | None
    """None: C order, also where no order makes the elements contiguous and the array has to be copied."""

    @cached_property
    def storage(self) -> np.dtype[Any]:
        """The dtype as which kernels see the memory: numba has no half types, so they pass as integers."""
        if self.dtype.itemsize > 2:
            return self.dtype
        return np.dtype(np.uint16 if self.dtype == np.float16 else np.int16)

    @cached_property
    def arithmetic(self) -> np.dtype[Any]:
        """The dtype of scratch memory and of parameters."""
        return self.dtype if self.dtype.itemsize > 2 else np.dtype(np.float32)

    def flat(self, x: Array) -> Array:
        """x as kernels see it: flat, in the order of its memory; a copy where x is not dense."""
        if self.storage is not self.dtype:
            x = x.view(self.storage)
        return _buffers.flat(x if self.order is None else x.transpose(self.order))

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def empty(self) -> tuple[Array, Array]:
        """A new array of this layout, and its flat view."""
        flat = _buffers.empty(self.size, self.storage)
        return self.shaped(flat if self.storage is self.dtype else flat.view(self.dtype)), flat

    def shaped(self, flat: Array) -> Array:
        if self.order is None:
            return flat.reshape(self.shape)
        return flat.reshape([self.shape[a] for a in self.order]).transpose(np.argsort(self.order))

    def fits(self, x: Array) -> bool:
        """Whether the flat view of x shares its memory."""
        return (
            bool(x.flags.aligned)
            and (x if self.order is None else x.transpose(self.order)).flags.c_contiguous
        )


@dataclass(frozen=True)
class RowPlan:
    """An array seen as (rows, cols), statistics per row."""

    layout: Layout
    rows: int
    cols: int
    parameter_shape: Shape
    nbytes: int
    centred: bool = True
    """False: the mean is taken to be 0."""
    period: int = 1
    """After how many rows weight and bias begin again."""


@dataclass(frozen=True)
class ChannelPlan:
    """An array seen as (outer, channels, inner), statistics per channel."""

    layout: Layout
    outer: int
    channels: int
    inner: int
    nbytes: int

    @property
    def count(self) -> int:
        """Elements of one channel."""
        return self.outer * self.inner


@dataclass(frozen=True)
class GroupPlan:
    """An array seen as (samples, groups, channels of a group, inner), statistics per sample and group."""

    layout: Layout
    samples: int
    groups: int
    channels: int
    inner: int
    nbytes: int
    centred: bool = True
    """False: the mean is taken to be 0."""
    divisor: int = 1
    """By which the sums of a row are divided: its elements for a mean, 1 for a sum."""

    @property
    def rows(self) -> int:
        return self.samples * self.groups

    @property
    def cols(self) -> int:
        return self.channels * self.inner

    @property
    def parameters(self) -> int:
        """Weights of a sample."""
        return self.groups * self.channels
