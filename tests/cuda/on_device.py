"""Norms on a device, called with host arrays: what the other tests know how to judge."""

import os
from typing import Any

import numpy as np

from normkernels.cuda.arrays import DeviceArray
from normkernels.cuda.memory import upload
from normkernels.norms import NormSpec, Passes

HOST = os.environ.get("NORMKERNELS_TEST_DEVICE") == "host"
"""Whether the device is the host's processor, as in host_device.py."""

IN_PLACE = ("running_mean", "running_var")


def to_device(value: Any) -> Any:
    return upload(value) if isinstance(value, np.ndarray) else value


def flat(a: np.ndarray | None, lead: int = 0, stream: int = 0) -> DeviceArray | None:
    """The elements in memory that begins `lead` elements after the beginning of a vector; None for None."""
    if a is None:
        return None
    return upload(np.concatenate([np.empty(lead, a.dtype), a.reshape(-1)]), 0, stream).part(lead, a.size)


def to_host(value: Any) -> Any:
    if isinstance(value, DeviceArray):
        return value.copy_to_host()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(to_host, value))
    return value


def _called(function: Any, *args: Any, **options: Any) -> Any:
    """The result with host arrays; running statistics and outputs are copied back into those given."""
    on_device = {name: to_device(value) for name, value in options.items()}
    result = function(*map(to_device, args), **on_device)
    for name, value in options.items():
        if isinstance(value, np.ndarray) and name in (*IN_PLACE, "out", "sum_out"):
            value[...] = to_host(on_device[name])
    return result


def passes(spec: NormSpec) -> Passes:
    """The public functions, with host arrays in and out; only what is saved stays on the device."""

    def call(x: Any, **options: Any) -> Any:
        return to_host(_called(spec.kernels.call, x, **options))

    def forward(x: Any, **options: Any) -> Any:
        y, saved = _called(spec.kernels.forward, x, **options)
        return to_host(y), saved

    def backward(dy: Any, saved: Any, **options: Any) -> Any:
        return to_host(_called(spec.kernels.backward, dy, saved, **options))

    return Passes(call, forward, backward)
