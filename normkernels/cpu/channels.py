"""Kernels over an array seen as (outer, channels, inner) with long runs: statistics per channel.

A channel is a group of `outer` runs. `forward` and `backward` take a block of neighbouring channels
at a time, which is read from memory once and from the cache the second time; the block size changes
no bits. Where there are too few channels to share out, `forward_tiles` and `backward_tiles` share
out the tiles of all channels, and read the array twice.

In all of them constants: (4, channels) in the dtype of the arithmetic; partials: (tiles, 4 or 2, channels) in
float64; settings, statistics: as for `state_of`; running statistics may be None.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In their backward `affine` has the room of `constants`, and dz, which lies between the two passes, is
kept in `dz` and copied to `dresidual`.
"""

from .channel_constants import (
    finish_statistics,
    rows_of_dot_constants,
    rows_of_gradient_constants,
    rows_of_output_constants,
    state_of,
    take_statistics,
    view_of,
    with_running,
)
from .channel_primitives import (
    affine_at,
    block_dots,
    block_moments,
    gradient_constants_at,
    normalize_run,
    output_constants_at,
    run_gradient,
    tile_dots,
)
from .column_primitives import add_moments, taken
from .fusion import copy_run, first_of, tile_on_stack
from .jit import kernel, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import add, tile_bounds, tile_count, tile_moments, zero
from .tuning import FINISHED, PIECE


@primitive
def _tile(k, outer, view):
    """Channel and tile of one piece of work, where it begins, its runs and their elements."""
    tiles = tile_count(outer, view.inner)
    c, t = k // tiles, k % tiles
    run, runs, first, n = tile_bounds(t, outer, view.inner)
    return c, t, (run * view.channels + c) * view.inner + first, runs, n


@primitive
def _moments_piece(k, x, outer, view, partials):
    c, t, start, runs, n = _tile(k, outer, view)
    own, pitch = offset(partials, 4 * t * view.channels + c), view.channels
    own[0], own[pitch], own[2 * pitch], own[3 * pitch] = tile_moments(offset(x, start), runs, view.width, n)


@primitive
def _merge(start, n, channels, tiles, partials, mean, m2):
    """mean and m2 of the n channels from `start`."""
    moments = offset(partials, start)
    for t in range(1, tiles):
        add_moments(n, moments, offset(moments, 4 * t * channels), channels)
    taken(n, moments, channels, mean, m2)


@primitive
def _statistics_piece(b, x, view, tiles, partials, mean, var, rstd):
    start = b * FINISHED
    n, mean, m2 = min(FINISHED, view.channels - start), offset(mean, start), tile_on_stack(mean)
    _merge(start, n, view.channels, tiles, partials, mean, m2)
    finish_statistics(x, view, start, n, 0.0, True, mean, offset(var, start), offset(rstd, start), m2)


