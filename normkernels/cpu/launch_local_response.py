"""Local response normalization: plans and flat arrays to kernel calls."""

import numpy as np

from .._layout import ChannelPlan
from ..results import Array
from . import local_response
from .local_response import TILE
from .run import run, streams
from .tuning import ROWS_PIECE as PIECE

# What the backward keeps of all channels before it comes to dx: together with x and dy it is to stay
# in the cache. Narrower parts of a channel than this are not worth their starts.
COLUMN_BYTES = 128 * 1024
NARROWEST = 128


def _window(plan: ChannelPlan, size: int) -> tuple[int, int]:
    """How many channels before and after its own a window has; more than there are change nothing."""
    most = plan.channels - 1
    return min(size // 2, most), min((size - 1) // 2, most)


def _settings(plan: ChannelPlan, size: int, alpha: float, beta: float, k: float) -> Array:
    return np.array((alpha / size, k, beta, 2 * beta * alpha / size), plan.layout.arithmetic)


def _width(plan: ChannelPlan) -> int:
    """How many elements of every channel the backward takes at a time."""
    fit = COLUMN_BYTES // (plan.channels * plan.layout.arithmetic.itemsize)
    if plan.inner <= max(fit, NARROWEST):
        return plan.inner
    lines = -(-plan.inner // -(-plan.inner // min(TILE, max(fit, NARROWEST))) // 16)
    return 16 * lines


def local_response_forward(
    plan: ChannelPlan, x: Array, size: int, alpha: float, beta: float, k: float, y: Array, threads: int | None
) -> None:
    """Write y."""
    n = plan.channels * plan.inner
    block = 1 + PIECE // min(TILE, n)
    run(
        local_response.forward, plan.nbytes, threads, -(-plan.outer * -(-n // TILE) // block),
        x, plan.outer, n, plan.inner, block, *_window(plan, size),
        _settings(plan, size, alpha, beta, k), y, streams(plan, min(TILE, n)),
    )  # fmt: skip


def local_response_backward(
    plan: ChannelPlan,
    dy: Array,
    x: Array,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    dx: Array,
    threads: int | None,
) -> None:
    """Write dx, which may be dy or x."""
    width = _width(plan)
    block = 1 + PIECE // (plan.channels * width)
    run(
        local_response.backward, plan.nbytes, threads, -(-plan.outer * -(-plan.inner // width) // block),
        dy, x, plan.outer, plan.channels, plan.inner, width, block,
        *_window(plan, size), _settings(plan, size, alpha, beta, k), dx, streams(plan, width),
    )  # fmt: skip
