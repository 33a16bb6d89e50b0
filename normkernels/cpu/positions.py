"""Kernels over an array seen as (outer, cols, inner): statistics over cols at every position, a place in
outer and inner; weight and bias per element of cols. Layer norm and RMS norm over the channels of NCHW.

A piece of work is a tile of positions of one sample, `tile` neighbours in memory, with all their cols: small
enough to stay in the cache, so that memory sees x once. Every loop runs along the positions of a tile, and
each of these has sums and constants of its own. While the output of a piece is written, the next one is
fetched into the cache: 7 to 15 % faster (one thread, 96 to 768 channels; Sapphire Rapids, also as Haswell).

What is fused, and what `centred` means, is as in `rows`. x + residual, and the gradient before the
activation, of one piece are kept in `scratch`, (workers, cols * tile). The pieces are shared out among
`workers`. constants: rows of `tile` numbers in the dtype of the arithmetic. gather: whether outputs of rows
that follow on one another are put together, and written past the caches in whole lines.
"""

import numpy as np

from .activations import slope
from .channel_constants import finish_statistics, view_of
from .channel_primitives import gradient_constants
from .column_primitives import add_moments, moments_of_tile, taken, tile_sums
from .fusion import activated, add_residual, copy_run, first_of, plus, tile_on_stack
from .jit import kernel, loop, primitive
from .loops import each, sums
from .parallel import share
from .pointers import dtype_of, fence, offset, pointer
from .primitives import add, centring, flush, zero
from .tracing import step
from .tuning import ROWS_SUMMED, TILE
from .vectors import fma

# Rows of the room for statistics: moments of positions, those of more of their cols; mean, rstd and var.
ROOM = 11
_NEW, _MEAN, _VAR = 4, 8, 10
# Rows of the constants, of x_hat = (x - hi) * rstd + lo and of dx = ((x - hi) * k + wdy - c2) * rstd.
CONSTANTS = 5
_HI, _RSTD, _LO, _K, _C2 = range(CONSTANTS)


@step
def _about_zero(i, mean, m2, cols):
    m2[i] = m2[i] + mean[i] * mean[i] * cols
    mean[i] = 0.0


@primitive
def _statistics(x, cols, pitch, n, eps, centred, own, room, width, mean, rstd):
    """mean and rstd of n positions, of which a row of cols lies `pitch` from the next.

    own: 3 rows for sums, `width` apart, as in room.
    """
    new, m2, var = offset(room, _NEW * width), offset(room, 3 * width), offset(room, _VAR * width)
    for t in range(0, cols, ROWS_SUMMED):
        rows, tile = min(ROWS_SUMMED, cols - t), offset(x, t * pitch)
        tile_sums(tile, rows, pitch, n, own, width)
        moments_of_tile(tile, rows, pitch, n, own, width, room if t == 0 else new, width)
        if t > 0:
            add_moments(n, room, new, width)
    taken(n, room, width, mean, m2)
    if not centred:
        each(n, None, _about_zero, mean, m2, np.float64(cols))
    finish_statistics(x, view_of(cols * pitch, 1, pitch, 1), 0, n, eps, centred, (mean, var, rstd, m2))


@step
def _centre(i, hi, rstd, lo, x, mean, r):
    hi[i], lo[i], rstd[i] = centring(x, mean[i], r[i], 1.0)


@primitive
def _centre_of_positions(x, n, mean, rstd, constants, width):
    """hi, rstd and lo of n positions, as of `centring`."""
    r, lo = offset(constants, _RSTD * width), offset(constants, _LO * width)
    each(n, None, _centre, constants, r, lo, x, mean, rstd)


def _x_hat(i, x, constants, width):
    return fma(x[i] - constants[i], constants[i + _RSTD * width], constants[i + _LO * width])


@step
def _normalize(i, y, x, constants, width, weight, bias, kind, ahead):
    ahead.prefetch(i, 2)
    y[i] = activated(fma(_x_hat(i, x, constants, width), weight, bias), kind)


