"""Kernels over an array seen as (outer, cols, inner): statistics over cols at every position, a place in
outer and inner; weight and bias per element of cols. Layer norm and RMS norm over the channels of NCHW.

A piece of work is a tile of positions of one sample, `tile` neighbours in memory, with all their cols: small
enough to stay in the cache, so that memory sees x once. Every loop runs along the positions of a tile, and
each of these has sums and constants of its own. While the output of a piece is written, the next one is
fetched into the cache: 7 to 15 % faster (one thread, 96 to 768 channels; Sapphire Rapids, also as Haswell).

What is fused, what `centred` means, and the tuples that kernels take, are as in `rows`, but for `norm`, which
is that of `Positions`. x + residual, and the gradient before the activation, of one piece are kept in `h` and
`dz`, (workers, cols * tile). The pieces are shared out among `workers`.
"""

from typing import NamedTuple

import numpy as np

from .channel_constants import finish_statistics, view_of
from .channel_primitives import gradient_constants
from .column_primitives import add_moments, moments_of_tile, taken, tile_sums
from .fusion import add_residual, copy_run, first_of, plus, tile_on_stack
from .jit import inlined, kernel, loop, primitive
from .loops import each, sums
from .parallel import share
from .pointers import dtype_of, fence, offset, pointer
from .primitives import centring, flush, zero
from .row_primitives import (
    Affine,
    AffineSums,
    Forward,
    Row,
    Statistics,
    add_up,
    gradient_of,
    output_of,
    row_at,
    x_hat_of,
)
from .tracing import step
from .tuning import ROWS_SUMMED, TILE
from .vectors import fma

CONSTANTS = 5
# Rows of the room for moments: those of positions, those of more of their cols; mean, rstd and var.
MOMENTS = 11
_M2, _NEW, _MEAN, _RSTD, _VAR = 3, 4, 8, 9, 10


class Positions(NamedTuple):
    """What is known of positions, and how they are shared out.

    block: pieces whose sums are formed together; gather: whether outputs of rows that follow on one another
    are put together, and written in whole cache lines.
    """

    pieces: int
    cols: int
    inner: int
    tile: int
    block: int
    workers: int
    centred: bool
    gather: bool


class Piece(NamedTuple):
    """A tile of positions: first element, first position, how many; first element of the next piece."""

    first: int
    position: int
    n: int
    following: int


class Constants(NamedTuple):
    """Of each position: x_hat = (x - hi) * rstd + lo and dx = ((x - hi) * k + wdy - c2) * rstd."""

    hi: object
    rstd: object
    lo: object
    k: object
    c2: object


class Dots(NamedTuple):
    """Of each position the sums of wdy and of x_hat * wdy."""

    wdy: object
    x_hat_wdy: object


class Room(NamedTuple):
    """What a worker needs for a piece: arrays of rows of `tile` numbers.

    sums: of few cols, in the dtype of the arithmetic, as the constants; wide: in float64, moments or the dots
    of all cols.
    """

    sums: object
    wide: object
    constants: object


@primitive
def _room(sums, wide, tile, like):
    """Room for so many rows of sums and of wide ones; like: a pointer to numbers of the arithmetic."""
    dtype = dtype_of(like)
    return Room(np.empty((sums, tile), dtype), np.empty((wide, tile)), np.empty((CONSTANTS, tile), dtype))


