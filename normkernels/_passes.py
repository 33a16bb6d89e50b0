"""What every pass does around a kernel: where results go, and how they are handed over."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _arrays, _validate
from ._dispatch import backend
from ._layout import Layout
from .results import Array, Grads, Saved


def target(
    layout: Layout,
    x: Array,
    out: Any,
    same: Sequence[Array],
    others: Sequence[Array | None],
    name: str = "out",
) -> tuple[Array, Array]:
    """The array that the kernels fill, and its flat view: out where its strides allow."""
    kernels = backend(x)
    if out is not None:
        out = _validate.output(out, name, x, same, others)
        if kernels.fits(layout, out):
            return out, kernels.flat(layout, out, x)
    filled: tuple[Array, Array] = kernels.empty(layout, x)
    return filled


def delivered(result: Array, out: Any, x: Array) -> Any:
    """The result, in `out` where that is given; what was done, was done on the stream of x."""
    if out is None or (result is out and isinstance(result, np.ndarray)):
        return result
    backend(x).assign(_arrays.array(out, "out", written=True), result, x)
    return out


def grads(saved: Saved[Any], dx: Array, dweight: Array, dbias: Array | None) -> Grads:
    """The gradients in the shapes and dtypes of what they belong to."""
    weight, bias = saved.weight, saved.bias
    gradient = backend(saved.x).gradient
    with np.errstate(over="ignore"):  # as y and dx become inf without a warning
        return Grads(
            dx,
            None if weight is None else gradient(dweight, weight),
            None if bias is None or dbias is None else gradient(dbias, bias),
        )
