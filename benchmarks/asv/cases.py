"""The cases, and a case made ready to be called.

Imports nothing of this folder: startup.py has it loaded by interpreters of its own.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

import normkernels


class Case(NamedTuple):
    """A norm and the shape of one sample."""

    norm: str
    shape: tuple[int, ...]


# Written out, not asked of the package: the same name must mean the same work at every commit. Whoever
# changes a line here gives it another name, or `version` of the classes another value.
CASES = {
    "layer_norm/128x768": Case("layer_norm", (128, 768)),
    "layer_norm/197x1024": Case("layer_norm", (197, 1024)),
    "rms_norm/128x2048": Case("rms_norm", (128, 2048)),
    "group_norm/256x28x28": Case("group_norm", (256, 28, 28)),
    "instance_norm/64x56x56": Case("instance_norm", (64, 56, 56)),
    "local_response_norm/96x27x27": Case("local_response_norm", (96, 27, 27)),
    "weight_norm/1024x1024": Case("weight_norm", (1024, 1024)),
    "batch_norm/64x56x56": Case("batch_norm", (64, 56, 56)),
    "batch_norm/512x7x7": Case("batch_norm", (512, 7, 7)),
    "batch_renorm/64x56x56": Case("batch_renorm", (64, 56, 56)),
}
BATCHES = (1, 16)
PASSES = ("forward", "backward")

# Tensors of the size of x that a pass must at least move: x, y; dy, x, dx.
TENSORS = {"forward": 2, "backward": 3}

GROUPS = 32


class Inputs(NamedTuple):
    """The arrays of a case."""

    x: np.ndarray
    dy: np.ndarray
    arguments: dict[str, Any]
    """What is passed to the norm besides x."""


def inputs(case: str, batch: int) -> Inputs:
    """Standard normal float32, the same in every process."""
    norm, shape = CASES[case]
    if norm != "weight_norm":
        shape = (batch, *shape)
    elif batch > 1:
        raise NotImplementedError("a weight has no batch")
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape, np.float32)
    dy = rng.standard_normal(shape, np.float32)

    channels = shape[-1] if norm in ("layer_norm", "rms_norm") else shape[1]
    weight = rng.uniform(0.5, 1.5, channels).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    running = {
        "running_mean": np.zeros(channels, np.float32),
        "running_var": np.ones(channels, np.float32),
    }
    arguments: dict[str, dict[str, Any]] = {
        "layer_norm": {"normalized_shape": (channels,), "weight": weight, "bias": bias},
        "rms_norm": {"normalized_shape": (channels,), "weight": weight, "eps": 1e-6},
        "group_norm": {"num_groups": GROUPS, "weight": weight, "bias": bias},
        "instance_norm": {"weight": weight, "bias": bias},
        "local_response_norm": {"size": 5},
        "weight_norm": {"g": rng.uniform(0.5, 1.5, shape[0]).astype(np.float32)},
        "batch_norm": {**running, "weight": weight, "bias": bias, "training": True},
        "batch_renorm": {**running, "weight": weight, "bias": bias, "training": True},
    }
    return Inputs(x, dy, arguments[norm])


def bytes_moved(case: str, batch: int, pass_: str) -> int:
    """Bytes that the pass must at least move, with numbers of four bytes."""
    norm, shape = CASES[case]
    return TENSORS[pass_] * 4 * math.prod(shape) * (1 if norm == "weight_norm" else batch)


def call(case: str, batch: int, pass_: str) -> Callable[[], Any]:
    """A function that runs one pass; the forward of a backward is done here."""
    norm = CASES[case].norm
    try:
        forward = getattr(normkernels, f"{norm}_forward")
        backward = getattr(normkernels, f"{norm}_backward")
    except AttributeError as error:
        raise NotImplementedError(f"this commit has no {norm}") from error
    x, dy, arguments = inputs(case, batch)
    if pass_ == "forward":
        return lambda: forward(x, **arguments)
    _, saved = forward(x, **arguments)
    return lambda: backward(dy, saved)


@lru_cache
def compiled(case: str, batch: int, pass_: str) -> Callable[[], Any]:
    """`call`, called once. asv repeats setup before every sample: what it gets is what it got before."""
    run = call(case, batch, pass_)
    run()
    return run
