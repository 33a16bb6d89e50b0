"""A norm with what stands before and after it, one step after the other.

``x -> + residual -> norm -> activation`` for norms over rows, as before the sublayers of a transformer, and
``x -> norm -> + residual -> activation`` for norms over channels, as in residual networks. The steps of the
norm itself may be those of any implementation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..results import Grads, ResidualGrads
from .moments import Array


class Saved(NamedTuple):
    norm: Any
    """What the norm itself saved."""
    z: Array
    activation: str | None
    with_residual: bool


def _sigmoid(z: Array) -> Array:
    e: Array = np.exp(-np.abs(z))
    return np.asarray(np.where(z < 0, e, 1) / (1 + e))


def _phi(z: Array) -> Array:
    """The normal distribution function; NumPy has no error function, so number by number."""
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return np.asarray(erfc(z / -math.sqrt(2)).astype(z.dtype) / 2)


def _density(z: Array) -> Array:
    return np.asarray(np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


# The activation, and its derivative.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(z.dtype)),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "silu": (lambda z: z * _sigmoid(z), lambda z: _sigmoid(z) * (1 + z * _sigmoid(-z))),
    "gelu": (lambda z: z * _phi(z), lambda z: _phi(z) + z * _density(z)),
}


def fused_forward(
    norm_forward: Callable[..., Any],
    first: bool,
    x: Array,
    *args: Any,
    residual: Array | None = None,
    activation: str | None = None,
    **kwargs: Any,
) -> tuple[Array, Saved]:
    """y = act(norm(x + residual)) where the residual comes first, else act(norm(x) + residual)"""
    if residual is not None and first:
        x = x + residual
    z, saved = norm_forward(x, *args, **kwargs)
    if residual is not None and not first:
        z = z + residual
    y = z if activation is None else ACTIVATIONS[activation][0](z)
    return y, Saved(saved, z, activation, residual is not None)


def fused_backward(
    norm_backward: Callable[..., Grads], first: bool, dy: Array, saved: Saved, *, dsum: Array | None = None
) -> Grads | ResidualGrads:
    """The steps of `fused_forward` in reverse; dsum is a gradient that arrives at x + residual besides"""
    dz = dy if saved.activation is None else dy * ACTIVATIONS[saved.activation][1](saved.z)
    dx, dweight, dbias = norm_backward(dz, saved.norm)
    if dsum is not None:
        dx = dx + dsum
    if not saved.with_residual:
        return Grads(dx, dweight, dbias)
    return ResidualGrads(dx, dweight, dbias, dx if first else dz)
