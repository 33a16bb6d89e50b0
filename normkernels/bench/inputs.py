"""The data of a case: the same arrays for every library, made from one seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from .._layout import ACTIVATIONS
from ..norms import NORMS
from .cases import Case

Array = NDArray[np.floating[Any]]

# Nearer to 0 than so many eps, rounding decides on which side of relu's kink z lies: dy is 0 there.
KINK = 64


@dataclass(frozen=True)
class Inputs:
    """x, dy, the keyword arguments of the norm, and the tensors that its two passes take besides."""

    x: Array
    dy: Array
    arguments: dict[str, Any]
    beside_x: dict[str, Array] = field(default_factory=dict)
    beside_dy: dict[str, Array] = field(default_factory=dict)


def make_inputs(case: Case, seed: int = 0) -> Inputs:
    """Standard normal x and dy in the layout of the case."""
    rng = np.random.default_rng(seed)
    shape, dtype = case.array_shape, ml_dtypes.finfo(case.dtype).dtype
    drawn = np.float64 if dtype == np.float64 else np.float32
    arguments = NORMS[case.op].arguments(shape, dtype, rng, channel_axis=case.channel_axis)
    if case.evaluation:
        arguments["training"] = False
    x = rng.standard_normal(shape, drawn).astype(dtype, copy=False)
    dy = rng.standard_normal(shape, drawn).astype(dtype, copy=False) if case.pass_ == "backward" else x
    beside_x, beside_dy = {}, {}
    if "residual" in case.fused:
        beside_x["residual"] = rng.standard_normal(shape, drawn).astype(dtype, copy=False)
    if "sum" in case.fused:
        beside_x["sum_out"] = np.empty_like(x)
        beside_dy["dsum"] = rng.standard_normal(shape, drawn).astype(dtype, copy=False)
    if "relu" in case.fused and case.pass_ == "backward":
        z = NORMS[case.op].kernels.call(x, **copied(arguments), **beside_x)
        dy[np.abs(z) < KINK * ml_dtypes.finfo(dtype).eps] = 0
    for name in set(case.fused).intersection(ACTIVATIONS):
        arguments["activation"] = name
    return Inputs(x, dy, arguments, beside_x, beside_dy)


def copied(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with arrays of their own: training moves the running statistics in place."""
    return {name: a.copy() if isinstance(a, np.ndarray) else a for name, a in arguments.items()}
