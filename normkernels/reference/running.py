"""Running statistics, updated in place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import Array

Counter = int | NDArray[np.integer[Any]]


def averaging_factor(momentum: float | None, num_batches_tracked: Counter | None) -> float:
    """The weight of this batch in the running statistics; without a momentum all batches count the same."""
    if momentum is not None:
        return momentum
    assert num_batches_tracked is not None
    seen = int(np.asarray(num_batches_tracked).item())
    if isinstance(num_batches_tracked, np.ndarray):
        num_batches_tracked += 1
    return 1 / (seen + 1)


def move(running: Array | None, batch: Array, factor: float) -> None:
    """running = (1 - factor) * running + factor * batch"""
    if running is not None:
        running[:] = (1 - factor) * running + factor * batch.reshape(-1)
