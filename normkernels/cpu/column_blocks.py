"""The kernels of `columns` for blocks of neighbouring channels: read from memory once, if they stay in
the cache between statistics and output. A block changes no bits.
"""

import numpy as np

from .column_channels import (
    ROOM,
    bounds_of_tile,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
)
from .column_primitives import ROWS, columns_gradient, columns_normalize, tile_sums
from .fusion import first_of
from .jit import loop, primitive
from .pointers import fence, offset, pointer


@primitive
def _forward_block(
    x, residual, start, end, outer, channels, inner, weight, bias, state, kind, y, stream,
    sums, good, constants, room, values,
):  # fmt: skip
    width, first, n = channels * inner, start * inner, (end - start) * inner
    for t in range(len(sums)):
        row, rows, _ = bounds_of_tile(t, outer * width, width)
        tile, own = offset(pointer(x), row * width + first), offset(pointer(sums), 3 * t * n)
        good[t, 0] = tile_sums(tile, rows, width, n, own, n)
    finish_columns(
        x, start, end, outer * width, 1, channels, inner, sums, first, n, good, weight, bias, state,
        constants, room, values,
    )  # fmt: skip
    for k in range(first, first + outer * width, width):
        x_row, residual_row = offset(pointer(x), k), offset(pointer(residual), k)
        columns_normalize(x_row, n, n, pointer(constants), residual_row, kind, offset(pointer(y), k), stream)


@loop
def forward(
    b, x, residual, outer, channels, inner, block, weight, bias, state, kind, y, stream
):  # fmt: skip
    """As `forward`, of a block of channels."""
    start, end = b * block, min((b + 1) * block, channels)
    n, tiles = (end - start) * inner, -(-outer // ROWS)
    sums, constants = np.empty((tiles, 3, n), weight.dtype), np.empty((4, n), weight.dtype)
    room, values = np.empty((ROOM, n)), np.empty((3, end - start), weight.dtype)
    _forward_block(
        x, residual, start, end, outer, channels, inner, weight, bias, state, kind, y, stream,
        sums, np.empty((tiles, 1), np.bool_), constants, room, values,
    )  # fmt: skip
    if stream:
        fence()


@primitive
def _backward_block(
    dy, x, residual, start, end, outer, channels, inner, weight, bias, kind, mean, rstd, training, dz, dx,
    dresidual, dweight, dbias, stream, sums, constants, affine, totals, values,
):  # fmt: skip
    width, first, n = channels * inner, start * inner, (end - start) * inner
    a, z = pointer(constants), pointer(affine)
    prepare_dots(
        pointer(x), start, end, 1, channels, inner, weight, bias, kind, mean, rstd, a, z, first, n, values
    )
    for t in range(len(sums)):
        row, rows, _ = bounds_of_tile(t, outer * width, width)
        k = row * width + first
        dots_of_tile(
            offset(pointer(dy), k), offset(pointer(x), k), offset(pointer(residual), k), rows, width, n, a, z,
            n, kind, offset(dz, row * n), n, offset(pointer(sums), 2 * t * n),
        )  # fmt: skip
    finish_dots_of_columns(
        x, start, end, outer * width, 1, channels, inner, weight, mean, rstd, training, sums, first, n,
        dweight, dbias, constants, totals, values,
    )  # fmt: skip
    for i in range(outer):
        k = i * width + first
        columns_gradient(
            first_of(offset(dz, i * n), offset(pointer(dy), k)), offset(pointer(x), k), n, n, a, training,
            offset(pointer(dx), k), offset(pointer(dresidual), k), stream,
        )  # fmt: skip


@loop
def backward(
    w, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd, training, dz,
    dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """As `backward`. The blocks are shared out among `workers`, each with room in dz for one of them."""
    blocks = -(-channels // block)
    own = offset(pointer(dz), w * block * outer * inner)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, channels)
        n, tiles = (end - start) * inner, -(-outer // ROWS)
        sums, constants = np.empty((tiles, 2, n), weight.dtype), np.empty((4, n), weight.dtype)
        room = np.empty((3, n), weight.dtype)
        _backward_block(
            dy, x, residual, start, end, outer, channels, inner, weight, bias, kind, mean, rstd, training,
            own, dx, dresidual, dweight, dbias, stream, sums, constants, room, np.empty((2, n)),
            np.empty((4, end - start), weight.dtype),
        )  # fmt: skip
    if stream:
        fence()
