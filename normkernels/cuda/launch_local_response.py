"""Local response normalization: plans and flat arrays to kernel calls."""

import numpy as np

from .._layout import ChannelPlan
from . import local_response, walks
from .arrays import DeviceArray
from .devices import properties
from .form import Form
from .memory import empty
from .run import launch
from .walks import Walk


def _window(plan: ChannelPlan, size: int) -> tuple[int, int]:
    """How many channels before and after its own a window has; more than there are change nothing."""
    most = plan.channels - 1
    return min(size // 2, most), min((size - 1) // 2, most)


def _walk(plan: ChannelPlan, outer: int, *arrays: DeviceArray) -> tuple[Form, Walk]:
    x, rule = arrays[0], walks.WALK
    form = walks.walk_form(x.itemsize, plan.inner, tuple(a.address for a in arrays), rule)
    multiprocessors = properties(x.device).multiprocessors
    return form, walks.walk(outer, plan.channels, plan.inner, form, rule, multiprocessors)


def local_response_forward(
    plan: ChannelPlan,
    x: DeviceArray,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    y: DeviceArray,
    threads: int | None,
) -> None:
    """Write y, which must not be x."""
    form, walk = _walk(plan, plan.outer, x, y)
    launch(
        local_response.forward, form, walk.blocks, x,
        x, x.size, plan.channels, plan.inner, *walk[:-1], *_window(plan, size), alpha / size, float(k),
        float(beta), y,
    )  # fmt: skip


def local_response_backward(
    plan: ChannelPlan,
    dy: DeviceArray,
    x: DeviceArray,
    size: int,
    alpha: float,
    beta: float,
    k: float,
    dx: DeviceArray,
    threads: int | None,
) -> None:
    """Write dx, which may be dy or x.

    In two kernels, for so many samples at a time that what passes from one to the other stays in the cache.
    """
    arithmetic = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
    sample = plan.channels * plan.inner
    fit = int(walks.KEPT * properties(x.device).l2_bytes) // (2 * sample * (x.itemsize + arithmetic.itemsize))
    samples = min(plan.outer, max(1, fit))
    g, t = (empty((samples * sample,), arithmetic, x.device, x.stream) for _ in range(2))
    before, after = _window(plan, size)
    for first in range(0, plan.outer, samples):
        count = min(samples, plan.outer - first)
        form, walk = _walk(plan, count, x, dy, dx)
        cut = first * sample, count * sample, plan.channels, plan.inner, *walk[:-1], before, after
        launch(
            local_response.terms, form, walk.blocks, x,
            dy, x, *cut, alpha / size, float(k), float(beta), g, t,
        )  # fmt: skip
        launch(
            local_response.gradient, form, walk.blocks, x,
            g, t, x, *cut, 2.0 * beta * alpha / size, dx,
        )  # fmt: skip
