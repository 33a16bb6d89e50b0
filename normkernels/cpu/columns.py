"""Kernels over an array seen as rows of columns, with statistics per channel: batch norm of (N, C), of
channels-last arrays, and of images of few pixels, such as 7 x 7.

A row has `fold` * channels * `inner` elements, its columns: `fold` samples side by side where the channels
alone would make a row too short, or one sample with `inner` elements of each channel. Every column has sums
and constants of its own; a channel has those of its columns together. Elements beyond the last whole row,
which only folded samples leave, are a row of their own.

The kernels share out tiles of rows, and go through memory in its order: an array larger than the cache is
read twice.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In the backward `affine` has the constants of the output, as rows over the columns. `backward` forms
dz, the gradient before the activation, in both passes: memory to keep it in costs more than the slopes.
state: as for `finish_moments`. constants: (4, columns) in the dtype of the arithmetic.
"""

from .column_channels import (
    Part,
    bounds_of_tile,
    channel_constants,
    channel_statistics,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
    take_statistics,
    view_of,
)
from .column_primitives import columns_gradient, columns_normalize, columns_slope, tile_sums
from .fusion import first_of, tile_on_stack
from .jit import kernel, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import reciprocal_sd
from .tuning import COLS, FINISHED, PIECE


@primitive
def _sums_piece(k, x, view, sums, good):
    """Sums of COLS columns of one tile; sums: (tiles, 3, width), good: (tiles, blocks of columns)."""
    width = view.width
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, view.size, width)
    n, good[t, k % blocks] = min(COLS, columns - first), True
    if n > 0:
        tile, own = offset(pointer(x), row * width + first), offset(pointer(sums), 3 * t * width + first)
        good[t, k % blocks] = tile_sums(tile, rows, width, n, own, width)


@primitive
def _part(b, channels, width):
    """The channels that piece b finishes, of an array whose constants have `width` columns."""
    return Part(b * FINISHED, min((b + 1) * FINISHED, channels), 0, width)


@primitive
def _statistics_piece(b, x, view, sums, good, mean, var, rstd):
    part = _part(b, view.channels, view.width)
    first = offset(pointer(mean), part.start)
    channel_statistics(
        pointer(x), view, part, pointer(sums), good, 0.0, first, offset(pointer(var), part.start),
        offset(pointer(rstd), part.start), tile_on_stack(first),
    )  # fmt: skip


