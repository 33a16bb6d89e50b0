"""Kernels over an array seen as (outer, channels, inner) with long runs: statistics per channel.

A channel is a group of `outer` runs. `forward` and `backward` take a block of neighbouring channels
at a time, which is read from memory once and from the cache the second time; the block size changes
no bits. Where there are too few channels to share out, `forward_tiles` and `backward_tiles` share
out the tiles of all channels, and read the array twice.

In all of them constants: (channels, 4) in the dtype of x; partials: (channels, tiles, 4 or 2) in
float64; state: as for `finish_moments`.

Fused are, where they are not None: `residual`, which is added to the output, and the activation `kind` that
follows. In their backward `affine` has the room of `constants`, and dz, which lies between the two passes, is
kept in `dz` and copied to `dresidual`.
"""

from .channel_primitives import (
    block_dots,
    block_moments,
    dot_constants,
    finish_dots,
    finish_moments,
    forward_constants,
    normalize_run,
    run_gradient,
    tile_dots,
)
from .column_channels import take_statistics
from .extremes import group_statistics
from .fusion import copy_run, first_of
from .jit import kernel, loop, primitive
from .parallel import share
from .pointers import fence, offset, pointer
from .primitives import merged, tile_bounds, tile_count, tile_moments
from .tuning import PIECE


@primitive
def _tile(k, outer, channels, inner):
    """Channel, tile, where it begins, runs and elements of one piece of work over tiles."""
    tiles = tile_count(outer, inner)
    c, t = k // tiles, k % tiles
    run, runs, first, n = tile_bounds(t, outer, inner)
    return c, t, (run * channels + c) * inner + first, runs, n


@primitive
def _moments_piece(k, x, outer, channels, inner, partials):
    c, t, start, runs, n = _tile(k, outer, channels, inner)
    moments = tile_moments(offset(pointer(x), start), runs, channels * inner, n)
    for j in range(4):
        partials[c, t, j] = moments[j]


@primitive
def _normalize_piece(p, x, residual, outer, channels, inner, constants, kind, y, stream):
    k, end = p * PIECE, min((p + 1) * PIECE, outer * channels * inner)
    while k < end:
        run = k // inner
        n = min((run + 1) * inner, end) - k
        a = offset(pointer(constants), 4 * (run % channels))
        x_run, residual_run = offset(pointer(x), k), offset(pointer(residual), k)
        normalize_run(x_run, n, a, residual_run, kind, offset(pointer(y), k), stream)
        k += n
    if stream:
        fence()


@primitive
def _gradient(dy, x, n, a, training, dx, dresidual, stream):
    """A run of dx, and of dresidual, where there is one"""
    if training:
        run_gradient(dy, x, n, a, None, dx, stream)
    else:
        normalize_run(dy, n, a, None, None, dx, stream)
    if dresidual is not None:
        copy_run(dy, n, dresidual, stream)


@primitive
def _finish(c, x, outer, channels, inner, partials, mean, var, rstd):
    tiles, run = partials.shape[1], offset(pointer(x), c * inner)
    mean_c, m2 = merged(offset(pointer(partials), 4 * tiles * c), tiles)
    mean[c], var[c], rstd[c] = group_statistics(
        run, outer, channels * inner, inner, 0.0, True, mean_c, m2 / (outer * inner)
    )


@kernel
def moments(team, x, outer, channels, inner, partials, mean, var, rstd):
    """mean, population variance and its 1/sqrt of every channel."""
    share(team, channels * tile_count(outer, inner), _moments_piece, x, outer, channels, inner, partials)
    share(team, channels, _finish, x, outer, channels, inner, partials, mean, var, rstd)