@primitive
def _bounds(p, cols, inner, tile):
    """Of piece p: its first element, its first position, and how many positions it has."""
    tiles = -(-inner // tile)
    first = p % tiles * tile
    outer = p // tiles * inner
    return outer * cols + first, outer + first, min(tile, inner - first)


@primitive
def _gathering(n, gather):
    """Rows of n elements that are written together."""
    return max(1, TILE // n) if gather else 1


@primitive
def _forward_piece(
    p, q, x, residual, cols, inner, tile, weight, bias, kind, centred, eps, own, total, y, kept, statistics,
    stream, gather, sums, constants, room,
):  # fmt: skip
    first, position, n = _bounds(p, cols, inner, tile)
    following, a, pitch = _bounds(q, cols, inner, tile)[0], pointer(constants), inner
    mean = offset(pointer(room), _MEAN * tile)
    rstd = offset(mean, tile)
    if kept > 0:
        mean = offset(statistics, position)
        rstd = offset(mean, kept)
    if residual is not None:
        pitch = n
        for c in range(cols):
            k = first + c * inner
            add_residual(
                offset(x, k), offset(residual, k), n, offset(own, c * n),
                offset(total, k), stream,
            )  # fmt: skip
    h = first_of(own, offset(x, first))
    _statistics(h, cols, pitch, n, eps, centred, pointer(sums), pointer(room), tile, mean, rstd)
    _centre_of_positions(h, n, mean, rstd, a, tile)
    together, gathered = _gathering(n, gather), tile_on_stack(y)
    for start in range(0, cols, together):
        y_rows, end = offset(y, first + start * inner), min(start + together, cols)
        to = gathered if gather else y_rows
        for c in range(start, end):
            each(
                n, stream and not gather, _normalize, offset(to, (c - start) * inner), offset(h, c * pitch),
                a, tile, weight[c], bias[c], kind, offset(x, following + c * inner),
            )  # fmt: skip
        if gather:
            copy_run(gathered, (end - start) * n, y_rows, True)


@loop
def forward(
    w, x, residual, pieces, cols, inner, tile, workers, weight, bias, kind, centred, eps, scratch, total, y,
    kept, statistics, stream, gather,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias).

    statistics: mean and rstd of the `kept` positions, which are all or none, in float64.
    """
    dtype = dtype_of(weight)
    sums, constants = np.empty((3, tile), dtype), np.empty((CONSTANTS, tile), dtype)
    room, own = np.empty((ROOM, tile)), offset(scratch, w * cols * tile)
    end = (w + 1) * pieces // workers
    for p in range(w * pieces // workers, end):
        _forward_piece(
            p, min(p + 1, end - 1), x, residual, cols, inner, tile, weight, bias, kind, centred, eps, own,
            total, y, kept, statistics, stream, gather, sums, constants, room,
        )  # fmt: skip
    if stream:
        fence()


def _dots(i, j, k, x, dy, constants, width, weight, bias, kind, dz):
    """x_hat, dy and wdy of the element at j, whose position is i; dz, where there is one, is at k."""
    hi, r, lo = (constants[i + row * width] for row in (_HI, _RSTD, _LO))
    x_hat, d = fma(x[j] - hi, r, lo), dy[j]
    if kind is not None:
        d = slope(fma(x_hat, weight, bias), d, kind)
        dz[k] = d
    return x_hat, d, d * weight


@step
def _add_dots(i, totals, x, dy, constants, width, weight, bias, kind, dz, s):
    """The sums of x_hat * dy and dy of a row; for each position, those of wdy and x_hat * wdy."""
    x_hat, d, wdy = _dots(i, i, i, x, dy, constants, width, weight, bias, kind, dz)
    s[i] = s[i] + wdy
    s[i + width] = fma(x_hat, wdy, s[i + width])
    return fma(x_hat, d, totals[0]), totals[1] + d


@step
def _add_dots_of_two(
    i, totals, x, dy, inner, constants, width, weight, weight_b, bias, bias_b, kind, dz, s
):  # fmt: skip
    """As `_add_dots` for two rows, `inner` elements apart, of which the second has the parameters b."""
    x_hat_a, d_a, wdy_a = _dots(i, i, i, x, dy, constants, width, weight, bias, kind, dz)
    x_hat_b, d_b, wdy_b = _dots(i, i + inner, i + width, x, dy, constants, width, weight_b, bias_b, kind, dz)
    s[i] = s[i] + wdy_a + wdy_b
    s[i + width] = fma(x_hat_b, wdy_b, fma(x_hat_a, wdy_a, s[i + width]))
    of_a = fma(x_hat_a, d_a, totals[0]), totals[1] + d_a
    return *of_a, fma(x_hat_b, d_b, totals[2]), totals[3] + d_b


@step
def _finish(i, k, c2, x, mean, rstd, s, dot, part, part_of_mean):
    _, _, c2[i], k[i] = gradient_constants(x, mean[i], rstd[i], 1.0, dot[i] * part, s[i] * part_of_mean)


@primitive
def _finish_dots(x, n, cols, centred, mean, rstd, dots, constants, width):
    """k and c2 of the gradient from the sums of wdy and of x_hat * wdy of n positions, rows of `dots`."""
    k, c2 = offset(constants, _K * width), offset(constants, _C2 * width)
    part, part_of_mean = 1.0 / cols, 1.0 / cols if centred else 0.0
    each(n, None, _finish, k, c2, x, mean, rstd, dots, offset(dots, width), part, part_of_mean)


@step
def _gradient(i, dx, dy, x, constants, width, weight, dsum, dy_ahead, x_ahead):
    dy_ahead.prefetch(i, 2)
    x_ahead.prefetch(i, 2)
    hi, r, k, c2 = (constants[i + row * width] for row in (_HI, _RSTD, _K, _C2))
    dx[i] = plus(fma(x[i] - hi, k, fma(dy[i], weight, -c2)) * r, dsum, i)


@primitive
def _backward_piece(
    p, q, dy, x, cols, inner, tile, weight, bias, kind, own, dsum, centred, mean, rstd, dx, partials,
    stream, gather, short, long, constants,
):  # fmt: skip
    first, position, n = _bounds(p, cols, inner, tile)
    following = _bounds(q, cols, inner, tile)[0]
    a, s, dots = pointer(constants), pointer(short), pointer(long)
    mean, rstd = offset(mean, position), offset(rstd, position)
    _centre_of_positions(x, n, mean, rstd, a, tile)
    zero(s, 2 * tile)
    zero(dots, 2 * tile)
    for t in range(0, cols, ROWS_SUMMED):
        end = min(t + ROWS_SUMMED, cols)
        for c in range(t, end - 1, 2):
            k = first + c * inner
            pair = sums(
                4, n, _add_dots_of_two, offset(x, k), offset(dy, k), inner, a, tile,
                weight[c], weight[c + 1], bias[c], bias[c + 1], kind, offset(own, c * tile), s,
            )  # fmt: skip
            partials[c] += np.float64(pair[0])
            partials[cols + c] += np.float64(pair[1])
            partials[c + 1] += np.float64(pair[2])
            partials[cols + c + 1] += np.float64(pair[3])
        for c in range(end - (end - t) % 2, end):
            k = first + c * inner
            row = sums(
                2, n, _add_dots, offset(x, k), offset(dy, k), a, tile, weight[c], bias[c],
                kind, offset(own, c * tile), s,
            )  # fmt: skip
            partials[c] += np.float64(row[0])
            partials[cols + c] += np.float64(row[1])
        flush(s, dots, 2 * tile)
    _finish_dots(x, n, cols, centred, mean, rstd, dots, a, tile)
    together, gathered = _gathering(n, gather), tile_on_stack(dx)
    for start in range(0, cols, together):
        dx_rows, end = offset(dx, first + start * inner), min(start + together, cols)
        to = gathered if gather else dx_rows
        for c in range(start, end):
            k, ahead = first + c * inner, following + c * inner
            each(
                n, stream and not gather, _gradient, offset(to, (c - start) * inner),
                first_of(offset(own, c * tile), offset(dy, k)), offset(x, k), a, tile,
                weight[c], offset(dsum, k), offset(dy, ahead), offset(x, ahead),
            )  # fmt: skip
        if gather:
            copy_run(gathered, (end - start) * n, dx_rows, True)


@primitive
def _backward_worker(
    w, dy, x, pieces, cols, inner, tile, block, workers, weight, bias, kind, scratch, dsum, centred, mean,
    rstd, dx, partials, blocks, stream, gather,
):  # fmt: skip
    dtype = dtype_of(weight)
    short, long = np.empty((2, tile), dtype), np.empty((2, tile))
    constants, own = np.empty((CONSTANTS, tile), dtype), offset(scratch, w * cols * tile)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        sums_of_block = offset(partials, b * 2 * cols)
        zero(sums_of_block, 2 * cols)
        for p in range(b * block, min((b + 1) * block, pieces)):
            _backward_piece(
                p, min(p + 1, pieces - 1), dy, x, cols, inner, tile, weight, bias, kind, own, dsum, centred,
                mean, rstd, dx, sums_of_block, stream, gather, short, long, constants,
            )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, pieces, cols, inner, tile, block, workers, weight, bias, kind, scratch, dsum, centred, mean,
    rstd, dx, partials, stream, gather,
):  # fmt: skip
    """dx + dsum, and the sums of dy * x_hat and of dy of every element of cols, in the first of partials.

    partials: (blocks, 2, cols) in float64, of `block` pieces each.
    """
    share(
        team, workers, _backward_worker, dy, x, pieces, cols, inner, tile, block, workers, weight, bias, kind,
        scratch, dsum, centred, mean, rstd, dx, partials, len(partials), stream, gather,
    )  # fmt: skip
    total = pointer(partials)
    for b in range(1, len(partials)):
        add(total, offset(total, b * 2 * cols), 2 * cols)