@kernel
def moments(team, x, outer, channels, inner, partials, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every channel."""
    view, tiles = view_of(outer * channels * inner, 1, channels, inner), len(partials)
    share(team, channels * tiles, _moments_piece, x, outer, view, partials)
    share(team, -(-channels // FINISHED), _statistics_piece, x, view, tiles, partials, mean, var, rstd)


@primitive
def _finish_moments(
    x, view, start, end, tiles, partials, weight, bias, state, running_mean, running_var, constants
):  # fmt: skip
    """Statistics, and constants of the output, of the channels start..end."""
    for first in range(start, end, FINISHED):
        n, mean, rstd = min(FINISHED, end - first), offset(state.mean, first), offset(state.rstd, first)
        m2 = tile_on_stack(mean)
        var, w, b = offset(m2, n), offset(m2, 2 * n), offset(m2, 3 * n)
        _merge(first, n, view.channels, tiles, partials, mean, m2)
        finish_statistics(x, view, first, n, state.eps, True, mean, var, rstd, m2)
        for c in range(n):
            w[c], b[c] = weight[first + c], bias[first + c]
        count = view.size // view.channels
        with_running(first, n, count, state, running_mean, running_var, var, m2, w, b)
        own = offset(constants, first)
        rows_of_output_constants(x, n, mean, rstd, w, b, own, view.channels)


@primitive
def _normalize_piece(p, x, residual, view, constants, kind, y, stream):
    k, end = p * PIECE, min((p + 1) * PIECE, view.size)
    while k < end:
        run = k // view.inner
        n = min((run + 1) * view.inner, end) - k
        a = output_constants_at(constants, run % view.channels, view.channels)
        normalize_run(offset(x, k), n, a, offset(residual, k), kind, offset(y, k), stream)
        k += n
    if stream:
        fence()


@kernel
def normalize(
    team, x, residual, outer, channels, inner, weight, bias, settings, statistics, running_mean, running_var,
    constants, kind, y, stream,
):  # fmt: skip
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`.

    Where they are None, with the mean and rstd that stand there.
    """
    view, mean = view_of(outer * channels * inner, 1, channels, inner), pointer(statistics)
    rstd = offset(mean, channels)
    take_statistics(0, channels, pointer(running_mean), pointer(running_var), settings[0], mean, rstd)
    rows_of_output_constants(
        pointer(x), channels, mean, rstd, pointer(weight), pointer(bias), pointer(constants), channels
    )
    share(team, -(-view.size // PIECE), _normalize_piece, x, residual, view, constants, kind, y, stream)


@primitive
def _forward_piece(
    b, x, residual, outer, view, block, weight, bias, state, running_mean, running_var, constants, partials,
    kind, y, stream,
):  # fmt: skip
    start, end, inner = b * block, min((b + 1) * block, view.channels), view.inner
    tiles = tile_count(outer, inner)
    for t in range(tiles):
        block_moments(x, t, start, end, outer, view.channels, inner, constants, partials)
    _finish_moments(
        x, view, start, end, tiles, partials, weight, bias, state, running_mean, running_var, constants
    )
    for g in range(outer):
        for c in range(start, end):
            k, a = (g * view.channels + c) * inner, output_constants_at(constants, c, view.channels)
            normalize_run(offset(x, k), inner, a, offset(residual, k), kind, offset(y, k), stream)
    if stream:
        fence()


@kernel
def forward(
    team, x, residual, outer, channels, inner, block, weight, bias, settings, statistics, running_mean,
    running_var, constants, partials, kind, y, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    view, state = view_of(outer * channels * inner, 1, channels, inner), state_of(settings, statistics)
    share(
        team, -(-channels // block), _forward_piece, x, residual, outer, view, block, weight, bias, state,
        running_mean, running_var, constants, partials, kind, y, stream,
    )  # fmt: skip


@kernel
def forward_tiles(
    team, x, residual, outer, channels, inner, weight, bias, settings, statistics, running_mean, running_var,
    constants, partials, kind, y, stream,
):  # fmt: skip
    """As `forward`; a tile is one piece of work."""
    view, tiles = view_of(outer * channels * inner, 1, channels, inner), len(partials)
    share(team, channels * tiles, _moments_piece, x, outer, view, partials)
    _finish_moments(
        pointer(x), view, 0, channels, tiles, pointer(partials), pointer(weight), pointer(bias),
        state_of(settings, statistics), pointer(running_mean), pointer(running_var), pointer(constants),
    )  # fmt: skip
    share(team, -(-view.size // PIECE), _normalize_piece, x, residual, view, constants, kind, y, stream)


@primitive
def _prepare_dots(x, start, n, channels, weight, bias, kind, mean, rstd, constants, affine):
    """hi and r, for the dots, of n channels; with an activation the constants of their output."""
    mean, rstd = offset(mean, start), offset(rstd, start)
    rows_of_dot_constants(x, n, mean, rstd, offset(constants, start), channels)
    if kind is not None:
        rows_of_output_constants(
            x, n, mean, rstd, offset(weight, start), offset(bias, start), offset(affine, start), channels
        )


@primitive
def _finish_dots(
    x, view, start, n, tiles, partials, weight, mean, rstd, training, dweight, dbias, constants
):  # fmt: skip
    """From the dots of tiles to the sums and the constants of the gradient of n channels."""
    dot, s = offset(dweight, start), offset(dbias, start)
    zero(dot, n)
    zero(s, n)
    for t in range(tiles):
        add(dot, offset(partials, 2 * t * view.channels + start), n)
        add(s, offset(partials, (2 * t + 1) * view.channels + start), n)
    rows_of_gradient_constants(
        x, n, view.size // view.channels, offset(mean, start), offset(rstd, start), offset(weight, start),
        training, dot, s, offset(constants, start), view.channels,
    )  # fmt: skip


@primitive
def _gradient(dy, x, n, a, training, dx, dresidual, stream):
    """A run of dx, and of dresidual, where there is one; a: hi, scale, c2, k"""
    if training:
        run_gradient(dy, x, n, a, None, dx, stream)
    else:
        normalize_run(dy, n, (a[0], a[1], a[2]), None, None, dx, stream)
    if dresidual is not None:
        copy_run(dy, n, dresidual, stream)


@primitive
def _backward_piece(
    w, dy, x, residual, outer, view, block, workers, weight, bias, kind, mean, rstd, training, constants,
    affine, dz, partials, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    channels, inner, own = view.channels, view.inner, offset(dz, w * block * outer * view.inner)
    blocks, tiles = -(-channels // block), tile_count(outer, inner)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, channels)
        _prepare_dots(x, start, end - start, channels, weight, bias, kind, mean, rstd, constants, affine)
        for t in range(tiles):
            block_dots(
                dy, x, residual, t, start, end, outer, channels, inner, kind, own, constants, affine,
                partials,
            )  # fmt: skip
        _finish_dots(
            x, view, start, end - start, tiles, partials, weight, mean, rstd, training, dweight, dbias,
            constants,
        )  # fmt: skip
        for g in range(outer):
            for c in range(start, end):
                k, z = (g * channels + c) * inner, (g * (end - start) + c - start) * inner
                _gradient(
                    first_of(offset(own, z), offset(dy, k)), offset(x, k), inner,
                    gradient_constants_at(constants, c, channels), training, offset(dx, k),
                    offset(dresidual, k), stream,
                )  # fmt: skip
    if stream:
        fence()


@kernel
def backward(
    team, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd, training,
    constants, affine, dz, partials, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    The blocks are shared out among `workers`, each with room in dz for one of them.
    """
    share(
        team, workers, _backward_piece, dy, x, residual, outer,
        view_of(outer * channels * inner, 1, channels, inner), block, workers, weight, bias, kind, mean, rstd,
        training, constants, affine, dz, partials, dx, dresidual, dweight, dbias, stream,
    )  # fmt: skip


@primitive
def _dots_piece(k, dy, x, residual, outer, view, kind, constants, affine, dz, partials):
    c, t, start, runs, n = _tile(k, outer, view)
    own = offset(partials, 2 * t * view.channels + c)
    own[0], own[view.channels] = tile_dots(
        offset(dy, start), offset(x, start), runs, view.width, n, constants[c], constants[view.channels + c],
        affine_at(affine, constants, c, view.channels), offset(residual, start), kind, offset(dz, start),
    )  # fmt: skip


@primitive
def _gradient_piece(p, dy, x, view, training, constants, dz, dx, dresidual, stream):
    k, end = p * PIECE, min((p + 1) * PIECE, view.size)
    while k < end:
        run = k // view.inner
        n = min((run + 1) * view.inner, end) - k
        _gradient(
            first_of(offset(dz, k), offset(dy, k)), offset(x, k), n,
            gradient_constants_at(constants, run % view.channels, view.channels), training, offset(dx, k),
            offset(dresidual, k), stream,
        )  # fmt: skip
        k += n
    if stream:
        fence()


@kernel
def backward_tiles(
    team, dy, x, residual, outer, channels, inner, weight, bias, kind, mean, rstd, training, constants,
    affine, dz, partials, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """As `backward`; a tile is one piece of work, and dz is as large as x."""
    view, tiles = view_of(outer * channels * inner, 1, channels, inner), len(partials)
    _prepare_dots(
        pointer(x), 0, channels, channels, pointer(weight), pointer(bias), kind, pointer(mean), pointer(rstd),
        pointer(constants), pointer(affine),
    )  # fmt: skip
    pieces = channels * tiles
    share(team, pieces, _dots_piece, dy, x, residual, outer, view, kind, constants, affine, dz, partials)
    _finish_dots(
        pointer(x), view, 0, channels, tiles, pointer(partials), pointer(weight), pointer(mean),
        pointer(rstd), training, pointer(dweight), pointer(dbias), pointer(constants),
    )  # fmt: skip
    share(
        team, -(-view.size // PIECE), _gradient_piece, dy, x, view, training, constants, dz, dx, dresidual,
        stream,
    )  # fmt: skip
