"""Kernels over an array seen as (outer, channels, inner) with long runs: statistics per channel.

A channel is a group of `outer` runs. `forward` and `backward` take a block of neighbouring channels
at a time, which is read from memory once and from the cache the second time; the block size changes
no bits. Where there are too few channels to share out, `forward_tiles` and `backward_tiles` share
out the tiles of all channels, and read the array twice.

In all of them constants: (channels, 4) in the dtype of x; partials: (channels, tiles, 4 or 2) in
float64; scratch: (channels, 2 vectors) in the dtype of x; settings, statistics: as for `finish_moments`.
"""

from numba import prange

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
from .jit import kernel, primitive
from .primitives import merged, tile_bounds, tile_count, tile_moments
from .vectors import fence, offset, pointer

# Elements of one piece of work in the kernels that go through an array from front to back.
PIECE = 65536


@primitive
def _tile(k, outer, channels, inner):
    """Channel, tile, where it begins, runs and elements of one piece of work over tiles."""
    tiles = tile_count(outer, inner)
    c, t = k // tiles, k % tiles
    run, runs, first, n = tile_bounds(t, outer, inner)
    return c, t, (run * channels + c) * inner + first, runs, n


@primitive
def _moments_piece(x, k, outer, channels, inner, partials):
    c, t, start, runs, n = _tile(k, outer, channels, inner)
    moments = tile_moments(offset(pointer(x), start), runs, channels * inner, n)
    for j in range(4):
        partials[c, t, j] = moments[j]


@primitive
def _normalize_piece(x, p, outer, channels, inner, constants, y, stream):
    k, end = p * PIECE, min((p + 1) * PIECE, outer * channels * inner)
    while k < end:
        run = k // inner
        n = min((run + 1) * inner, end) - k
        a = offset(pointer(constants), 4 * (run % channels))
        normalize_run(offset(pointer(x), k), n, a, offset(pointer(y), k), stream)
        k += n
    if stream:
        fence()


@kernel
def moments(x, outer, channels, inner, partials, mean, m2):
    """mean and m2 of every channel."""
    for k in prange(channels * tile_count(outer, inner)):
        _moments_piece(x, k, outer, channels, inner, partials)
    tiles = partials.shape[1]
    for c in prange(channels):
        mean[c], m2[c] = merged(offset(pointer(partials), 4 * tiles * c), tiles)


@kernel
def normalize(x, outer, channels, inner, mean, rstd, weight, bias, constants, y, stream):
    """y = (x - mean) * rstd * weight + bias with given statistics."""
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        forward_constants(pointer(x), mean[c], rstd[c], weight[c], bias[c], a, 1)
    for p in prange(-(-outer * channels * inner // PIECE)):
        _normalize_piece(x, p, outer, channels, inner, constants, y, stream)


@kernel
def forward(
    x, outer, channels, inner, block, weight, bias, settings, statistics, scratch, constants, partials,
    y, stream,
):  # fmt: skip
    """y = (x - mean) * rstd * weight + bias with the statistics of x; a block is one piece of work."""
    for b in prange(-(-channels // block)):
        start, end = b * block, min((b + 1) * block, channels)
        for t in range(tile_count(outer, inner)):
            block_moments(pointer(x), t, start, end, outer, channels, inner, scratch, constants, partials)
        for c in range(start, end):
            a = offset(pointer(constants), 4 * c)
            finish_moments(
                pointer(x), c, channels, outer * inner, pointer(weight), pointer(bias), pointer(settings),
                pointer(statistics), pointer(partials), partials.shape[1], a, 1,
            )  # fmt: skip
        for n in range(outer):
            for c in range(start, end):
                k, a = (n * channels + c) * inner, offset(pointer(constants), 4 * c)
                normalize_run(offset(pointer(x), k), inner, a, offset(pointer(y), k), stream)
        if stream:
            fence()


@kernel
def forward_tiles(
    x, outer, channels, inner, weight, bias, settings, statistics, constants, partials, y, stream,
):  # fmt: skip
    """As `forward`; a tile is one piece of work."""
    for k in prange(channels * tile_count(outer, inner)):
        _moments_piece(x, k, outer, channels, inner, partials)
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        finish_moments(
            pointer(x), c, channels, outer * inner, pointer(weight), pointer(bias), pointer(settings),
            pointer(statistics), pointer(partials), partials.shape[1], a, 1,
        )  # fmt: skip
    for p in prange(-(-outer * channels * inner // PIECE)):
        _normalize_piece(x, p, outer, channels, inner, constants, y, stream)


@kernel
def backward(
    dy, x, outer, channels, inner, block, weight, mean, rstd, training, scratch, constants, partials, dx,
    dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation."""
    for b in prange(-(-channels // block)):
        start, end = b * block, min((b + 1) * block, channels)
        for c in range(start, end):
            dot_constants(pointer(x), mean[c], rstd[c], offset(pointer(constants), 4 * c), 1)
        for t in range(tile_count(outer, inner)):
            block_dots(
                pointer(dy), pointer(x), t, start, end, outer, channels, inner, scratch, constants, partials
            )
        for c in range(start, end):
            a = offset(pointer(constants), 4 * c)
            finish_dots(
                pointer(x), c, outer * inner, pointer(weight), pointer(mean), pointer(rstd), training,
                pointer(partials), partials.shape[1], pointer(dweight), pointer(dbias), a, 1,
            )  # fmt: skip
        for n in range(outer):
            for c in range(start, end):
                k, a = (n * channels + c) * inner, offset(pointer(constants), 4 * c)
                dy_run, dx_run = offset(pointer(dy), k), offset(pointer(dx), k)
                if training:
                    run_gradient(dy_run, offset(pointer(x), k), inner, a, dx_run, stream)
                else:
                    normalize_run(dy_run, inner, a, dx_run, stream)
        if stream:
            fence()


@kernel
def backward_tiles(
    dy, x, outer, channels, inner, weight, mean, rstd, training, constants, partials, dx, dweight, dbias,
    stream,
):  # fmt: skip
    """As `backward`; a tile is one piece of work."""
    for c in range(channels):
        dot_constants(pointer(x), mean[c], rstd[c], offset(pointer(constants), 4 * c), 1)
    for k in prange(channels * tile_count(outer, inner)):
        c, t, start, runs, n = _tile(k, outer, channels, inner)
        dy_tile, x_tile = offset(pointer(dy), start), offset(pointer(x), start)
        partials[c, t, 0], partials[c, t, 1] = tile_dots(
            dy_tile, x_tile, runs, channels * inner, n, constants[c, 0], constants[c, 1]
        )
    for c in range(channels):
        a = offset(pointer(constants), 4 * c)
        finish_dots(
            pointer(x), c, outer * inner, pointer(weight), pointer(mean), pointer(rstd), training,
            pointer(partials), partials.shape[1], pointer(dweight), pointer(dbias), a, 1,
        )  # fmt: skip
    for p in prange(-(-outer * channels * inner // PIECE)):
        if training:
            k, end = p * PIECE, min((p + 1) * PIECE, outer * channels * inner)
            while k < end:
                run = k // inner
                n = min((run + 1) * inner, end) - k
                a = offset(pointer(constants), 4 * (run % channels))
                run_gradient(
                    offset(pointer(dy), k), offset(pointer(x), k), n, a, offset(pointer(dx), k), stream
                )
                k += n
            if stream:
                fence()
        else:
            _normalize_piece(dy, p, outer, channels, inner, constants, dx, stream)