@kernel
def moments(team, x, size, fold, channels, sums, good, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every channel.

    sums: (tiles, 3, columns) in the dtype of the arithmetic. good: (tiles, blocks of columns).
    """
    view = view_of(size, fold, channels, 1)
    share(team, len(sums) * -(-view.width // COLS), _sums_piece, x, view, sums, good)
    share(team, -(-channels // FINISHED), _statistics_piece, x, view, sums, good, mean, var, rstd)


@primitive
def _finish_moments_piece(b, x, view, sums, good, weight, bias, state, constants):
    part = _part(b, view.channels, view.width)
    finish_columns(pointer(x), view, part, pointer(sums), good, weight, bias, state, pointer(constants))


@primitive
def _normalize_piece(b, x, residual, view, constants, kind, y, stream):
    size, width = view.size, view.width
    rows = 1 + PIECE // width
    for k in range(b * rows * width, min((b + 1) * rows * width, size), width):
        x_row, residual_row = offset(pointer(x), k), offset(pointer(residual), k)
        columns_normalize(
            x_row, min(width, size - k), width, pointer(constants), residual_row, kind, offset(pointer(y), k),
            stream,
        )  # fmt: skip
    if stream:
        fence()


@primitive
def _row_pieces(view):
    """Pieces of work of some rows each."""
    return -(-view.size // (view.width * (1 + PIECE // view.width)))


@kernel
def forward(
    team, x, residual, size, fold, channels, weight, bias, state, sums, good, constants, kind,
    y, stream
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x.

    sums, good: as for `moments`.
    """
    view = view_of(size, fold, channels, 1)
    share(team, len(sums) * -(-view.width // COLS), _sums_piece, x, view, sums, good)
    blocks = -(-channels // FINISHED)
    share(team, blocks, _finish_moments_piece, x, view, sums, good, weight, bias, state, constants)
    share(team, _row_pieces(view), _normalize_piece, x, residual, view, constants, kind, y, stream)


@kernel
def reciprocal(var, eps, rstd):
    for c in range(len(var)):
        rstd[c] = reciprocal_sd(var[c], eps)


@primitive
def _constants_piece(b, x, view, running_mean, running_var, eps, statistics, weight, bias, constants):
    part = _part(b, view.channels, view.width)
    take_statistics(part.start, part.end, running_mean, running_var, eps, statistics)
    mean = offset(pointer(statistics), part.start)
    channel_constants(
        pointer(x), view, part, mean, offset(mean, view.channels), offset(pointer(weight), part.start),
        offset(pointer(bias), part.start), pointer(constants),
    )  # fmt: skip


@kernel
def normalize(
    team, x, residual, size, fold, channels, inner, running_mean, running_var, eps, statistics, weight, bias,
    constants, kind, y, stream,
):  # fmt: skip
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`; with these if None."""
    view = view_of(size, fold, channels, inner)
    share(
        team, -(-channels // FINISHED), _constants_piece, x, view, running_mean, running_var, eps, statistics,
        weight, bias, constants,
    )  # fmt: skip
    share(team, _row_pieces(view), _normalize_piece, x, residual, view, constants, kind, y, stream)


@primitive
def _prepare_piece(b, x, view, weight, bias, kind, mean, rstd, constants, affine):
    part = _part(b, view.channels, view.width)
    prepare_dots(pointer(x), view, part, weight, bias, kind, mean, rstd, pointer(constants), pointer(affine))


@primitive
def _dots_piece(k, dy, x, residual, view, constants, affine, kind, sums):
    """The dots of COLS columns of one tile; sums: (tiles, 2, width)."""
    width = view.width
    blocks = -(-width // COLS)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, view.size, width)
    n, i = min(COLS, columns - first), row * width + first
    z = offset(pointer(affine), first)
    if n > 0:
        dots_of_tile(
            offset(pointer(dy), i), offset(pointer(x), i), offset(pointer(residual), i), rows, width, n,
            offset(pointer(constants), first), z, width, kind, tile_on_stack(z), 0,
            offset(pointer(sums), 2 * t * width + first),
        )  # fmt: skip


@primitive
def _finish_piece(b, x, view, weight, mean, rstd, training, sums, dweight, dbias, constants):
    part = _part(b, view.channels, view.width)
    finish_dots_of_columns(
        pointer(x), view, part, weight, mean, rstd, training, sums, dweight, dbias, pointer(constants)
    )


@primitive
def _gradient_piece(
    b, dy, x, residual, view, kind, training, constants, affine, dx, dresidual, stream
):  # fmt: skip
    size, width = view.size, view.width
    rows = 1 + PIECE // width
    dz = tile_on_stack(pointer(affine))
    for row in range(b * rows * width, min((b + 1) * rows * width, size), width):
        for first in range(0, min(width, size - row), COLS):
            k, n = row + first, min(COLS, width - first, size - row - first)
            if kind is not None:
                columns_slope(
                    offset(pointer(dy), k), offset(pointer(x), k), n, width, offset(pointer(affine), first),
                    offset(pointer(residual), k), kind, dz,
                )  # fmt: skip
            columns_gradient(
                first_of(dz, offset(pointer(dy), k)), offset(pointer(x), k), n, width,
                offset(pointer(constants), first), training, offset(pointer(dx), k),
                offset(pointer(dresidual), k), stream,
            )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, residual, size, fold, channels, weight, bias, kind, mean, rstd, training, sums, constants,
    affine, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    sums: (tiles, 2, columns) in the dtype of the arithmetic.
    """
    view, blocks = view_of(size, fold, channels, 1), -(-channels // FINISHED)
    share(team, blocks, _prepare_piece, x, view, weight, bias, kind, mean, rstd, constants, affine)
    pieces = len(sums) * -(-view.width // COLS)
    share(team, pieces, _dots_piece, dy, x, residual, view, constants, affine, kind, sums)
    share(team, blocks, _finish_piece, x, view, weight, mean, rstd, training, sums, dweight, dbias, constants)
    share(
        team, _row_pieces(view), _gradient_piece, dy, x, residual, view, kind, training, constants, affine,
        dx, dresidual, stream,
    )  # fmt: skip
