"""CuPy as its users write norms: reductions over arrays, and the rest fused."""

from collections.abc import Callable
from typing import Any

import cupy

from ..cases import Case
from ..inputs import Inputs
from ..timing import Contender
from .measure import Library

EPS = 1e-5
MOMENTUM = 0.1
DTYPES = ("float32", "float64", "float16")  # CuPy has no bfloat16


@cupy.fuse()
def _normalized(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any) -> Any:
    return (x - mean) * rstd * weight + bias


@cupy.fuse()
def _scaled(x: Any, rstd: Any, weight: Any) -> Any:
    return x * rstd * weight


@cupy.fuse()
def _x_hat(x: Any, mean: Any, rstd: Any) -> Any:
    return (x - mean) * rstd


@cupy.fuse()
def _product(a: Any, b: Any) -> Any:
    return a * b


@cupy.fuse()
def _dx(dy: Any, weight: Any, x_hat: Any, c1: Any, c2: Any, rstd: Any) -> Any:
    return (dy * weight - x_hat * c1 - c2) * rstd


def _moments(x: Any, axes: tuple[int, ...], centred: bool, eps: float) -> tuple[Any, Any]:
    """mean and rstd in float32 or wider."""
    wide = cupy.promote_types(x.dtype, cupy.float32)
    if not centred:
        square = cupy.mean(_product(x.astype(wide, copy=False), x), axes, wide, keepdims=True)
        return cupy.zeros_like(square), 1 / cupy.sqrt(square + eps)
    return cupy.mean(x, axes, wide, keepdims=True), 1 / cupy.sqrt(
        cupy.var(x, axes, wide, keepdims=True) + eps
    )


class _Norm:
    """A norm over some axes whose parameters lie along others."""

    def __init__(self, case: Case, a: dict[str, Any]) -> None:
        ndim = len(case.array_shape)
        self.rows = case.op != "batch_norm"
        self.centred = case.op != "rms_norm"
        kept = ndim - 1 if self.rows else case.channel_axis
        self.axes = (kept,) if self.rows else tuple(i for i in range(ndim) if i != kept)
        self.others = tuple(i for i in range(ndim) if i != kept)
        shape = [1] * ndim
        shape[kept] = -1
        self.weight = a["weight"].reshape(shape)
        self.bias = a["bias"].reshape(shape) if self.centred else None
        self.eps = a.get("eps", EPS)
        self.running = None if self.rows else (a["running_mean"], a["running_var"])

    def forward(self, x: Any) -> Any:
        mean, rstd = _moments(x, self.axes, self.centred, self.eps)
        if self.running:
            self._move(mean, rstd, x.size // mean.size)
        if not self.centred:
            return _scaled(x, rstd, self.weight).astype(x.dtype, copy=False)
        return _normalized(x, mean, rstd, self.weight, self.bias).astype(x.dtype, copy=False)

    def _move(self, mean: Any, rstd: Any, count: int) -> None:
        assert self.running is not None
        var = (1 / rstd**2 - self.eps) * count / (count - 1)
        for running, now in zip(self.running, (mean, var), strict=True):
            running *= 1 - MOMENTUM
            running += MOMENTUM * now.reshape(-1)

    def backward(self, dy: Any, x: Any, mean: Any, rstd: Any) -> tuple[Any, ...]:
        x_hat = _x_hat(x, mean, rstd)
        wide, shape = x_hat.dtype, self.weight.shape
        dweight = cupy.sum(_product(dy, x_hat), self.others, wide)
        dbias: Any = cupy.sum(dy, self.others, wide) if self.centred else None
        if self.rows:
            wdy = _product(dy, self.weight)
            c1 = cupy.mean(_product(wdy, x_hat), self.axes, wide, keepdims=True)
            c2 = cupy.mean(wdy, self.axes, wide, keepdims=True) if self.centred else 0.0
        else:
            count = x.size // dweight.size
            c1, c2 = (self.weight * s.reshape(shape) / count for s in (dweight, dbias))
        dx = _dx(dy, self.weight, x_hat, c1, c2, rstd).astype(x.dtype, copy=False)
        sums = [dweight] if dbias is None else [dweight, dbias]
        return dx, *(s.astype(self.weight.dtype, copy=False) for s in sums)


def _contender(case: Case, inputs: Inputs, slots: int) -> Contender | None:
    if case.op not in ("batch_norm", "layer_norm", "rms_norm") or case.fuse or case.dtype not in DTYPES:
        return None
    a = {k: cupy.from_dlpack(v) if hasattr(v, "dtype") else v for k, v in inputs.arguments.items()}
    norm = _Norm(case, a)
    xs = _copies(inputs.x, slots)
    if case.pass_ == "forward":
        return Contender(norm.forward, [(x,) for x in xs], {})
    saved = [_moments(x, norm.axes, norm.centred, norm.eps) for x in xs]
    dys = _copies(inputs.dy, slots)
    arguments = [(dy, x, *own) for dy, x, own in zip(dys, xs, saved, strict=True)]
    backward: Callable[..., Any] = norm.backward
    return Contender(backward, arguments, {})


def _copies(a: Any, slots: int) -> list[Any]:
    first = cupy.from_dlpack(a)
    return [first, *(first.copy() for _ in range(slots - 1))]


LIBRARY = Library(_contender)
