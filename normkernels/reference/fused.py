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


def _held(z: Array) -> Array:
    """z, held where the exponential functions here have vanished: 0 * z is then 0, also at infinity."""
    return z.clip(-1e4, 1e4)


# The activation, and its slope.
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "relu": (lambda z: np.maximum(z, 0), lambda z: np.where(z <= 0, z.dtype.type(0), z.dtype.type(1))),
    "sigmoid": (_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z)),
    "silu": (
        lambda z: z.clip(min=-1e4) * _sigmoid(z),
        lambda z: _sigmoid(z) * (1 + _held(z) * _sigmoid(-z)),
    ),
    "gelu": (lambda z: z.clip(min=-1e4) * _phi(z), lambda z: _phi(z) + _held(z) * _density(_held(z))),
}


class Elementwise(NamedTuple):
    """What a fused pass does besides the norm."""

    add: Callable[..., Array] = np.add
    """add(a, b, out=None) -> a + b"""
    activate: Callable[[Array, str], Array] = lambda z, name: ACTIVATIONS[name][0](z)
    gradient: Callable[[Array, Array, str], Array] = lambda z, dy, name: dy * ACTIVATIONS[name][1](z)
    """The gradient that arrives at z, where y = activate(z)"""


NUMPY = Elementwise()


class Steps(NamedTuple):
    """The three functions of a fused norm, in steps."""

    norm_forward: Callable[..., Any]
    norm_backward: Callable[..., Grads]
    first: bool
    """Whether the residual comes before the norm."""
    elementwise: Elementwise = NUMPY

    def forward(
        self,
        x: Array,
        *args: Any,
        residual: Array | None = None,
        sum_out: Array | None = None,
        activation: str | None = None,
        **kwargs: Any,
    ) -> tuple[Array, Saved]:
        """y = act(norm(x + residual)) where the residual comes first, else act(norm(x) + residual)"""
        if residual is not None and self.first:
            x = self.elementwise.add(x, residual, sum_out)
        z, saved = self.norm_forward(x, *args, **kwargs)
        if residual is not None and not self.first:
            z = self.elementwise.add(z, residual)
        y = z if activation is None else self.elementwise.activate(z, activation)
        return y, Saved(saved, z, activation, residual is not None)

    def call(self, x: Array, *args: Any, **kwargs: Any) -> Array:
        """As `forward`, y only"""
        return self.forward(x, *args, **kwargs)[0]

    def backward(self, dy: Array, saved: Saved, *, dsum: Array | None = None) -> Grads | ResidualGrads:
        """The steps of `forward` in reverse; dsum is a gradient that arrives at x + residual besides"""
        dz = dy
        if saved.activation is not None:
            dz = self.elementwise.gradient(saved.z, dy, saved.activation)
        dx, dweight, dbias = self.norm_backward(dz, saved.norm)
        if dsum is not None:
            dx = self.elementwise.add(dx, dsum, dx)
        if not saved.with_residual:
            return Grads(dx, dweight, dbias)
        return ResidualGrads(dx, dweight, dbias, dx if self.first else dz)
