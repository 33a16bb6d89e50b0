"""Kernels over an array seen as (outer, channels, inner) with long runs: statistics per channel.

A channel is a group of `outer` runs. `forward` and `backward` take a block of neighbouring channels
at a time, which is read from memory once and from the cache the second time; the block size changes
no bits. Where there are too few channels to share out, `forward_tiles` and `backward_tiles` share
out the tiles of all channels, and read the array twice.

arrays: the fields of Forward or Backward; view: those of View; parameters: the arguments of `state_of` or the
fields of Given. Constants are rows over channels in the dtype of the arithmetic, partials, 4 or 2 numbers of
every tile and channel, in float64. blocks: channels of a block, and among how many
workers the blocks are shared out.
"""

import numpy as np

from .channel_constants import (
    View,
    finish_dots,
    finish_low,
    finish_output,
    finish_statistics,
    given_of,
    prepare_dots,
    state_of,
    take_statistics,
    write_output_constants,
)
from .channel_primitives import (
    Backward,
    Forward,
    Rows,
    affine_at,
    constants_at,
    normalize_run,
    room_for_constants,
    run_dots,
    write_gradient,
)
from .column_channels import room_for_sums
from .column_primitives import add_moments, taken
from .fusion import first_of, tile_on_stack
from .jit import kernel, primitive
from .parallel import share
from .pointers import as_element, fence, offset, pointer
from .primitives import add, corrected, pivot_of, run_sums, tile_bounds, tile_count, zero
from .tuning import FINISHED, PIECE


