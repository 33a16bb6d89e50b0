"""The data of a case: the same arrays for every library, made from one seed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ..norms import NORMS
from .cases import Case

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Inputs:
    """x, dy, and the keyword arguments of the norm."""

    x: Array
    dy: Array
    arguments: dict[str, Any]


def make_inputs(case: Case) -> Inputs:
    """Standard normal x and dy in the layout of the case."""
    rng = np.random.default_rng(0)
    shape, dtype = case.array_shape, ml_dtypes.finfo(case.dtype).dtype
    drawn = np.float64 if dtype == np.float64 else np.float32
    arguments = NORMS[case.op].arguments(shape, dtype, rng, channel_axis=case.channel_axis)
    x = rng.standard_normal(shape, drawn).astype(dtype, copy=False)
    dy = rng.standard_normal(shape, drawn).astype(dtype, copy=False) if case.pass_ == "backward" else x
    return Inputs(x, dy, arguments)


def copied(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with arrays of their own: training moves the running statistics in place."""
    return {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