@primitive
def _place(p, norm):
    """First element and first position of piece p."""
    tiles = -(-norm.inner // norm.tile)
    outer, i = p // tiles * norm.inner, p % tiles * norm.tile
    return outer * norm.cols + i, outer + i


@primitive
def _piece(p, end, norm):
    """Piece p of a worker whose pieces end before `end`."""
    first, position = _place(p, norm)
    n = min(norm.tile, norm.inner - position % norm.inner)
    return Piece(first, position, n, _place(min(p + 1, end - 1), norm)[0])


@primitive
def _constants(rows, tile):
    """Constants in rows of `tile` numbers."""
    return Constants(
        rows, offset(rows, tile), offset(rows, 2 * tile), offset(rows, 3 * tile), offset(rows, 4 * tile)
    )


@step
def _about_zero(i, mean, m2, cols):
    m2[i] = m2[i] + mean[i] * mean[i] * cols
    mean[i] = 0.0


@primitive
def _statistics(x, pitch, n, norm, eps, statistics, room):
    """mean and rstd of n positions, of which a row of cols lies `pitch` from the next."""
    width, moments, own = norm.tile, pointer(room.wide), pointer(room.sums)
    new, m2, var = offset(moments, _NEW * width), offset(moments, _M2 * width), offset(moments, _VAR * width)
    mean, rstd = statistics
    for t in range(0, norm.cols, ROWS_SUMMED):
        rows, tile = min(ROWS_SUMMED, norm.cols - t), offset(x, t * pitch)
        tile_sums(tile, rows, pitch, n, own, width)
        moments_of_tile(tile, rows, pitch, n, own, width, moments if t == 0 else new, width)
        if t > 0:
            add_moments(n, moments, new, width)
    taken(n, moments, width, mean, None, m2)
    if not norm.centred:
        each(n, None, _about_zero, mean, m2, np.float64(norm.cols))
    view = view_of(norm.cols * pitch, 1, pitch, 1)
    finish_statistics(x, view, 0, n, eps, norm.centred, (mean, var, rstd, m2))


@step
def _centre(i, hi, constants, x, statistics):
    hi[i], constants.lo[i], constants.rstd[i] = centring(x, statistics.mean[i], statistics.rstd[i], 1.0)


def _centre_at(i, constants):
    return constants.hi[i], constants.lo[i], constants.rstd[i]


@step
def _normalize(i, y, x, constants, affine, ahead):
    ahead.prefetch(i, 2)
    y[i] = output_of(x_hat_of(x[i], _centre_at(i, constants)), affine)


@inlined
def _affine_at(affine, c):
    """What follows row c: numbers."""
    return Affine(affine.weight[c], affine.bias[c], affine.kind)


@primitive
def _gathering(n, gather):
    """Rows of n elements that are written together."""
    return max(1, TILE // n) if gather else 1


@primitive
def _forward_piece(piece, arrays, affine, norm, eps, statistics, room):
    n, cols, inner, pitch = piece.n, norm.cols, norm.inner, norm.inner
    constants, own = _constants(pointer(room.constants), norm.tile), offset(arrays, piece.first)
    if arrays.residual is not None:
        pitch = n
        for c in range(cols):
            row, h = offset(own, c * inner), offset(arrays.h, c * n)
            add_residual(row.x, row.residual, n, h, row.total, row.stream)
    h = first_of(arrays.h, own.x)
    _statistics(h, pitch, n, norm, eps, statistics, room)
    each(n, None, _centre, constants.hi, constants, h, statistics)
    together, gathered = _gathering(n, norm.gather), tile_on_stack(arrays.y)
    for start in range(0, cols, together):
        end, y = min(start + together, cols), offset(own.y, start * inner)
        to = gathered if norm.gather else y
        for c in range(start, end):
            each(
                n, arrays.stream and not norm.gather, _normalize, offset(to, (c - start) * inner),
                offset(h, c * pitch), constants, _affine_at(affine, c),
                offset(arrays.x, piece.following + c * inner),
            )  # fmt: skip
        if norm.gather:
            copy_run(gathered, (end - start) * n, y, True)


@loop
def forward(w, arrays, affine, norm, eps, kept, statistics):
    """y = act((x + residual - mean) * rstd * weight + bias).

    statistics: mean and rstd of the `kept` positions, which are all or none, in float64.
    """
    (x, residual, h, total, y, stream), affine, norm = arrays, Affine(*affine), Positions(*norm)
    tile = norm.tile
    arrays = Forward(x, residual, offset(h, w * norm.cols * tile), total, y, stream)
    room, end = _room(3, MOMENTS, tile, affine.weight), (w + 1) * norm.pieces // norm.workers
    moments = pointer(room.wide)
    for p in range(w * norm.pieces // norm.workers, end):
        piece = _piece(p, end, norm)
        found = Statistics(offset(moments, _MEAN * tile), offset(moments, _RSTD * tile))
        if kept > 0:
            found = Statistics(offset(statistics, piece.position), offset(statistics, kept + piece.position))
        _forward_piece(piece, arrays, affine, norm, eps, found, room)
    if arrays.stream:
        fence()


@step
def _add_dots(i, totals, x, rows, constants, dots):
    """Of each row and its affine the sums of x_hat * dy and of dy; of each position those of its dots."""
    centre, new = _centre_at(i, constants), ()
    wdy_sum, x_hat_wdy_sum = dots.wdy[i], dots.x_hat_wdy[i]
    for k, (row, affine) in enumerate(rows):
        x_hat, d = gradient_of(i, row, centre, affine)
        wdy = d * affine.weight
        wdy_sum, x_hat_wdy_sum = wdy_sum + wdy, fma(x_hat, wdy, x_hat_wdy_sum)
        new = *new, fma(x_hat, d, totals[2 * k]), totals[2 * k + 1] + d
    dots.wdy[i], dots.x_hat_wdy[i] = wdy_sum, x_hat_wdy_sum
    return new


@step
def _finish(i, k, c2, x, statistics, dots, part, part_of_mean):
    c1, mean_of_wdy = dots.x_hat_wdy[i] * part, dots.wdy[i] * part_of_mean
    mean, rstd = statistics.mean[i], statistics.rstd[i]
    _, _, c2[i], k[i] = gradient_constants(x, mean, rstd, 1.0, c1, mean_of_wdy)


@step
def _gradient(i, dx, row, constants, weight, dy_ahead, x_ahead):
    dy_ahead.prefetch(i, 2)
    x_ahead.prefetch(i, 2)
    dy, x = row.dy if row.dz is None else row.dz, row.x[i] - constants.hi[i]
    d = fma(x, constants.k[i], fma(dy[i], weight, -constants.c2[i]))
    dx[i] = plus(d * constants.rstd[i], row.dsum, i)


@inlined
def _row(c, piece, arrays, affine, norm):
    """Row c of a piece and its affine."""
    dz = offset(arrays.dz, c * norm.tile)
    return row_at(arrays, piece.first + c * norm.inner, dz), _affine_at(affine, c)


@primitive
def _dots_of_piece(piece, arrays, affine, norm, constants, room, partials):
    """The dots of every position, in float64; partials: rows of dweight and dbias of cols, which grow."""
    tile, cols, short, long = norm.tile, norm.cols, pointer(room.sums), pointer(room.wide)
    dots = Dots(short, offset(short, tile))
    zero(short, 2 * tile)
    zero(long, 2 * tile)
    for t in range(0, cols, ROWS_SUMMED):
        end = min(t + ROWS_SUMMED, cols)
        for c in range(t, end - 1, 2):
            one, other = _row(c, piece, arrays, affine, norm), _row(c + 1, piece, arrays, affine, norm)
            pair = sums(4, piece.n, _add_dots, arrays.x, (one, other), constants, dots)
            for k in range(2):
                partials[c + k] += np.float64(pair[2 * k])
                partials[cols + c + k] += np.float64(pair[2 * k + 1])
        for c in range(end - (end - t) % 2, end):
            one = _row(c, piece, arrays, affine, norm)
            alone = sums(2, piece.n, _add_dots, arrays.x, (one,), constants, dots)
            partials[c] += np.float64(alone[0])
            partials[cols + c] += np.float64(alone[1])
        flush(short, long, 2 * tile)
    return Dots(long, offset(long, tile))


@primitive
def _backward_piece(piece, arrays, affine, norm, statistics, room, partials):
    n, cols, inner = piece.n, norm.cols, norm.inner
    constants, statistics = _constants(pointer(room.constants), norm.tile), offset(statistics, piece.position)
    each(n, None, _centre, constants.hi, constants, arrays.x, statistics)
    dots = _dots_of_piece(piece, arrays, affine, norm, constants, room, partials)
    part, part_of_mean = 1.0 / cols, 1.0 / cols if norm.centred else 0.0
    each(n, None, _finish, constants.k, constants.c2, arrays.x, statistics, dots, part, part_of_mean)
    together, gathered = _gathering(n, norm.gather), tile_on_stack(arrays.dx)
    for start in range(0, cols, together):
        end, dx = min(start + together, cols), offset(arrays.dx, piece.first + start * inner)
        to = gathered if norm.gather else dx
        for c in range(start, end):
            row, own = _row(c, piece, arrays, affine, norm)
            ahead = offset(arrays, piece.following + c * inner)
            each(
                n, arrays.stream and not norm.gather, _gradient, offset(to, (c - start) * inner), row,
                constants, own.weight, ahead.dy, ahead.x,
            )  # fmt: skip
        if norm.gather:
            copy_run(gathered, (end - start) * n, dx, True)


@primitive
def _backward_worker(w, arrays, affine, norm, statistics, partials, blocks):
    cols, room = norm.cols, _room(2, 2, norm.tile, affine.weight)
    arrays = row_at(arrays, 0, offset(arrays.dz, w * cols * norm.tile))
    for b in range(w * blocks // norm.workers, (w + 1) * blocks // norm.workers):
        own = offset(partials, b * 2 * cols)
        zero(own, 2 * cols)
        for p in range(b * norm.block, min((b + 1) * norm.block, norm.pieces)):
            piece = _piece(p, norm.pieces, norm)
            _backward_piece(piece, arrays, affine, norm, statistics, room, own)
    if arrays.stream:
        fence()


@kernel
def backward(team, arrays, affine, norm, statistics):
    """dx + dsum, and dweight and dbias, the sums of dy * x_hat and of dy of every element of cols.

    These are sums of those of blocks, in float64.
    """
    arrays, statistics = Row(*arrays), Statistics(*statistics)
    affine, norm = AffineSums(*affine), Positions(*norm)
    blocks = -(-norm.pieces // norm.block)
    partials = np.empty((blocks, 2, norm.cols))
    share(team, norm.workers, _backward_worker, arrays, affine, norm, statistics, partials, blocks)
    add_up(partials, affine.dweight, affine.dbias)
