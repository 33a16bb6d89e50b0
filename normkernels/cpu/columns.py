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
sums: (tiles, 3 or 2, columns), constants: (4, columns), in the dtype of the arithmetic; good: (tiles, blocks
of columns). settings, statistics: as for `state_of`; running statistics may be None.
"""

from .channel_constants import state_of, take_statistics, view_of
from .column_channels import (
    Part,
    bounds_of_tile,
    channel_constants,
    channel_statistics,
    dots_of_tile,
    finish_columns,
    finish_dots_of_columns,
    prepare_dots,
)
from .column_primitives import columns_gradient, columns_normalize, columns_slope, tile_sums
from .fusion import first_of, tile_on_stack
from .jit import kernel, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import reciprocal_sd
from .tuning import COLS, FINISHED, PIECE


@primitive
def _blocks_of_columns(view):
    """Blocks of columns whose sums are formed together."""
    return -(-view.width // COLS)


@primitive
def _sums_piece(k, x, view, sums, good):
    """Sums of COLS columns of one tile."""
    width, blocks = view.width, _blocks_of_columns(view)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, view.size, width)
    n, good[k] = min(COLS, columns - first), True
    if n > 0:
        tile, own = offset(x, row * width + first), offset(sums, 3 * t * width + first)
        good[k] = tile_sums(tile, rows, width, n, own, width)


@primitive
def _part(b, view):
    """The channels that piece b finishes."""
    return Part(b * FINISHED, min((b + 1) * FINISHED, view.channels), 0, view.width)


@primitive
def _statistics_piece(b, x, view, sums, good, mean, var, rstd):
    part = _part(b, view)
    mean, var, rstd = offset(mean, part.start), offset(var, part.start), offset(rstd, part.start)
    channel_statistics(
        x, view, part, sums, good, _blocks_of_columns(view), 0.0, mean, var, rstd, tile_on_stack(mean)
    )


@kernel
def moments(team, x, size, fold, channels, sums, good, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every channel."""
    view = view_of(size, fold, channels, 1)
    share(team, len(sums) * _blocks_of_columns(view), _sums_piece, x, view, sums, good)
    share(team, -(-channels // FINISHED), _statistics_piece, x, view, sums, good, mean, var, rstd)


@primitive
def _finish_moments_piece(
    b, x, view, sums, good, weight, bias, state, running_mean, running_var, constants
):  # fmt: skip
    finish_columns(
        x, view, _part(b, view), sums, good, _blocks_of_columns(view), weight, bias, state, running_mean,
        running_var, constants,
    )  # fmt: skip


@primitive
def _normalize_piece(b, x, residual, view, constants, kind, y, stream):
    size, width = view.size, view.width
    rows = 1 + PIECE // width
    for k in range(b * rows * width, min((b + 1) * rows * width, size), width):
        columns_normalize(
            offset(x, k), min(width, size - k), width, constants, offset(residual, k), kind, offset(y, k),
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
    team, x, residual, size, fold, channels, weight, bias, settings, statistics, running_mean, running_var,
    sums, good, constants, kind, y, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    view, state = view_of(size, fold, channels, 1), state_of(settings, statistics)
    share(team, len(sums) * _blocks_of_columns(view), _sums_piece, x, view, sums, good)
    share(
        team, -(-channels // FINISHED), _finish_moments_piece, x, view, sums, good, weight, bias, state,
        running_mean, running_var, constants,
    )  # fmt: skip
    share(team, _row_pieces(view), _normalize_piece, x, residual, view, constants, kind, y, stream)


@kernel
def reciprocal(var, eps, rstd):
    for c in range(len(var)):
        rstd[c] = reciprocal_sd(var[c], eps)


@primitive
def _constants_piece(b, x, view, mean, rstd, running_mean, running_var, eps, weight, bias, constants):
    part = _part(b, view)
    mean, rstd = offset(mean, part.start), offset(rstd, part.start)
    take_statistics(part.start, part.end - part.start, running_mean, running_var, eps, mean, rstd)
    channel_constants(
        x, view, part, mean, rstd, offset(weight, part.start), offset(bias, part.start), constants
    )


@kernel
def normalize(
    team, x, residual, size, fold, channels, inner, weight, bias, settings, statistics, running_mean,
    running_var, constants, kind, y, stream,
):  # fmt: skip
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`.

    Where they are None, with the mean and rstd that stand there.
    """
    view, mean = view_of(size, fold, channels, inner), pointer(statistics)
    share(
        team, -(-channels // FINISHED), _constants_piece, x, view, mean, offset(mean, channels), running_mean,
        running_var, settings[0], weight, bias, constants,
    )  # fmt: skip
    share(team, _row_pieces(view), _normalize_piece, x, residual, view, constants, kind, y, stream)


@primitive
def _prepare_piece(b, x, view, weight, bias, kind, mean, rstd, constants, affine):
    prepare_dots(x, view, _part(b, view), weight, bias, kind, mean, rstd, constants, affine)


@primitive
def _dots_piece(k, dy, x, residual, view, constants, affine, kind, sums):
    """The dots of COLS columns of one tile."""
    width, blocks = view.width, _blocks_of_columns(view)
    t, first = k // blocks, k % blocks * COLS
    row, rows, columns = bounds_of_tile(t, view.size, width)
    n, i, z = min(COLS, columns - first), row * width + first, offset(affine, first)
    if n > 0:
        dots_of_tile(
            offset(dy, i), offset(x, i), offset(residual, i), rows, width, n, offset(constants, first), z,
            width, kind, tile_on_stack(z), 0, offset(sums, 2 * t * width + first),
        )  # fmt: skip


@primitive
def _finish_piece(
    b, x, view, weight, mean, rstd, training, sums, tiles, dweight, dbias, constants
):  # fmt: skip
    finish_dots_of_columns(
        x, view, _part(b, view), weight, mean, rstd, training, sums, tiles, dweight, dbias, constants
    )


@primitive
def _gradient_piece(
    b, dy, x, residual, view, kind, training, constants, affine, dx, dresidual, stream
):  # fmt: skip
    size, width, dz = view.size, view.width, tile_on_stack(affine)
    rows = 1 + PIECE // width
    for row in range(b * rows * width, min((b + 1) * rows * width, size), width):
        for first in range(0, min(width, size - row), COLS):
            k, n = row + first, min(COLS, width - first, size - row - first)
            if kind is not None:
                columns_slope(
                    offset(dy, k), offset(x, k), n, width, offset(affine, first), offset(residual, k), kind,
                    dz,
                )  # fmt: skip
            columns_gradient(
                first_of(dz, offset(dy, k)), offset(x, k), n, width, offset(constants, first), training,
                offset(dx, k), offset(dresidual, k), stream,
            )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, residual, size, fold, channels, weight, bias, kind, mean, rstd, training, sums, constants,
    affine, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation."""
    view, blocks, tiles = view_of(size, fold, channels, 1), -(-channels // FINISHED), len(sums)
    share(team, blocks, _prepare_piece, x, view, weight, bias, kind, mean, rstd, constants, affine)
    pieces = tiles * _blocks_of_columns(view)
    share(team, pieces, _dots_piece, dy, x, residual, view, constants, affine, kind, sums)
    share(
        team, blocks, _finish_piece, x, view, weight, mean, rstd, training, sums, tiles, dweight, dbias,
        constants,
    )  # fmt: skip
    share(
        team, _row_pieces(view), _gradient_piece, dy, x, residual, view, kind, training, constants, affine,
        dx, dresidual, stream,
    )  # fmt: skip
