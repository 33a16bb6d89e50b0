"""Kernels over an array seen as (rows, cols), statistics per column: batch norm of (N, C) and
of channels-last arrays, where the elements of a channel never lie side by side.

Partial statistics of tiles of rows, their merge in fixed order, and one sweep that writes. An array
larger than the cache is therefore read twice: the columns of one channel share their cache lines
with other channels, so no channel is ever in the cache alone.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In their backward `affine` has the room of `constants`, and both passes form dz: memory to keep it in
costs more than the slopes. `dz` has room for a row for each piece of work, which is copied to `dresidual`.
"""

import numpy as np
from numba import prange

from .channel_primitives import (
    dot_constants,
    finish_dots,
    finish_moments,
    forward_constants,
)
from .column_primitives import (
    ROWS,
    add_column_dots,
    column_moments,
    column_spread,
    columns_gradient,
    columns_normalize,
    columns_slope,
)
from .extremes import group_statistics
from .fusion import first_of
from .jit import kernel, primitive
from .primitives import LARGE, SMALL, merged, reciprocal_sd, tile_moments
from .vectors import fence, lanes, offset, pointer

# Columns and elements of one piece of work.
COLS = 256
PIECE = 65536
# Rows of a piece that share one load and store of the sums. A vector of columns of all rows at a time is
# half as fast where slopes keep the processor from loading ahead; 8 rows 0.8 times as fast as 4 (measured).
TOGETHER = 4


