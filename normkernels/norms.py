"""The one list of norms: tests, benchmarks, command line and docs enumerate it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import functional, reference

Arguments = dict[str, Any]


class Passes(NamedTuple):
    """The three functions of a norm."""

    call: Callable[..., Any]
    """N(x, ...) -> y"""
    forward: Callable[..., Any]
    """N_forward(x, ...) -> (y, saved)"""
    backward: Callable[..., Any]
    """N_backward(dy, saved) -> Grads"""


@dataclass(frozen=True)
class NormSpec:
    """A norm: what computes it, and what a typical call passes besides x."""

    name: str
    family: str
    """"rows" or "channels": what shares its statistics."""
    arguments: Callable[..., Arguments]
    """arguments(shape, dtype, rng, channel_axis=1) -> keyword arguments of a typical call in training"""
    tensors_moved: dict[str, int] = field(default_factory=lambda: {"forward": 2, "backward": 3})
    """The byte model: how often each pass must at least move a tensor of the size of x."""

    @property
    def kernels(self) -> Passes:
        """The public functions, NumPy arrays in and out."""
        return _passes(functional, self.name)

    @property
    def reference(self) -> Passes:
        """The same in plain NumPy, in whatever dtype it is given."""
        return _passes(reference, self.name)


def _passes(module: Any, name: str) -> Passes:
    return Passes(*(getattr(module, name + suffix) for suffix in ("", "_forward", "_backward")))


def _layer_norm_arguments(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    cols = shape[-1]
    return {"normalized_shape": (cols,), **_affine(cols, dtype, rng)}


def _batch_norm_arguments(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    channels = shape[channel_axis]
    return {
        "running_mean": np.zeros(channels, dtype),
        "running_var": np.ones(channels, dtype),
        **_affine(channels, dtype, rng),
        "training": True,
        "channel_axis": channel_axis,
    }


def _affine(size: int, dtype: Any, rng: np.random.Generator) -> Arguments:
    return {
        "weight": rng.uniform(0.5, 1.5, size).astype(dtype),
        "bias": rng.standard_normal(size).astype(dtype),
    }


NORMS: dict[str, NormSpec] = {
    spec.name: spec
    for spec in (
        NormSpec("layer_norm", "rows", _layer_norm_arguments),
        NormSpec("batch_norm", "channels", _batch_norm_arguments),
    )
}
