"""Arrays in host memory in the layout of a plan: new ones, and flat as kernels see them."""

import numpy as np

from .. import _buffers
from .._layout import Layout
from ..results import Array


def flat(layout: Layout, x: Array, like: Array) -> Array:
    """x as kernels see it: flat, in the order of its memory; a copy where x is not dense."""
    if layout.storage is not layout.dtype:
        x = x.view(layout.storage)
    return _buffers.flat(x if layout.order is None else x.transpose(layout.order))


def empty(layout: Layout, like: Array) -> tuple[Array, Array]:
    """A new array of this layout, and its flat view."""
    flat = _buffers.empty(layout.size, layout.storage)
    return _shaped(layout, flat if layout.storage is layout.dtype else flat.view(layout.dtype)), flat


def _shaped(layout: Layout, flat: Array) -> Array:
    if layout.order is None:
        return flat.reshape(layout.shape)
    return flat.reshape([layout.shape[a] for a in layout.order]).transpose(np.argsort(layout.order))


def fits(layout: Layout, x: Array) -> bool:
    """Whether the flat view of x shares its memory."""
    return (
        bool(x.flags.aligned)
        and (x if layout.order is None else x.transpose(layout.order)).flags.c_contiguous
    )


def zeros(size: int, like: Array) -> Array:
    """Statistics or sums of no elements."""
    return np.zeros(size)


def copy(x: Array) -> Array:
    """The same elements in memory of their own."""
    return x.copy()


def assign(out: Array, value: Array, like: Array) -> None:
    """out = value"""
    out[...] = value


def gradient(sums: Array, like: Array) -> Array:
    """Sums in the shape and dtype of the parameter that they belong to."""
    own = sums.base is None  # a view would keep the partial sums beside it alive
    return sums.astype(like.dtype, copy=not own).reshape(like.shape)
