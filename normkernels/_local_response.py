"""The steps of local response normalization: validate, plan, launch, collect."""

from dataclasses import dataclass
from typing import Any

from . import _arrays, _validate
from ._dispatch import backend
from ._layout import ChannelPlan, Layout
from ._passes import delivered, target
from ._plan import channel_plan
from .results import Array, Grads, Saved

NORM = "local_response_norm"


@dataclass(frozen=True)
class LocalResponsePlan:
    """An array seen as (outer, channels, inner), and the window over its channels."""

    channels: ChannelPlan
    size: int
    alpha: float
    beta: float
    k: float

    @property
    def layout(self) -> Layout:
        return self.channels.layout

    @property
    def arguments(self) -> tuple[int, float, float, float]:
        return self.size, self.alpha, self.beta, self.k


def _size(value: Any) -> int:
    size = _validate.integer(value, "size")
    if size < 1:
        raise ValueError(f"size must be at least 1, got {value}")
    return size


def local_response_norm(
    x: Any, size: int, alpha: float, beta: float, k: float, out: Any, threads: int | None, *, keep: bool
) -> tuple[Array, Saved[Grads]]:
    """y and what the backward needs; with `keep`, out must leave x alone."""
    x = _arrays.array(x)
    if x.ndim < 2:
        raise ValueError(f"x must have at least 2 dimensions, batch and channels, got {x.ndim}")
    real = _validate.real
    plan = LocalResponsePlan(
        channel_plan(x.shape, x.strides, x.dtype, 1),
        _size(size), real(alpha, "alpha"), real(beta, "beta"), real(k, "k"),
    )  # fmt: skip
    _validate.threads(threads, x)
    kernels = backend(x)
    y, flat = target(plan.layout, x, out, () if keep else (x,), (x,) if keep else ())
    if x.size:
        flat_x = kernels.flat(plan.layout, x, x)
        if out is not None and _arrays.overlap(flat_x, flat):  # its windows are read after it is written
            flat_x = kernels.copy(flat_x)
        kernels.local_response_forward(plan.channels, flat_x, *plan.arguments, flat, threads)
    nothing = kernels.zeros(0, x)
    return delivered(y, out, x), Saved(x, nothing, nothing, None, None, True, plan, NORM)


def local_response_norm_backward(dy: Any, saved: Saved[Grads], out: Any, threads: int | None) -> Grads:
    dy = _validate.gradient(dy, saved, NORM)
    _validate.threads(threads, dy)
    plan, x, kernels = saved.plan, saved.x, backend(dy)
    dx, flat = target(plan.layout, dy, out, (dy, x), ())
    if x.size:
        flat_dy, flat_x = (kernels.flat(plan.layout, a, dy) for a in (dy, x))
        kernels.local_response_backward(plan.channels, flat_dy, flat_x, *plan.arguments, flat, threads)
    return Grads(delivered(dx, out, dy), None, None)
