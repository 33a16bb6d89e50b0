"""The kernels of `columns` for blocks of neighbouring channels: read from memory once, if they stay in
the cache between statistics and output. A block changes no bits.
"""

import numpy as np

from .column_channels import (
    Part,
    bounds_of_tile,
    channels_together,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
    tile_count,
    view_of,
)
from .column_primitives import columns_gradient, columns_normalize, tile_sums
from .fusion import first_of
from .jit import loop, primitive
from .pointers import fence, offset, pointer


@primitive
def _forward_block(
    x, residual, view, start, end, weight, bias, state, kind, y, stream, sums, good, constants
):  # fmt: skip
    first, n, together = start * view.inner, (end - start) * view.inner, channels_together(view.inner)
    for t in range(len(sums)):
        row, rows, _ = bounds_of_tile(t, view.size, view.width)
        tile = offset(pointer(x), row * view.width + first)
        good[t, 0] = tile_sums(tile, rows, view.width, n, offset(pointer(sums), 3 * t * n), n)
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        finish_columns(pointer(x), view, part, pointer(sums), good, weight, bias, state, pointer(constants))
    for k in range(first, view.size, view.width):
        x_row, residual_row = offset(pointer(x), k), offset(pointer(residual), k)
        columns_normalize(x_row, n, n, pointer(constants), residual_row, kind, offset(pointer(y), k), stream)


@loop
def forward(
    b, x, residual, outer, channels, inner, block, weight, bias, state, kind, y, stream
):  # fmt: skip
    """As `forward`, of a block of channels."""
    start, end = b * block, min((b + 1) * block, channels)
    n, view = (end - start) * inner, view_of(outer * channels * inner, 1, channels, inner)
    tiles = tile_count(view.size, view.width)
    _forward_block(
        x, residual, view, start, end, weight, bias, state, kind, y, stream,
        np.empty((tiles, 3, n), weight.dtype), np.empty((tiles, 1), np.bool_), np.empty((3, n), weight.dtype),
    )  # fmt: skip
    if stream:
        fence()


@primitive
def _backward_block(
    dy, x, residual, view, start, end, weight, bias, kind, mean, rstd, training, dz, dx, dresidual, dweight,
    dbias, stream, sums, constants, affine,
):  # fmt: skip
    first, n, together = start * view.inner, (end - start) * view.inner, channels_together(view.inner)
    a, z = pointer(constants), pointer(affine)
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        prepare_dots(pointer(x), view, part, weight, bias, kind, mean, rstd, a, z)
    for t in range(len(sums)):
        row, rows, _ = bounds_of_tile(t, view.size, view.width)
        k = row * view.width + first
        dots_of_tile(
            offset(pointer(dy), k), offset(pointer(x), k), offset(pointer(residual), k), rows, view.width, n,
            a, z, n, kind, offset(dz, row * n), n, offset(pointer(sums), 2 * t * n),
        )  # fmt: skip
    for c in range(start, end, together):
        part = Part(c, min(c + together, end), first, n)
        finish_dots_of_columns(pointer(x), view, part, weight, mean, rstd, training, sums, dweight, dbias, a)
    for i in range(view.size // view.width):
        k = i * view.width + first
        columns_gradient(
            first_of(offset(dz, i * n), offset(pointer(dy), k)), offset(pointer(x), k), n, n, a, training,
            offset(pointer(dx), k), offset(pointer(dresidual), k), stream,
        )  # fmt: skip


@loop
def backward(
    w, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd,
    training, dz, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """As `backward`. The blocks are shared out among `workers`, each with room in dz for one of them."""
    blocks, view = -(-channels // block), view_of(outer * channels * inner, 1, channels, inner)
    own, tiles = offset(pointer(dz), w * block * outer * inner), tile_count(view.size, view.width)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, channels)
        n = (end - start) * inner
        _backward_block(
            dy, x, residual, view, start, end, weight, bias, kind, mean, rstd, training, own, dx, dresidual,
            dweight, dbias, stream, np.empty((tiles, 2, n), weight.dtype), np.empty((4, n), weight.dtype),
            np.empty((3, n), weight.dtype),
        )  # fmt: skip
    if stream:
        fence()
