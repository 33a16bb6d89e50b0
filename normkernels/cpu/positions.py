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

import math

import numpy as np

from .activations import slope
from .column_primitives import ROWS, add_moments, moments_of_tile, tile_sums
from .extremes import group_statistics, usual
from .fusion import activated, add_residual, copy_run, first_of, plus, tile_on_stack
from .jit import kernel, loop, primitive
from .loops import each, step, sums
from .parallel import share
from .pointers import as_element, fence, offset, pointer
from .primitives import TILE, as_scale, centre
from .row_primitives import add, flush, zero
from .vectors import fma

# Rows of the room for statistics: moments of positions, those of ROWS more of their cols; mean, rstd and var.
ROOM = 11
_NEW, _MEAN, _VAR = 4, 8, 10
# Rows of the constants, of x_hat = (x - hi) * rstd + lo and of dx = ((x - hi) * k + wdy - c2) * rstd.
CONSTANTS = 5
_HI, _RSTD, _LO, _K, _C2 = range(CONSTANTS)


@primitive
def _statistics(x, cols, pitch, n, eps, centred, own, room, width, mean, rstd):
    """mean and rstd of n positions, of which a row of cols lies `pitch` from the next.

    own: 3 rows for sums, `width` apart, as in room.
    """
    new, m2, var = offset(room, _NEW * width), offset(room, 3 * width), offset(room, _VAR * width)
    for t in range(0, cols, ROWS):
        rows, tile = min(ROWS, cols - t), offset(x, t * pitch)
        good = tile_sums(tile, rows, pitch, n, own, width)
        if t == 0:
            moments_of_tile(tile, rows, pitch, n, own, width, good, room, width)
        else:
            moments_of_tile(tile, rows, pitch, n, own, width, good, new, width)
            add_moments(n, room, new, width)
    for j in range(n):
        mean[j], var[j] = room[width + j] + room[2 * width + j], m2[j] / cols
    if not centred:
        for j in range(n):
            var[j] += mean[j] * mean[j]
            mean[j] = 0.0
    unusual = 0
    for j in range(n):
        v = var[j] + eps
        rstd[j] = 1.0 / math.sqrt(v) if v != 0.0 else 0.0
        unusual += not usual(rstd[j])
    if unusual > 0:
        for j in range(n):
            mean[j], var[j], rstd[j] = group_statistics(
                offset(x, j), cols, pitch, 1, eps, centred, mean[j], var[j]
            )


@primitive
def _centre(x, n, mean, rstd, constants, width):
    """hi, rstd and lo of n positions, as of `centring`, in loops that the compiler makes vectors of."""
    hi, r, lo = constants, offset(constants, _RSTD * width), offset(constants, _LO * width)
    for j in range(n):
        hi[j] = centre(x, mean[j], rstd[j])
    for j in range(n):
        r[j] = as_scale(x, rstd[j])
    for j in range(n):
        lo[j] = as_element(x, (np.float64(hi[j]) - mean[j]) * np.float64(r[j]))


def _x_hat(i, x, constants, width):
    return fma(x[i] - constants[i], constants[i + _RSTD * width], constants[i + _LO * width])


@step
def _normalize(i, y, x, constants, width, weight, bias, kind, ahead):
    ahead.prefetch(i)
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
    p, q, x, residual, cols, inner, tile, weight, bias, kind, centred, eps, own, total, y, statistics,
    stream, gather, sums, constants, room,
):  # fmt: skip
    first, position, n = _bounds(p, cols, inner, tile)
    following, a, pitch = _bounds(q, cols, inner, tile)[0], pointer(constants), inner
    mean = offset(pointer(room), _MEAN * tile)
    rstd = offset(mean, tile)
    if len(statistics) > 0:
        mean = offset(pointer(statistics), position)
        rstd = offset(mean, statistics.shape[1])
    if residual is not None:
        pitch = n
        for c in range(cols):
            k = first + c * inner
            add_residual(
                offset(pointer(x), k), offset(pointer(residual), k), n, offset(own, c * n),
                offset(pointer(total), k), stream,
            )  # fmt: skip
    h = first_of(own, offset(pointer(x), first))
    _statistics(h, cols, pitch, n, eps, centred, pointer(sums), pointer(room), tile, mean, rstd)
    _centre(h, n, mean, rstd, a, tile)
    together, gathered = _gathering(n, gather), tile_on_stack(pointer(y))
    for start in range(0, cols, together):
        y_rows, end = offset(pointer(y), first + start * inner), min(start + together, cols)
        to = gathered if gather else y_rows
        for c in range(start, end):
            each(
                n, stream and not gather, _normalize, offset(to, (c - start) * inner), offset(h, c * pitch),
                a, tile, weight[c], bias[c], kind, offset(pointer(x), following + c * inner),
            )  # fmt: skip
        if gather:
            copy_run(gathered, (end - start) * n, y_rows, True)


