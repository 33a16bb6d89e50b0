"""Local response normalization: plans and flat arrays to kernel calls."""

from collections.abc import Sequence

import numpy as np

from .._layout import ChannelPlan
from ..results import Array
from . import local_response, tuning
from .jit import Kernel
from .run import run, streams


def _window(plan: ChannelPlan, size: int) -> tuple[int, int]:
    """How many channels before and after its own a window has; more than there are change nothing."""
    most = plan.channels - 1
    return min(size // 2, most), min((size - 1) // 2, most)


def _width(plan: ChannelPlan) -> int:
    """How many elements of every channel are taken at a time."""
    parts = min(-(-tuning.PARTS // plan.outer), plan.inner // tuning.NARROWEST_PART)
    if plan.inner > tuning.WIDEST_PART:
        parts = max(parts, -(-plan.inner // tuning.WINDOW_TILE))
    return plan.inner if parts <= 1 else 16 * -(-plan.inner // (16 * parts))


def _run(
    kernel: Kernel, inputs: tuple[Array, ...], plan: ChannelPlan, size: int, settings: Sequence[float],
    rooms: tuple[int, ...], out: Array, threads: int | None,
) -> None:  # fmt: skip
    """settings: alpha, beta and k"""
    alpha, beta, k = settings
    width, scale = _width(plan), alpha / size
    padded = plan.inner < tuning.SHORT_CHANNEL and plan.channels * plan.inner <= tuning.WINDOW_TILE
    block = 1 + tuning.ROWS_PIECE // (plan.channels * width)
    run(
        kernel, plan.nbytes, threads, -(-plan.outer * -(-plan.inner // width) // block), *inputs, plan.outer,
        (plan.channels, plan.inner, width), block, (*_window(plan, size), padded), *rooms,
        np.array((scale, k, beta, 2 * beta * scale), plan.layout.arithmetic), out, streams(plan, width),
    )  # fmt: skip


def local_response_forward(
    plan: ChannelPlan, x: Array, size: int, alpha: float, beta: float, k: float, y: Array, threads: int | None
) -> None:
    """Write y."""
    _run(local_response.forward, (x,), plan, size, (alpha, beta, k), (), y, threads)


def local_response_backward(
    plan: ChannelPlan, dy: Array, x: Array, size: int, alpha: float, beta: float, k: float, dx: Array,
    threads: int | None,
) -> None:  # fmt: skip
    """Write dx; where it is dy or x, that is copied."""
    inputs = tuple(a.copy() if np.may_share_memory(a, dx) else a for a in (dy, x))
    room = max(tuning.TERMS, 2 * (sum(_window(plan, size)) * _width(plan) + tuning.WINDOW_TILE))
    _run(local_response.backward, inputs, plan, size, (alpha, beta, k), (room,), dx, threads)
