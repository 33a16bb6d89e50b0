"""The one list of norms: tests, benchmarks, command line and docs enumerate it."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from . import functional, reference
from ._layout import ACTIVATIONS
from .reference.fused import NUMPY, Elementwise, Steps

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
    """A norm: what computes it, and what a typical call passes besides x.

    Examples
    --------
    >>> import normkernels as nk
    >>> [spec.name for spec in nk.NORMS.values() if spec.residual == "after"]
    ['batch_norm', 'batch_renorm']
    """

    name: str
    family: str
    """"rows", "groups" or "channels": what shares its statistics; "windows": each element has its own."""
    arguments: Callable[..., Arguments]
    """arguments(shape, dtype, rng, channel_axis=1) -> keyword arguments of a typical call in training

    Layer norm and RMS norm are over `channel_axis`, by default the last one.
    """
    parameters: dict[str, str] = field(default_factory=lambda: {"weight": "dweight", "bias": "dbias"})
    """The learned arguments, and where `Grads` has the gradient of each."""
    min_ndim: int = 2
    centred: bool = True
    """Whether the mean is subtracted."""
    residual: str | None = None
    """Where a residual is added, "before" or "after" the norm; None where none can be fused."""
    activation: bool = False
    """Whether an activation can be fused."""
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

    def in_steps(self, passes: Passes, elementwise: Elementwise = NUMPY) -> Passes:
        """Surround passes of the norm with what may be fused with it, done by itself."""
        steps = Steps(passes.forward, passes.backward, self.residual == "before", elementwise)
        return Passes(steps.call, steps.forward, steps.backward)

    def tensors(self, pass_: str, fused: Collection[str] = ()) -> int:
        """How often a pass must at least move a tensor of the size of x, with the names of what is fused.

        "residual" is read; "sum" is written, and its gradient read. The gradient of a residual after the
        norm is dy itself, but for an activation, which has residual read and dresidual written.
        """
        count = self.tensors_moved[pass_] + ("sum" in fused)
        if "residual" in fused and pass_ == "forward":
            count += 1
        elif "residual" in fused and self.residual == "after" and set(ACTIVATIONS).intersection(fused):
            count += 2
        return count


def _passes(module: Any, name: str) -> Passes:
    return Passes(*(getattr(module, name + suffix) for suffix in ("", "_forward", "_backward")))


def _layer_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = -1
) -> Arguments:
    dim = {} if channel_axis in (-1, len(shape) - 1) else {"dim": channel_axis}
    size = shape[channel_axis]
    return {"normalized_shape": (size,), **dim, **_affine(size, dtype, rng)}


def _rms_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = -1
) -> Arguments:
    arguments = _layer_norm(shape, dtype, rng, channel_axis)
    del arguments["bias"]
    return {**arguments, "eps": 1e-6}


def _group_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    channels = shape[channel_axis]
    return {
        "num_groups": math.gcd(channels, 32),
        **_affine(channels, dtype, rng),
        "channel_axis": channel_axis,
    }


def _instance_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    channels = shape[channel_axis]
    return {**_running(channels, dtype), **_affine(channels, dtype, rng), "channel_axis": channel_axis}


def _batch_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    return {**_instance_norm(shape, dtype, rng, channel_axis), "training": True}


def _weight_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    return {"g": _affine(shape[0], dtype, rng)["weight"]}


def _local_response_norm(
    shape: tuple[int, ...], dtype: Any, rng: np.random.Generator, channel_axis: int = 1
) -> Arguments:
    return {"size": 5}


def _affine(size: int, dtype: Any, rng: np.random.Generator) -> Arguments:
    return {
        "weight": rng.uniform(0.5, 1.5, size).astype(dtype),
        "bias": rng.standard_normal(size).astype(dtype),
    }


def _running(channels: int, dtype: Any) -> Arguments:
    dtype = np.float32 if np.dtype(dtype).itemsize == 2 else dtype
    return {"running_mean": np.zeros(channels, dtype), "running_var": np.ones(channels, dtype)}


NORMS: dict[str, NormSpec] = {
    spec.name: spec
    for spec in (
        NormSpec("layer_norm", "rows", _layer_norm, residual="before", activation=True),
        NormSpec(
            "rms_norm",
            "rows",
            _rms_norm,
            {"weight": "dweight"},
            centred=False,
            residual="before",
            activation=True,
        ),
        NormSpec("group_norm", "groups", _group_norm, activation=True),
        NormSpec("instance_norm", "groups", _instance_norm, min_ndim=3, activation=True),
        NormSpec("weight_norm", "rows", _weight_norm, {"g": "dweight"}, centred=False),
        NormSpec("local_response_norm", "windows", _local_response_norm, {}, centred=False),
        NormSpec("batch_norm", "channels", _batch_norm, residual="after", activation=True),
        NormSpec("batch_renorm", "channels", _batch_norm, residual="after", activation=True),
    )
}
