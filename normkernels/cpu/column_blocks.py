"""The kernels of `columns` for blocks of neighbouring channels: read from memory once, if they stay in
the cache between statistics and output. A block changes no bits.
"""

import numpy as np

from .channel_constants import Given, View, state_of
from .channel_primitives import Backward, Forward, Rows, write_gradient
from .column_channels import (
    Blocks,
    Sums,
    dots_of_columns,
    finish_columns,
    finish_dots,
    normalize_columns,
    prepare_dots,
    row_tiles,
    sum_columns,
)
from .fusion import first_of, where_given
from .jit import kernel, primitive
from .parallel import share
from .pointers import dtype_of, fence, offset, pointer


@primitive
def _forward_block(start, end, a, view, state, sums_array, constants_array):
    """Arrays, which numba keeps until this returns: it would not for their pointers."""
    first, n = start * view.inner, (end - start) * view.inner
    sums = Sums(offset(pointer(sums_array), -first), n, len(sums_array))
    constants = Rows(offset(pointer(constants_array), -first), n)
    for t in range(sums.tiles):
        sum_columns(t, first, n, a.x, view, sums)
    finish_columns(a.x, view, start, end, state, sums, constants)
    normalize_columns(first, n, 0, view.size, a, view, constants)


@primitive
def _forward_piece(b, a, view, block, state):
    start, end = b * block, min((b + 1) * block, view.channels)
    n, tiles, dtype = (end - start) * view.inner, row_tiles(view.size, view.width), dtype_of(state.weight)
    _forward_block(start, end, a, view, state, np.empty((tiles, 3, n), dtype), np.empty((3, n), dtype))
    if a.stream:
        fence()


@kernel
def forward(team, arrays, view, block, parameters):
    """As `columns.forward`; a block of channels is one piece of work."""
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    share(team, -(-view.channels // block), _forward_piece, a, view, block, state)


@primitive
def _backward_block(start, end, a, view, given, dz, sums_array, constants_array):
    """Arrays, as for `_forward_block`."""
    first, n = start * view.inner, (end - start) * view.inner
    sums = Sums(offset(pointer(sums_array), -first), n, len(sums_array))
    constants = Rows(offset(pointer(constants_array), -first), n)
    prepare_dots(view, start, end, given, constants, a.kind)
    rows = where_given(Rows(offset(dz, -first), n), dz)
    for t in range(sums.tiles):
        dots_of_columns(t, first, n, a, view, constants, rows, sums)
    finish_dots(view, start, end, given, sums, constants)
    for i in range(view.size // view.width):
        here = offset(a, i * view.width + first)
        own = first_of(offset(dz, i * n), here.dy)
        write_gradient(own, here, n, offset(constants, first), given.training)


@primitive
def _backward_piece(w, a, view, blocks, given, dz):
    count, tiles = -(-view.channels // blocks.channels), row_tiles(view.size, view.width)
    own, dtype = offset(dz, w * blocks.channels * (view.size // view.channels)), dtype_of(given.weight)
    for b in range(w * count // blocks.workers, (w + 1) * count // blocks.workers):
        start, end = b * blocks.channels, min((b + 1) * blocks.channels, view.channels)
        n = (end - start) * view.inner
        _backward_block(
            start, end, a, view, given, own, np.empty((tiles, 2, n), dtype), np.empty((7, n), dtype)
        )
    if a.stream:
        fence()


@kernel
def backward(team, arrays, view, blocks, parameters, dz):
    """As `columns.backward`; dz: with an activation, room for a block for each of the workers."""
    a, view, blocks, given = Backward(*arrays), View(*view), Blocks(*blocks), Given(*parameters)
    share(team, blocks.workers, _backward_piece, a, view, blocks, given, dz)
