"""The kernels of `columns` for blocks of neighbouring channels: read from memory once, if they stay in
the cache between statistics and output. A block changes no bits.
"""

import numpy as np

from .channel_constants import state_of, view_of
from .column_channels import (
    Part,
    bounds_of_tile,
    channels_together,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
    tile_count,
)
from .column_primitives import columns_gradient, columns_normalize, tile_sums
from .fusion import first_of
from .jit import kernel, primitive
from .parallel import share
from .pointers import dtype_of, fence, offset, pointer


@primitive
def _forward_block(
    x, residual, view, start, end, weight, bias, state, running_mean, running_var, kind, y, stream, tiles,
    sums_array, good_array, constants_array,
):  # fmt: skip
    """Arrays, which numba keeps until this returns: it would not for their pointers."""
    sums, good, constants = pointer(sums_array), pointer(good_array), pointer(constants_array)
    first, n, together = start * view.inner, (end - start) * view.inner, channels_together(view.inner)
    for t in range(tiles):
        row, rows, _ = bounds_of_tile(t, view.size, view.width)
        tile = offset(x, row * view.width + first)
        good[t] = tile_sums(tile, rows, view.width, n, offset(sums, 3 * t * n), n)
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        finish_columns(
            x, view, part, sums, good, 1, weight, bias, state, running_mean, running_var, constants
        )
    for k in range(first, view.size, view.width):
        columns_normalize(offset(x, k), n, n, constants, offset(residual, k), kind, offset(y, k), stream)


@primitive
def _forward_piece(
    b, x, residual, view, block, weight, bias, state, running_mean, running_var, kind, y, stream
):  # fmt: skip
    start, end = b * block, min((b + 1) * block, view.channels)
    n, tiles, dtype = (end - start) * view.inner, tile_count(view.size, view.width), dtype_of(weight)
    _forward_block(
        x, residual, view, start, end, weight, bias, state, running_mean, running_var, kind, y, stream, tiles,
        np.empty((tiles, 3, n), dtype), np.empty(tiles, np.uint8), np.empty((3, n), dtype),
    )  # fmt: skip
    if stream:
        fence()


@kernel
def forward(
    team, x, residual, outer, channels, inner, block, weight, bias, settings, statistics, running_mean,
    running_var, kind, y, stream,
):  # fmt: skip
    """As `columns.forward`; a block of channels is one piece of work."""
    view, state = view_of(outer * channels * inner, 1, channels, inner), state_of(settings, statistics)
    share(
        team, -(-channels // block), _forward_piece, x, residual, view, block, weight, bias, state,
        running_mean, running_var, kind, y, stream,
    )  # fmt: skip


@primitive
def _backward_block(
    dy, x, residual, view, start, end, weight, bias, kind, mean, rstd, training, dz, dx, dresidual, dweight,
    dbias, stream, tiles, sums_array, constants_array, affine_array,
):  # fmt: skip
    """Arrays, as for `_forward_block`."""
    sums, a, z = pointer(sums_array), pointer(constants_array), pointer(affine_array)
    first, n, together = start * view.inner, (end - start) * view.inner, channels_together(view.inner)
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        prepare_dots(x, view, part, weight, bias, kind, mean, rstd, a, z)
    for t in range(tiles):
        row, rows, _ = bounds_of_tile(t, view.size, view.width)
        k = row * view.width + first
        dots_of_tile(
            offset(dy, k), offset(x, k), offset(residual, k), rows, view.width, n, a, z, n, kind,
            offset(dz, row * n), n, offset(sums, 2 * t * n),
        )  # fmt: skip
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        finish_dots_of_columns(x, view, part, weight, mean, rstd, training, sums, tiles, dweight, dbias, a)
    for i in range(view.size // view.width):
        k = i * view.width + first
        columns_gradient(
            first_of(offset(dz, i * n), offset(dy, k)), offset(x, k), n, n, a, training, offset(dx, k),
            offset(dresidual, k), stream,
        )  # fmt: skip


@primitive
def _backward_piece(
    w, dy, x, residual, view, block, workers, weight, bias, kind, mean, rstd, training, dz, dx, dresidual,
    dweight, dbias, stream,
):  # fmt: skip
    blocks, tiles, dtype = -(-view.channels // block), tile_count(view.size, view.width), dtype_of(weight)
    own = offset(dz, w * block * (view.size // view.channels))
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, view.channels)
        n = (end - start) * view.inner
        _backward_block(
            dy, x, residual, view, start, end, weight, bias, kind, mean, rstd, training, own, dx, dresidual,
            dweight, dbias, stream, tiles, np.empty((tiles, 2, n), dtype), np.empty((4, n), dtype),
            np.empty((3, n), dtype),
        )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd, training,
    dz, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """As `columns.backward`. The blocks are shared out among `workers`, each with room in dz for one."""
    view = view_of(outer * channels * inner, 1, channels, inner)
    share(
        team, workers, _backward_piece, dy, x, residual, view, block, workers, weight, bias, kind, mean, rstd,
        training, dz, dx, dresidual, dweight, dbias, stream,
    )  # fmt: skip
