"""What a kernel needs to know of its arrays: plans, made in `_plan`."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

Shape = tuple[int, ...]
Activation = Literal["relu", "sigmoid", "silu", "gelu"]
ACTIVATIONS = get_args(Activation)


def storage(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as which kernels see memory: numba has no half types, so they pass as integers."""
    if dtype.itemsize > 2:
        return dtype
    return np.dtype(np.uint16 if dtype == np.float16 else np.int16)


def bfloat16() -> np.dtype[Any]:
    """NumPy's dtype for it, which the optional package ml_dtypes makes."""
    try:
        import ml_dtypes
    except ImportError:
        raise TypeError("bfloat16 needs the package ml_dtypes") from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


@dataclass(frozen=True)
class Layout:
    """Where the elements of an array lie: its axes from the slowest to the fastest in memory."""

    shape: Shape
    dtype: np.dtype[Any]
    order: Shape | None
    """None: C order, also where no order makes the elements contiguous and the array has to be copied."""

    @cached_property
    def storage(self) -> np.dtype[Any]:
        """The dtype as which kernels see the memory."""
        return storage(self.dtype)

    @cached_property
    def arithmetic(self) -> np.dtype[Any]:
        """The dtype of scratch memory and of parameters."""
        return self.dtype if self.dtype.itemsize > 2 else np.dtype(np.float32)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, eq=False)
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
    inner: int = 1
    """How many rows lie side by side, their elements so far apart: the array is (outer, cols, inner)."""


@dataclass(frozen=True, eq=False)
class ChannelPlan:
    """An array seen as (outer, channels, inner), statistics per channel."""

    layout: Layout
    outer: int
    channels: int
    inner: int
    nbytes: int
    fold: int = 1
    """How many samples of single elements are taken as one row, so that few channels make a long one."""

    @property
    def count(self) -> int:
        """Elements of one channel."""
        return self.outer * self.inner


@dataclass(frozen=True, eq=False)
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


Plan = RowPlan | GroupPlan | ChannelPlan