@primitive
def _partials(numbers, view):
    """Room for numbers of every channel of every tile."""
    tiles = tile_count(view.size // view.width, view.inner)
    return room_for_sums(tiles, numbers, view.channels, np.float64)


@primitive
def _block(b, size, view):
    """The channels start..end of block b."""
    return b * size, min((b + 1) * size, view.channels)


@primitive
def _tile_moments(k, block, x, view, partials):
    """count, pivot, mean - pivot and m2 of one tile of a block of channels: piece k, block after block.

    Run after run as they lie in memory: from memory a core reads runs of 3 KB that lie far apart at half
    the speed of a stream (measured).
    """
    channels, inner, width = view.channels, view.inner, view.width
    (start, end), t = _block(k // partials.tiles, block, view), k % partials.tiles
    run, runs, first, n = tile_bounds(t, view.size // width, inner)
    x, count = offset(x, run * width + first), offset(partials.first, 4 * t * channels)
    pivot, s, q = offset(count, channels), offset(count, 2 * channels), offset(count, 3 * channels)
    for c in range(start, end):
        s[c] = q[c] = 0.0
        pivot[c] = np.float64(pivot_of(offset(x, c * inner), n))
    for g in range(runs):
        for c in range(start, end):
            run_s, run_q = run_sums(offset(x, g * width + c * inner), n, as_element(x, pivot[c]))
            s[c] += np.float64(run_s)
            q[c] += np.float64(run_q)
    for c in range(start, end):
        own = offset(x, c * inner)
        count[c], pivot[c], s[c], q[c] = corrected(own, runs, width, n, as_element(x, pivot[c]), s[c], q[c])


@primitive
def _merge(start, n, partials, mean, low, m2):
    """mean, what it lost by rounding, and m2 of the n channels from `start`; low may be None."""
    moments = offset(partials.first, start)
    for t in range(1, partials.tiles):
        add_moments(n, moments, offset(moments, 4 * t * partials.pitch), partials.pitch)
    taken(n, moments, partials.pitch, mean, low, m2)


@primitive
def _statistics_piece(b, x, view, partials, statistics):
    (start, end), m2 = _block(b, FINISHED, view), tile_on_stack(statistics[0])
    n, (mean, var, rstd, low) = end - start, offset(statistics, start)
    _merge(start, n, partials, mean, low, m2)
    finish_statistics(x, view, start, n, 0.0, True, (mean, var, rstd, m2))
    finish_low(n, rstd, low)


@kernel
def moments(team, x, view, statistics):
    """statistics: mean, population variance, its 1/sqrt, and what the mean lost, of every channel."""
    view = View(*view)
    partials = _partials(4, view)
    share(team, view.channels * partials.tiles, _tile_moments, 1, x, view, partials)
    share(team, -(-view.channels // FINISHED), _statistics_piece, x, view, partials, statistics)


@primitive
def _finish_moments(start, end, x, view, state, partials, constants):
    """Statistics, and constants of the output, of the channels start..end."""
    for c in range(start, end, FINISHED):
        n, own, m2 = min(FINISHED, end - c), offset(state, c), tile_on_stack(state.mean)
        _merge(c, n, partials, own.mean, None, m2)
        finish_output(x, view, c, n, own, m2, offset(constants, c))


@primitive
def _finish_all_moments(_, x, view, state, partials, constants):
    """The one piece of work that finishes all channels: `share` keeps the arrays alive meanwhile."""
    _finish_moments(0, view.channels, x, view, state, partials, constants)


@primitive
def _normalize(k, end, a, view, constants):
    """y of the elements k..end, run after run."""
    c, n = k // view.inner % view.channels, view.inner - k % view.inner
    while k < end:
        n, here = min(n, end - k), offset(a, k)
        own = constants_at(constants, c)
        normalize_run(here.x, n, own, here.residual, here.kind, here.y, here.stream)
        k, c, n = k + n, c + 1 if c + 1 < view.channels else 0, view.inner


@primitive
def _normalize_piece(p, a, view, constants):
    _normalize(p * PIECE, min((p + 1) * PIECE, view.size), a, view, constants)
    if a.stream:
        fence()


@kernel
def normalize(team, arrays, view, parameters):
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`.

    Where they are None, with the mean and rstd that stand there.
    """
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    constants = room_for_constants(view.channels, state.weight, None)
    take_statistics(state.running_mean, view.channels, state)
    write_output_constants(view.channels, state, pointer(constants))
    share(team, -(-view.size // PIECE), _normalize_piece, a, view, constants)


@primitive
def _forward_piece(b, a, view, block, state, partials, constants):
    start, end = _block(b, block, view)
    for t in range(partials.tiles):
        _tile_moments(b * partials.tiles + t, block, a.x, view, partials)
    _finish_moments(start, end, a.x, view, state, partials, constants)
    for k in range(0, view.size, view.width):
        _normalize(k + start * view.inner, k + end * view.inner, a, view, constants)
    if a.stream:
        fence()


@kernel
def forward(team, arrays, view, block, parameters):
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    partials, constants = _partials(4, view), room_for_constants(view.channels, state.weight, None)
    share(team, -(-view.channels // block), _forward_piece, a, view, block, state, partials, constants)


@kernel
def forward_tiles(team, arrays, view, parameters):
    """As `forward`; a tile is one piece of work."""
    a, view, state = Forward(*arrays), View(*view), state_of(*parameters)
    partials, constants = _partials(4, view), room_for_constants(view.channels, state.weight, None)
    share(team, view.channels * partials.tiles, _tile_moments, 1, a.x, view, partials)
    share(team, 1, _finish_all_moments, a.x, view, state, partials, constants)
    share(team, -(-view.size // PIECE), _normalize_piece, a, view, constants)


@primitive
def _tile_dots(k, block, a, view, constants, dz, partials):
    """Sums of dy * (x - hi) * r and of dy of one tile of a block of channels, as of `_tile_moments`.

    With an activation dz, a row for each of `outer`, receives the gradient before it.
    """
    (start, end), t = _block(k // partials.tiles, block, view), k % partials.tiles
    run, runs, first, n = tile_bounds(t, view.size // view.width, view.inner)
    dots = offset(partials.first, 2 * t * partials.pitch)
    sums, hi, r = offset(dots, partials.pitch), constants.first, offset(constants.first, constants.pitch)
    for c in range(start, end):
        dots[c] = sums[c] = 0.0
    for g in range(run, run + runs):
        for c in range(start, end):
            j = c * view.inner + first
            here, affine = offset(a, g * view.width + j), affine_at(constants, c, a.kind)
            dot, s = run_dots(
                here.dy, here.x, n, (hi[c], r[c]), affine, here.residual, here.kind,
                offset(dz.first, g * dz.pitch + j),
            )  # fmt: skip
            dots[c] += dot
            sums[c] += s


@primitive
def _finish_dots(start, end, view, given, partials, constants):
    """The sums, and the constants of the gradient, of the channels start..end."""
    own, n = offset(given, start), end - start
    zero(own.dot, n)
    zero(own.s, n)
    for t in range(partials.tiles):
        dot = offset(partials.first, 2 * t * partials.pitch + start)
        add(own.dot, dot, n)
        add(own.s, offset(dot, partials.pitch), n)
    finish_dots(n, view, own, offset(constants, start))


@primitive
def _finish_all_dots(_, view, given, partials, constants):
    """As `_finish_all_moments`."""
    _finish_dots(0, view.channels, view, given, partials, constants)


@primitive
def _gradient(k, end, a, view, training, constants, dz):
    """dx and dresidual of the elements k..end, run after run; dz: as x."""
    c, n = k // view.inner % view.channels, view.inner - k % view.inner
    while k < end:
        n, here = min(n, end - k), offset(a, k)
        own = first_of(offset(dz, k), here.dy)
        write_gradient(own, here, n, constants_at(constants, c), training)
        k, c, n = k + n, c + 1 if c + 1 < view.channels else 0, view.inner


@primitive
def _gradient_piece(p, a, view, training, constants, dz):
    _gradient(p * PIECE, min((p + 1) * PIECE, view.size), a, view, training, constants, dz)
    if a.stream:
        fence()


@primitive
def _backward_piece(w, a, view, blocks, given, constants, dz, partials):
    (block, workers), inner = blocks, view.inner
    count, own = -(-view.channels // block), offset(dz, w * block * (view.size // view.channels))
    for b in range(w * count // workers, (w + 1) * count // workers):
        start, end = _block(b, block, view)
        room = Rows(offset(own, -start * inner), (end - start) * inner)
        prepare_dots(end - start, offset(given, start), offset(constants, start), a.kind)
        for t in range(partials.tiles):
            _tile_dots(b * partials.tiles + t, block, a, view, constants, room, partials)
        _finish_dots(start, end, view, given, partials, constants)
        for g in range(view.size // view.width):
            k, z = g * view.width, offset(room.first, g * (room.pitch - view.width))
            _gradient(k + start * inner, k + end * inner, a, view, given.training, constants, z)
    if a.stream:
        fence()


@kernel
def backward(team, arrays, view, blocks, parameters, dz):
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    dz: with an activation, room for a block for each of the workers.
    """
    a, view, given = Backward(*arrays), View(*view), given_of(*parameters)
    partials, constants = _partials(2, view), room_for_constants(view.channels, given.weight, a.kind)
    share(team, blocks[1], _backward_piece, a, view, blocks, given, constants, dz, partials)


@kernel
def backward_tiles(team, arrays, view, parameters, dz):
    """As `backward`; a tile is one piece of work, and dz is as large as x."""
    a, view, given = Backward(*arrays), View(*view), given_of(*parameters)
    partials, constants = _partials(2, view), room_for_constants(view.channels, given.weight, a.kind)
    channels, rows = view.channels, Rows(dz, view.width)
    prepare_dots(channels, pointer(given), pointer(constants), a.kind)
    share(team, channels * partials.tiles, _tile_dots, 1, a, view, constants, rows, partials)
    share(team, 1, _finish_all_dots, view, given, partials, constants)
    share(team, -(-view.size // PIECE), _gradient_piece, a, view, given.training, constants, dz)
