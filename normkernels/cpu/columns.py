"""Kernels over an array seen as (rows, cols): statistics per column. This is BatchNorm of (N, C) and
of channels-last arrays, where the elements of a channel never lie side by side.

Partial statistics of tiles of rows, their merge in fixed order, and one sweep that writes. An array
larger than the cache is therefore read twice: the columns of one channel share their cache lines
with other channels, so no channel is ever in the cache alone.
"""

import numpy as np
from numba import prange

from .channel_primitives import summed
from .column_primitives import column_dots, column_moments, columns_gradient, columns_normalize
from .jit import kernel
from .primitives import far_or_out_of_range, merged, tile_moments
from .vectors import fence, lanes, offset, pointer

# A tile of one vector of columns: 16 KB of float32, which stay in L1 for a second pass.
ROWS = 128
# Columns and elements of one piece of work.
COLS = 256
PIECE = 65536


@kernel
def moments(x, rows, cols, scratch, partials, mean, m2):
    """mean and m2 of every column.

    scratch: (tiles, 3, cols) in the dtype of x. partials: (cols, tiles, 4) in float64.
    """
    tiles, blocks = -(-rows // ROWS), -(-cols // COLS)
    for k in prange(tiles * blocks):
        t, start = k // blocks, k % blocks * COLS
        end, n = min(start + COLS, cols), min(ROWS, rows - t * ROWS)
        for c in range(start, end, lanes(pointer(x))):
            tile = offset(pointer(x), t * ROWS * cols + c)
            column_moments(
                tile, n, cols, min(lanes(pointer(x)), end - c), offset(pointer(scratch), 3 * t * cols + c)
            )
        for c in range(start, end):
            s, q = np.float64(scratch[t, 1, c]), np.float64(scratch[t, 2, c])
            tile = np.float64(n), np.float64(scratch[t, 0, c]), s / n, q - s * s / n
            if far_or_out_of_range(s, q, n):
                tile = tile_moments(offset(pointer(x), t * ROWS * cols + c), n, cols, 1)
            for j in range(4):
                partials[c, t, j] = tile[j]
    for c in prange(cols):
        mean[c], m2[c] = merged(partials[c])


@kernel
def normalize(x, rows, cols, coefficients, y, stream):
    """y = (x - mean) * scale + shift; coefficients: (4, cols) of hi, lo, scale, shift in the dtype of x."""
    block = 1 + PIECE // cols
    for b in prange(-(-rows // block)):
        for i in range(b * block, min((b + 1) * block, rows)):
            k = i * cols
            columns_normalize(
                offset(pointer(x), k), cols, pointer(coefficients), offset(pointer(y), k), stream
            )
        if stream:
            fence()


@kernel
def dots(dy, x, rows, cols, scratch, partials, coefficients, rstd, dweight, dbias):
    """dweight = sum(dy * x_hat) and dbias = sum(dy) of every column.

    scratch: (tiles, 2, cols), coefficients: (2 or more, cols) of hi, lo, both in the dtype of x.
    partials: (cols, tiles, 2) in float64.
    """
    tiles, blocks = -(-rows // ROWS), -(-cols // COLS)
    for k in prange(tiles * blocks):
        t, start = k // blocks, k % blocks * COLS
        end, n = min(start + COLS, cols), min(ROWS, rows - t * ROWS)
        for c in range(start, end, lanes(pointer(x))):
            j = t * ROWS * cols + c
            column_dots(
                offset(pointer(dy), j), offset(pointer(x), j), n, cols, min(lanes(pointer(x)), end - c),
                offset(pointer(coefficients), c), offset(pointer(scratch), 2 * t * cols + c),
            )  # fmt: skip
        for c in range(start, end):
            partials[c, t, 0], partials[c, t, 1] = scratch[t, 0, c], scratch[t, 1, c]
    for c in prange(cols):
        dot, dbias[c] = summed(partials[c])
        dweight[c] = dot * rstd[c]


@kernel
def gradient(dy, x, rows, cols, coefficients, dx, stream):
    """dx = (dy - (x - mean) * k - c2) * scale; coefficients: (5, cols) of hi, lo, k, c2, scale."""
    block = 1 + PIECE // cols
    for b in prange(-(-rows // block)):
        for i in range(b * block, min((b + 1) * block, rows)):
            j = i * cols
            columns_gradient(
                offset(pointer(dy), j),
                offset(pointer(x), j),
                cols,
                pointer(coefficients),
                offset(pointer(dx), j),
                stream,
            )
        if stream:
            fence()
