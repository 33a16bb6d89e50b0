"""Kernels over an array seen as rows of columns, with statistics per channel: batch norm of (N, C), of
channels-last arrays, and of images of few pixels, such as 7 x 7.

A row has `fold` * channels * `inner` elements, its columns: `fold` samples side by side where the channels
alone would make a row too short, or one sample with `inner` elements of each channel. Every column has sums
and constants of its own; a channel has those of its columns together. Elements beyond the last whole row,
which only folded samples leave, are a row of their own.

`forward` and `backward` share out tiles of rows, and go through memory in its order: an array larger than the
cache is read twice. Both passes of `backward` form dz, the gradient before the activation: memory to keep it
in costs more than the slopes.

`forward_blocks` and `backward_blocks` share out blocks of neighbouring channels, which are read from memory
once, if they stay in the cache between statistics and output. A block changes no bits.

Arguments are as in `channels`, with constants of every column, and sums: (tiles, 3 or 2, columns), in the
dtype of the arithmetic.
"""

from .channel_constants import View, finish_low, finish_statistics, given_of, state_of
from .channel_primitives import (
    Backward,
    Forward,
    Rows,
    affine_rows,
    room_for_constants,
    write_gradient,
    write_slope,
)
from .column_channels import (
    Sums,
    channel_moments,
    dots_of_columns,
    finish_columns,
    finish_dots_of_columns,
    normalize_columns,
    part,
    parts,
    prepare_columns,
    room_for_sums,
    row_tiles,
    sum_columns,
    take_columns,
)
from .fusion import first_of, tile_on_stack, where_given
from .jit import kernel, primitive
from .parallel import share
from .pointers import dtype_of, fence, offset, pointer
from .tuning import COLS, PIECE