@kernel
def normalize(
    team, x, residual, outer, channels, inner, running_mean, running_var, eps, statistics, weight, bias,
    constants, kind, y, stream,
):  # fmt: skip
    """As `forward`, with running statistics, whose mean and rstd go to `statistics`; with these if None."""
    take_statistics(0, channels, running_mean, running_var, eps, statistics)
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        forward_constants(pointer(x), statistics[0, c], statistics[1, c], weight[c], bias[c], a, 1)
    pieces = -(-outer * channels * inner // PIECE)
    share(team, pieces, _normalize_piece, x, residual, outer, channels, inner, constants, kind, y, stream)


@loop
def forward(
    b, x, residual, outer, channels, inner, block, weight, bias, state, constants,
    partials, kind, y, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias + residual) with the statistics of x."""
    start, end = b * block, min((b + 1) * block, channels)
    for t in range(tile_count(outer, inner)):
        block_moments(pointer(x), t, start, end, outer, channels, inner, constants, partials)
    for c in range(start, end):
        a = offset(pointer(constants), 4 * c)
        mean, m2 = merged(offset(pointer(partials), 4 * partials.shape[1] * c), partials.shape[1])
        finish_moments(pointer(x), c, outer, channels, inner, mean, m2, weight, bias, state, a, 1)
    for n in range(outer):
        for c in range(start, end):
            k, a = (n * channels + c) * inner, offset(pointer(constants), 4 * c)
            x_run, residual_run = offset(pointer(x), k), offset(pointer(residual), k)
            normalize_run(x_run, inner, a, residual_run, kind, offset(pointer(y), k), stream)
    if stream:
        fence()


@kernel
def forward_tiles(
    team, x, residual, outer, channels, inner, weight, bias, state, constants, partials,
    kind, y, stream,
):  # fmt: skip
    """As `forward`; a tile is one piece of work."""
    share(team, channels * tile_count(outer, inner), _moments_piece, x, outer, channels, inner, partials)
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        mean, m2 = merged(offset(pointer(partials), 4 * partials.shape[1] * c), partials.shape[1])
        finish_moments(pointer(x), c, outer, channels, inner, mean, m2, weight, bias, state, a, 1)
    pieces = -(-outer * channels * inner // PIECE)
    share(team, pieces, _normalize_piece, x, residual, outer, channels, inner, constants, kind, y, stream)


@primitive
def _dots(c, partials):
    """The dots of channel c: those of its tiles."""
    dot = s = 0.0
    for t in range(partials.shape[1]):
        dot += partials[c, t, 0]
        s += partials[c, t, 1]
    return dot, s


@loop
def backward(
    w, dy, x, residual, outer, channels, inner, block, workers, weight, bias, kind, mean, rstd, training,
    constants, affine, dz, partials, dx, dresidual, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation.

    The blocks are shared out among `workers`, each with room in dz for one of them.
    """
    blocks = -(-channels // block)
    own = offset(pointer(dz), w * block * outer * inner)
    for b in range(w * blocks // workers, (w + 1) * blocks // workers):
        start, end = b * block, min((b + 1) * block, channels)
        for c in range(start, end):
            a, z = offset(pointer(constants), 4 * c), offset(pointer(affine), 4 * c)
            dot_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], a, z, 1)
        for t in range(tile_count(outer, inner)):
            block_dots(
                pointer(dy), pointer(x), pointer(residual), t, start, end, outer, channels, inner, kind,
                own, constants, pointer(affine), partials,
            )  # fmt: skip
        for c in range(start, end):
            a = offset(pointer(constants), 4 * c)
            dot, s = _dots(c, partials)
            finish_dots(
                pointer(x), c, outer * inner, dot, s, weight, mean, rstd, training, dweight, dbias, a, 1
            )
        for n in range(outer):
            for c in range(start, end):
                k, j = (n * channels + c) * inner, (n * (end - start) + c - start) * inner
                _gradient(
                    first_of(offset(own, j), offset(pointer(dy), k)), offset(pointer(x), k), inner,
                    offset(pointer(constants), 4 * c), training, offset(pointer(dx), k),
                    offset(pointer(dresidual), k), stream,
                )  # fmt: skip
    if stream:
        fence()


@primitive
def _dots_piece(k, dy, x, residual, outer, channels, inner, kind, constants, affine, dz, partials):
    c, t, start, runs, n = _tile(k, outer, channels, inner)
    partials[c, t, 0], partials[c, t, 1] = tile_dots(
        offset(pointer(dy), start), offset(pointer(x), start), runs, channels * inner, n,
        constants[c, 0], constants[c, 1], offset(pointer(affine), 4 * c),
        offset(pointer(residual), start), kind, offset(pointer(dz), start),
    )  # fmt: skip


@primitive
def _gradient_piece(p, dy, x, outer, channels, inner, training, constants, dz, dx, dresidual, stream):
    k, end = p * PIECE, min((p + 1) * PIECE, outer * channels * inner)
    while k < end:
        c, n = k // inner % channels, min((k // inner + 1) * inner, end) - k
        _gradient(
            first_of(offset(pointer(dz), k), offset(pointer(dy), k)), offset(pointer(x), k), n,
            offset(pointer(constants), 4 * c), training, offset(pointer(dx), k),
            offset(pointer(dresidual), k), stream,
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
    for c in range(channels):
        a, z = offset(pointer(constants), 4 * c), offset(pointer(affine), 4 * c)
        dot_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], a, z, 1)
    share(
        team, channels * tile_count(outer, inner), _dots_piece, dy, x, residual, outer, channels,
        inner, kind, constants, affine, dz, partials,
    )  # fmt: skip
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        dot, s = _dots(c, partials)
        finish_dots(pointer(x), c, outer * inner, dot, s, weight, mean, rstd, training, dweight, dbias, a, 1)
    share(
        team, -(-outer * channels * inner // PIECE), _gradient_piece, dy, x, outer, channels, inner,
        training, constants, dz, dx, dresidual, stream,
    )  # fmt: skip
