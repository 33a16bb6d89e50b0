"""What every pass does around a kernel: where results go, and how they are handed over."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _validate
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
    if out is not None:
        _validate.output(out, name, x, same, others)
        if layout.fits(out):
            return out, layout.flat(out)
    return layout.empty()


def delivered(result: Array, out: Any) -> Array:
    """The result, in `out` where that is given."""
    if out is None or result is out:
        return result
    out[...] = result
    return out  # type: ignore[no-any-return]


def grads(saved: Saved, dx: Array, dweight: Array, dbias: Array | None) -> Grads:
    """The gradients in the shapes and dtypes of what they belong to."""
    weight, bias = saved.weight, saved.bias
    with np.errstate(over="ignore"):  # as y and dx become inf without a warning
        return Grads(
            dx,
            None if weight is None else dweight.astype(weight.dtype).reshape(weight.shape),
            None if bias is None or dbias is None else dbias.astype(bias.dtype).reshape(bias.shape),
        )


def update(running: Sequence[Array], new: Sequence[Array]) -> None:
    """Move the running statistics, where there are any, in place."""
    with np.errstate(over="ignore"):  # a variance above the largest float32 is kept as inf
        for statistic, value in zip(running, new, strict=False):
            statistic[:] = value