@primitive
def _moments_piece(x, k, rows, cols, scratch, partials):
    """Moments of COLS columns of one tile."""
    blocks = -(-cols // COLS)
    t, start = k // blocks, k % blocks * COLS
    end, n = min(start + COLS, cols), min(ROWS, rows - t * ROWS)
    tile, sums = offset(pointer(x), t * ROWS * cols), offset(pointer(scratch), 4 * t * cols)
    for first in range(start, end, lanes(pointer(x))):
        stop = min(first + lanes(pointer(x)), end)
        column_moments(offset(tile, first), n, cols, stop - first, offset(sums, first))
        q, usual = offset(sums, 2 * cols), True
        for c in range(first, stop):
            usual = usual and SMALL < q[c] < LARGE
        if not usual:  # constant columns are common, and nothing is wrong with them
            column_spread(offset(tile, first), n, cols, stop - first, offset(sums, first + 3 * cols))
        for c in range(first, stop):
            if usual or SMALL < q[c] < LARGE or sums[3 * cols + c] == 0.0:
                s = np.float64(sums[cols + c])
                moments = np.float64(n), np.float64(sums[c]), s / n, np.float64(q[c]) - s * s / n
            else:
                moments = tile_moments(offset(tile, c), n, cols, 1)
            for j in range(4):
                partials[c, t, j] = moments[j]


@primitive
def _dots_piece(dy, x, residual, k, rows, cols, constants, affine, kind, scratch, partials):
    """Dots of COLS columns of one tile."""
    blocks = -(-cols // COLS)
    t, start = k // blocks, k % blocks * COLS
    end, n = min(start + COLS, cols), min(ROWS, rows - t * ROWS)
    tile, sums = t * ROWS * cols + start, offset(pointer(scratch), 4 * t * cols + start)
    for c in range(end - start):
        for j in range(2):
            sums[j * cols + c], sums[(j + 2) * cols + c] = constants[j, start + c], 0.0
    for i in range(0, n, TOGETHER):
        k = tile + i * cols
        add_column_dots(
            offset(pointer(dy), k), offset(pointer(x), k), min(TOGETHER, n - i), end - start, cols,
            offset(pointer(affine), start), offset(pointer(residual), k), kind, None, sums,
        )  # fmt: skip
    for c in range(end - start):
        partials[start + c, t, 0], partials[start + c, t, 1] = sums[3 * cols + c], sums[2 * cols + c]


@primitive
def _normalize_piece(x, residual, b, block, rows, cols, constants, kind, y, stream):
    for i in range(b * block, min((b + 1) * block, rows)):
        k = i * cols
        columns_normalize(
            offset(pointer(x), k), cols, cols, pointer(constants), offset(pointer(residual), k), kind,
            offset(pointer(y), k), stream,
        )  # fmt: skip
    if stream:
        fence()


@kernel
def moments(x, rows, cols, scratch, partials, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every column.

    scratch: (tiles, 4, cols) in the dtype of x. partials: (cols, tiles, 4) in float64.
    """
    for k in prange(-(-rows // ROWS) * -(-cols // COLS)):
        _moments_piece(x, k, rows, cols, scratch, partials)
    tiles = partials.shape[1]
    for c in prange(cols):
        own, run = offset(pointer(partials), 4 * tiles * c), offset(pointer(x), c)
        mean_c, m2 = merged(own, tiles)
        mean[c], var[c], rstd[c] = group_statistics(run, rows, cols, 1, 0.0, True, mean_c, m2 / rows)


@kernel
def forward(
    x, residual, rows, cols, weight, bias, settings, statistics, scratch, partials, constants, kind, y, stream
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x.

    scratch, partials: as for `moments`. constants: (4, cols) in the dtype of x: hi, scale, shift, nothing.
    """
    for k in prange(-(-rows // ROWS) * -(-cols // COLS)):
        _moments_piece(x, k, rows, cols, scratch, partials)
    for c in prange(cols):
        a = offset(pointer(constants), c)
        finish_moments(
            pointer(x), c, rows, cols, 1, pointer(weight), pointer(bias), pointer(settings),
            pointer(statistics), pointer(partials), partials.shape[1], a, cols,
        )  # fmt: skip
    block = 1 + PIECE // cols
    for b in prange(-(-rows // block)):
        _normalize_piece(x, residual, b, block, rows, cols, constants, kind, y, stream)


@kernel
def reciprocal(var, eps, rstd):
    for c in range(len(var)):
        rstd[c] = reciprocal_sd(var[c], eps)


@kernel
def normalize(x, residual, rows, cols, inner, mean, rstd, weight, bias, constants, kind, y, stream):
    """As `forward`, with given statistics; `inner` neighbouring columns share them."""
    for c in prange(cols // inner):
        for k in range(c * inner, (c + 1) * inner):
            a = offset(pointer(constants), k)
            forward_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], a, cols)
    block = 1 + PIECE // cols
    for b in prange(-(-rows // block)):
        _normalize_piece(x, residual, b, block, rows, cols, constants, kind, y, stream)


@kernel
def backward(
    dy, x, residual, rows, cols, weight, bias, kind, mean, rstd, training, scratch, partials, constants,
    affine, dz, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    scratch: (tiles, 4, cols), constants: (4, cols) of hi, scale, c2, k, both in the dtype of x.
    partials: (cols, tiles, 2) in float64.
    """
    for c in range(cols):
        a, z = offset(pointer(constants), c), offset(pointer(affine), c)
        dot_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], a, z, cols)
    for k in prange(-(-rows // ROWS) * -(-cols // COLS)):
        _dots_piece(dy, x, residual, k, rows, cols, constants, affine, kind, scratch, partials)
    for c in prange(cols):
        a = offset(pointer(constants), c)
        finish_dots(
            pointer(x), c, rows, pointer(weight), pointer(mean), pointer(rstd), training,
            pointer(partials), partials.shape[1], pointer(dweight), pointer(dbias), a, cols,
        )  # fmt: skip
    block = 1 + PIECE // cols
    for b in prange(-(-rows // block)):
        for i in range(b * block, min((b + 1) * block, rows)):
            k = i * cols
            dy_row, x_row, own = offset(pointer(dy), k), offset(pointer(x), k), offset(pointer(dz), b * cols)
            if kind is not None:
                residual_row = offset(pointer(residual), k)
                columns_slope(dy_row, x_row, cols, cols, pointer(affine), residual_row, kind, own)
            columns_gradient(
                first_of(own, dy_row), x_row, cols, cols, pointer(constants), training,
                offset(pointer(dx), k), offset(pointer(dresidual), k), stream,
            )  # fmt: skip
        if stream:
            fence()