@primitive
def _tile_pieces(sums):
    """Pieces of work of COLS columns of one tile."""
    return sums.tiles * -(-sums.pitch // COLS)


@primitive
def _rows_of_piece(view):
    """Elements of the rows of which COLS columns make one piece of work."""
    return (1 + PIECE // min(view.width, COLS)) * view.width


@primitive
def _row_pieces(view):
    """Pieces of work of COLS columns of some rows."""
    return -(-view.size // _rows_of_piece(view)) * -(-view.width // COLS)


@primitive
def _piece(p, view):
    """First column of piece p, its columns, and from which element to which its rows go.

    COLS columns at a time, because the constants of more leave L1 from row to row: evaluation of 7 x 7 takes
    up to 1.2 times as long.
    """
    blocks, size = -(-view.width // COLS), _rows_of_piece(view)
    first, begin = p % blocks * COLS, p // blocks * size
    return first, min(COLS, view.width - first), begin, min(begin + size, view.size)


@primitive
def _statistics_piece(b, x, view, sums, statistics):
    (start, n), m2 = part(b, 0, view.channels, view), tile_on_stack(statistics[0])
    mean, var, rstd, low = offset(statistics, start)
    channel_moments(x, view, start, n, sums, mean, low, m2)
    finish_statistics(x, view, start, n, 0.0, True, (mean, var, rstd, m2))
    finish_low(n, rstd, low)


@kernel
def moments(team, x, view, sums, statistics):
    """statistics: mean, population variance, its 1/sqrt, and what the mean lost, of every channel."""
    view, sums = View(*view), Sums(sums, view[1], len(sums))
    share(team, _tile_pieces(sums), sum_columns, COLS, x, view, sums)
    share(team, parts(view, view.channels), _statistics_piece, x, view, sums, statistics)


@primitive
def _normalize_piece(p, a, view, constants):
    first, n, begin, end = _piece(p, view)
    normalize_columns(first, n, begin, end, a, view, constants)
    if a.stream:
        fence()


@kernel
def forward(team, arrays, view, parameters):
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    sums = room_for_sums(row_tiles(view.size, view.width), 3, view.width, dtype_of(state.weight))
    constants, channels = room_for_constants(view.width, state.weight, None), view.channels
    share(team, _tile_pieces(sums), sum_columns, COLS, a.x, view, sums)
    share(team, parts(view, channels), finish_columns, 0, channels, a.x, view, state, sums, constants)
    share(team, _row_pieces(view), _normalize_piece, a, view, constants)


@kernel
def normalize(team, arrays, view, parameters):
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`.

    Where they are None, with the mean and rstd that stand there.
    """
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    constants = room_for_constants(view.width, state.weight, None)
    share(team, parts(view, view.channels), take_columns, view, state, constants)
    share(team, _row_pieces(view), _normalize_piece, a, view, constants)


@primitive
def _forward_block(b, block, a, view, state, sums, constants):
    """Statistics and output of one block. It takes arrays, because numba frees one after its last use."""
    start, n = b * block, constants.pitch
    first, channels, blocks = start * view.inner, n // view.inner, -(-view.channels // block)
    sums, constants = offset(pointer(sums), -first), offset(pointer(constants), -first)
    for t in range(sums.tiles):
        sum_columns(t * blocks + b, block * view.inner, a.x, view, sums)
    for p in range(parts(view, channels)):
        finish_columns(p, start, start + channels, a.x, view, state, sums, constants)
    normalize_columns(first, n, 0, view.size, a, view, constants)


@primitive
def _forward_piece(b, a, view, block, state):
    n, tiles = min(block, view.channels - b * block) * view.inner, row_tiles(view.size, view.width)
    sums = room_for_sums(tiles, 3, n, dtype_of(state.weight))
    _forward_block(b, block, a, view, state, sums, room_for_constants(n, state.weight, None))
    if a.stream:
        fence()


@kernel
def forward_blocks(team, arrays, view, block, parameters):
    """As `forward`; a block of channels is one piece of work."""
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    share(team, -(-view.channels // block), _forward_piece, a, view, block, state)


@primitive
def _dots_piece(k, a, view, constants, sums):
    """The dots of COLS columns of one tile, whose rows leave dz in one place."""
    room, first = tile_on_stack(constants.first), k % -(-view.width // COLS) * COLS
    dz = where_given(Rows(offset(room, -first), 0), a.kind)
    dots_of_columns(k, COLS, a, view, constants, dz, sums)


@primitive
def _gradient_piece(p, a, view, training, constants):
    first, n, begin, end = _piece(p, view)
    own, dz = offset(constants, first), where_given(tile_on_stack(constants.first), a.kind)
    for k in range(begin + first, end, view.width):
        here, m = offset(a, k), min(n, view.size - k)
        write_slope(here, m, affine_rows(own, a.kind), dz)
        write_gradient(first_of(dz, here.dy), here, m, own, training)
    if a.stream:
        fence()


@kernel
def backward(team, arrays, view, parameters):
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation."""
    a, view, given = Backward(*arrays), View(*view), given_of(*parameters)
    sums = room_for_sums(row_tiles(view.size, view.width), 2, view.width, dtype_of(given.weight))
    constants, channels = room_for_constants(view.width, given.weight, a.kind), view.channels
    share(team, parts(view, channels), prepare_columns, 0, channels, view, given, constants, a.kind)
    share(team, _tile_pieces(sums), _dots_piece, a, view, constants, sums)
    share(team, parts(view, channels), finish_dots_of_columns, 0, channels, view, given, sums, constants)
    share(team, _row_pieces(view), _gradient_piece, a, view, given.training, constants)


@primitive
def _backward_block(b, block, a, view, given, dz, sums, constants):
    """Sums and gradient of one block; arrays as in `_forward_block`."""
    start, n = b * block, constants.pitch
    first, channels, blocks = start * view.inner, n // view.inner, -(-view.channels // block)
    sums, constants = offset(pointer(sums), -first), offset(pointer(constants), -first)
    rows = where_given(Rows(offset(dz, -first), n), dz)
    for p in range(parts(view, channels)):
        prepare_columns(p, start, start + channels, view, given, constants, a.kind)
    for t in range(sums.tiles):
        dots_of_columns(t * blocks + b, block * view.inner, a, view, constants, rows, sums)
    for p in range(parts(view, channels)):
        finish_dots_of_columns(p, start, start + channels, view, given, sums, constants)
    for i in range(view.size // view.width):
        here, own = offset(a, i * view.width + first), offset(constants, first)
        write_gradient(first_of(offset(dz, i * n), here.dy), here, n, own, given.training)


@primitive
def _backward_piece(w, a, view, blocks, given, dz):
    (block, workers), tiles = blocks, row_tiles(view.size, view.width)
    count, own = -(-view.channels // block), offset(dz, w * block * (view.size // view.channels))
    for b in range(w * count // workers, (w + 1) * count // workers):
        n = min(block, view.channels - b * block) * view.inner
        sums = room_for_sums(tiles, 2, n, dtype_of(given.weight))
        _backward_block(b, block, a, view, given, own, sums, room_for_constants(n, given.weight, a.kind))
    if a.stream:
        fence()


@kernel
def backward_blocks(team, arrays, view, blocks, parameters, dz):
    """As `backward`; dz: with an activation, room for a block for each of the workers."""
    a, view, given = Backward(*arrays), View(*view), given_of(*parameters)
    share(team, blocks[1], _backward_piece, a, view, blocks, given, dz)
