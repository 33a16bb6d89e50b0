"""Kernels over an array seen as rows of columns, with statistics per channel: batch norm of (N, C), of
channels-last arrays, and of images of few pixels, such as 7 x 7.

A row has `fold` * channels * `inner` elements, its columns: `fold` samples side by side where the channels
alone would make a row too short, or one sample with `inner` elements of each channel. Every column has sums
and constants of its own; a channel has those of its columns together. Elements beyond the last whole row,
which only folded samples leave, are a row of their own.

The kernels share out tiles of rows, and go through memory in its order: an array larger than the cache is
read twice. `backward` forms dz, the gradient before the activation, in both passes: memory to keep it in
costs more than the slopes.

Arguments are as in `channels`, with constants of every column, and sums: (tiles, 3 or 2, columns), in the
dtype of the arithmetic.
"""

from .channel_constants import Given, Statistics, View, finish_statistics, state_of
from .channel_primitives import Backward, Forward, Rows, affine_rows, write_gradient, write_slope
from .column_channels import (
    Sums,
    channel_moments,
    dots_of_columns,
    finish_columns,
    finish_dots,
    normalize_columns,
    prepare_dots,
    sum_columns,
    take_output,
)
from .fusion import first_of, tile_on_stack, where_given
from .jit import kernel, primitive
from .parallel import share
from .pointers import fence, offset
from .tuning import COLS, FINISHED, PIECE


@primitive
def _blocks_of_columns(view):
    """Blocks of columns whose sums are formed together."""
    return -(-view.width // COLS)


@primitive
def _sums_piece(k, x, view, sums):
    """Sums of COLS columns of one tile."""
    blocks = _blocks_of_columns(view)
    sum_columns(k // blocks, k % blocks * COLS, COLS, x, view, sums)


@primitive
def _parts(view):
    """Pieces of work that finish FINISHED channels each."""
    return -(-view.channels // FINISHED)


@primitive
def _part(b, view):
    """The channels that piece b finishes."""
    return b * FINISHED, min((b + 1) * FINISHED, view.channels)


@primitive
def _statistics_piece(b, x, view, sums, statistics):
    start, end = _part(b, view)
    mean, var, rstd = offset(statistics, start)
    m2 = tile_on_stack(mean)
    channel_moments(x, view, start, end - start, sums, mean, m2)
    finish_statistics(x, view, start, end - start, 0.0, True, Statistics(mean, var, rstd, m2))


@kernel
def moments(team, x, view, sums, statistics):
    """statistics: mean, population variance and its 1/sqrt of every channel."""
    view, sums = View(*view), Sums(sums, view[1], len(sums))
    share(team, sums.tiles * _blocks_of_columns(view), _sums_piece, x, view, sums)
    share(team, _parts(view), _statistics_piece, x, view, sums, statistics)


@primitive
def _finish_piece(b, x, view, state, sums, constants):
    start, end = _part(b, view)
    finish_columns(x, view, start, end, state, sums, constants)


@primitive
def _rows_of_piece(view):
    """Elements of the rows that make one piece of work."""
    return (1 + PIECE // view.width) * view.width


@primitive
def _row_pieces(view):
    """Pieces of work of some rows each."""
    return -(-view.size // _rows_of_piece(view))


@primitive
def _normalize_piece(b, a, view, constants):
    size = _rows_of_piece(view)
    normalize_columns(0, view.width, b * size, min((b + 1) * size, view.size), a, view, constants)
    if a.stream:
        fence()


@kernel
def forward(team, arrays, view, parameters, sums, constants):
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    a, view, sums = Forward(*arrays), View(*view), Sums(sums, view[1], len(sums))
    state, constants = state_of(*parameters), Rows(constants, view.width)
    share(team, sums.tiles * _blocks_of_columns(view), _sums_piece, a.x, view, sums)
    share(team, _parts(view), _finish_piece, a.x, view, state, sums, constants)
    share(team, _row_pieces(view), _normalize_piece, a, view, constants)


@primitive
def _take_piece(b, view, state, constants):
    start, end = _part(b, view)
    take_output(view, start, end, state, constants)


@kernel
def normalize(team, arrays, view, parameters, constants):
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`.

    Where they are None, with the mean and rstd that stand there.
    """
    a, view, constants = Forward(*arrays), View(*view), Rows(constants, view[1])
    share(team, _parts(view), _take_piece, view, state_of(*parameters), constants)
    share(team, _row_pieces(view), _normalize_piece, a, view, constants)


@primitive
def _prepare_piece(b, view, given, constants, kind):
    start, end = _part(b, view)
    prepare_dots(view, start, end, given, constants, kind)


@primitive
def _dots_piece(k, a, view, constants, sums):
    """The dots of COLS columns of one tile, whose rows leave dz in one place."""
    blocks, room = _blocks_of_columns(view), tile_on_stack(constants.first)
    first = k % blocks * COLS
    dz = where_given(Rows(offset(room, -first), 0), a.kind)
    dots_of_columns(k // blocks, first, COLS, a, view, constants, dz, sums)


@primitive
def _finish_dots_piece(b, view, given, sums, constants):
    start, end = _part(b, view)
    finish_dots(view, start, end, given, sums, constants)


@primitive
def _gradient_piece(b, a, view, training, constants):
    size, dz = _rows_of_piece(view), where_given(tile_on_stack(constants.first), a.kind)
    for row in range(b * size, min((b + 1) * size, view.size), view.width):
        width = min(view.width, view.size - row)
        for first in range(0, width, COLS):
            n, here, own = min(COLS, width - first), offset(a, row + first), offset(constants, first)
            write_slope(here, n, affine_rows(own, a.kind), dz)
            write_gradient(first_of(dz, here.dy), here, n, own, training)
    if a.stream:
        fence()


@kernel
def backward(team, arrays, view, parameters, sums, constants):
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation."""
    a, view, sums = Backward(*arrays), View(*view), Sums(sums, view[1], len(sums))
    given, constants = Given(*parameters), Rows(constants, view.width)
    share(team, _parts(view), _prepare_piece, view, given, constants, a.kind)
    share(team, sums.tiles * _blocks_of_columns(view), _dots_piece, a, view, constants, sums)
    share(team, _parts(view), _finish_dots_piece, view, given, sums, constants)
    share(team, _row_pieces(view), _gradient_piece, a, view, given.training, constants)