@loop
def forward(
    w, x, residual, pieces, cols, inner, tile, workers, weight, bias, kind, centred, eps, scratch, total, y,
    statistics, stream, gather,
):  # fmt: skip
    """y = act((x + residual - mean) * rstd * weight + bias).

    statistics: (0, positions), or mean and rstd to keep, (2, positions), in float64.
    """
    sums, constants = np.empty((3, tile), weight.dtype), np.empty((CONSTANTS, tile), weight.dtype)
    room, own = np.empty((ROOM, tile)), offset(pointer(scratch), w * cols * tile)
    end = (w + 1) * pieces // workers
    for p in range(w * pieces // workers, end):
        _forward_piece(
            p, min(p + 1, end - 1), x, residual, cols, inner, tile, weight, bias, kind, centred, eps, own,
            total, y, statistics, stream, gather, sums, constants, room,
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


@primitive
def _finish_dots(x, n, cols, centred, mean, rstd, dots, constants, width):
    """k and c2 of the gradient from the sums of wdy and of x_hat * wdy of n positions, rows of `dots`."""
    k, c2 = offset(constants, _K * width), offset(constants, _C2 * width)
    part, part_of_mean = 1.0 / cols, 1.0 / cols if centred else 0.0
    for j in range(n):
        k[j] = as_scale(x, rstd[j] * -(dots[width + j] * part))
    for j in range(n):
        lo = as_element(x, (np.float64(constants[j]) - mean[j]) * np.float64(k[j]))
        c2[j] = as_element(x, dots[j] * part_of_mean - lo)


@step
def _gradient(i, dx, dy, x, constants, width, weight, dsum, dy_ahead, x_ahead):
    dy_ahead.prefetch(i)
    x_ahead.prefetch(i)
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
    mean, rstd = offset(pointer(mean), position), offset(pointer(rstd), position)
    _centre(pointer(x), n, mean, rstd, a, tile)
    zero(s, 2 * tile)
    zero(dots, 2 * tile)
    for t in range(0, cols, ROWS):
        end = min(t + ROWS, cols)
        for c in range(t, end - 1, 2):
            k = first + c * inner
            pair = sums(
                4, n, _add_dots_of_two, offset(pointer(x), k), offset(pointer(dy), k), inner, a, tile,
                weight[c], weight[c + 1], bias[c], bias[c + 1], kind, offset(own, c * tile), s,
            )  # fmt: skip
            partials[c] += np.float64(pair[0])
            partials[cols + c] += np.float64(pair[1])
            partials[c + 1] += np.float64(pair[2])
            partials[cols + c + 1] += np.float64(pair[3])
        for c in range(end - (end - t) % 2, end):
            k = first + c * inner
            row = sums(
                2, n, _add_dots, offset(pointer(x), k), offset(pointer(dy), k), a, tile, weight[c], bias[c],
                kind, offset(own, c * tile), s,
            )  # fmt: skip
            partials[c] += np.float64(row[0])
            partials[cols + c] += np.float64(row[1])
        flush(s, dots, 2 * tile)
    _finish_dots(pointer(x), n, cols, centred, mean, rstd, dots, a, tile)
    together, gathered = _gathering(n, gather), tile_on_stack(pointer(dx))
    for start in range(0, cols, together):
        dx_rows, end = offset(pointer(dx), first + start * inner), min(start + together, cols)
        to = gathered if gather else dx_rows
        for c in range(start, end):
            k, ahead = first + c * inner, following + c * inner
            each(
                n, stream and not gather, _gradient, offset(to, (c - start) * inner),
                first_of(offset(own, c * tile), offset(pointer(dy), k)), offset(pointer(x), k), a, tile,
                weight[c], offset(pointer(dsum), k), offset(pointer(dy), ahead), offset(pointer(x), ahead),
            )  # fmt: skip
        if gather:
            copy_run(gathered, (end - start) * n, dx_rows, True)


@primitive
def _backward_worker(
    w, dy, x, pieces, cols, inner, tile, block, workers, weight, bias, kind, scratch, dsum, centred, mean,
    rstd, dx, partials, stream, gather,
):  # fmt: skip
    short, long = np.empty((2, tile), weight.dtype), np.empty((2, tile))
    constants, own = np.empty((CONSTANTS, tile), weight.dtype), offset(pointer(scratch), w * cols * tile)
    blocks = len(partials)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        sums_of_block = offset(pointer(partials), b * 2 * cols)
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
        scratch, dsum, centred, mean, rstd, dx, partials, stream, gather,
    )  # fmt: skip
    for b in range(1, len(partials)):
        add(pointer(partials), offset(pointer(partials), b * 2 * cols), 2 * cols)
