"""Kernels over an array seen as (outer, channels, inner) with inner > 1: statistics per channel.

A channel is a group of `outer` runs. The fused kernels take a block of neighbouring channels at a
time, which is read from memory once and from the cache the second time; the block size changes no
bits. Where there are too few channels to share out, the same work is done in three steps over
tiles: `moments` or `dots`, a merge, and `normalize` or `gradient`. Both ways run over the same
tiles in the same order and give the same bits.
"""

from numba import prange

from .channel_primitives import (
    block_dots,
    block_moments,
    normalize_run,
    run_gradient,
    scalars,
    summed,
    tile_dots,
)
from .jit import kernel, primitive
from .primitives import as_scale, merged, reciprocal_sd, split, tile_bounds, tile_count, tile_moments
from .vectors import as_element, fence, offset, pointer

# Elements of one piece of work in the kernels that go through an array from front to back.
PIECE = 65536


@kernel
def forward(
    x, outer, channels, inner, block, weight, bias, eps, scratch, partials, y, mean, var, rstd, stream
):
    """y = (x - mean) * rstd * weight + bias with the statistics of x; `block` channels are one piece of work.

    scratch: (channels, 3 vectors) in the dtype of x. partials: (channels, tiles, 4) in float64.
    """
    for b in prange(-(-channels // block)):
        start, end = b * block, min((b + 1) * block, channels)
        for t in range(tile_count(outer, inner)):
            block_moments(pointer(x), t, start, end, outer, channels, inner, scratch, partials)
        for c in range(start, end):
            mean[c], m2 = merged(partials[c])
            var[c] = m2 / (outer * inner)
            rstd[c] = reciprocal_sd(var[c], eps)
            a = scalars(scratch, c)
            a[0], a[1] = split(pointer(x), mean[c])
            a[2], a[3] = as_scale(pointer(x), rstd[c] * weight[c]), bias[c]
        for n in range(outer):
            for c in range(start, end):
                a = scalars(scratch, c)
                k = (n * channels + c) * inner
                x_run, y_run = offset(pointer(x), k), offset(pointer(y), k)
                normalize_run(x_run, inner, a[0], a[1], a[2], a[3], y_run, stream)
        if stream:
            fence()


@kernel
def moments(x, outer, channels, inner, partials, mean, m2):
    """mean and m2 of every channel; partials: (channels, tiles, 4) in float64."""
    tiles = tile_count(outer, inner)
    for k in prange(channels * tiles):
        c, t = k // tiles, k % tiles
        run, runs, first, n = tile_bounds(t, outer, inner)
        tile = offset(pointer(x), (run * channels + c) * inner + first)
        moments = tile_moments(tile, runs, channels * inner, n)
        for j in range(4):
            partials[c, t, j] = moments[j]
    for c in prange(channels):
        mean[c], m2[c] = merged(partials[c])


@kernel
def normalize(x, outer, channels, inner, mean, scale, shift, y, stream):
    """y = (x - mean) * scale + shift with given statistics."""
    size = outer * channels * inner
    for p in prange(-(-size // PIECE)):
        k, end = p * PIECE, min((p + 1) * PIECE, size)
        while k < end:
            run = k // inner
            n = min((run + 1) * inner, end) - k
            c = run % channels
            hi, lo = split(pointer(x), mean[c])
            a, b = as_scale(pointer(x), scale[c]), as_element(pointer(x), shift[c])
            normalize_run(offset(pointer(x), k), n, hi, lo, a, b, offset(pointer(y), k), stream)
            k += n
        if stream:
            fence()


@primitive
def _constants(x, mean, rstd, scale, dweight, dbias, inverse):
    """hi, lo, k, c2, scale with dx = (dy - (x - mean) * k - c2) * scale, in the dtype of x."""
    hi, lo = split(x, mean)
    k = as_scale(x, rstd * dweight * inverse)
    return hi, lo, k, as_element(x, dbias * inverse), as_scale(x, scale)


@kernel
def backward(
    dy, x, outer, channels, inner, block, scale, mean, rstd, scratch, partials, training,
    dx, dweight, dbias, stream,
):  # fmt: skip
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale; dx = dy * scale in evaluation."""
    inverse = 1.0 / (outer * inner)
    zero = as_element(pointer(x), 0.0)
    for b in prange(-(-channels // block)):
        start, end = b * block, min((b + 1) * block, channels)
        for c in range(start, end):
            a = scalars(scratch, c)
            a[0], a[1] = split(pointer(x), mean[c])
        for t in range(tile_count(outer, inner)):
            block_dots(pointer(dy), pointer(x), t, start, end, outer, channels, inner, scratch, partials)
        for c in range(start, end):
            dot, dbias[c] = summed(partials[c])
            dweight[c] = dot * rstd[c]
            a = scalars(scratch, c)
            a[0], a[1], a[2], a[3], a[4] = _constants(
                pointer(x), mean[c], rstd[c], scale[c], dweight[c], dbias[c], inverse
            )
        for n in range(outer):
            for c in range(start, end):
                a = scalars(scratch, c)
                k = (n * channels + c) * inner
                dy_run, x_run, dx_run = offset(pointer(dy), k), offset(pointer(x), k), offset(pointer(dx), k)
                if training:
                    run_gradient(dy_run, x_run, inner, a[0], a[1], a[2], a[3], a[4], dx_run, stream)
                else:
                    normalize_run(dy_run, inner, zero, zero, a[4], zero, dx_run, stream)
        if stream:
            fence()


@kernel
def dots(dy, x, outer, channels, inner, mean, rstd, partials, dweight, dbias):
    """dweight = sum(dy * x_hat) and dbias = sum(dy) of every channel; partials: (channels, tiles, 2)."""
    tiles = tile_count(outer, inner)
    for k in prange(channels * tiles):
        c, t = k // tiles, k % tiles
        run, runs, first, n = tile_bounds(t, outer, inner)
        j = (run * channels + c) * inner + first
        dy_tile, x_tile = offset(pointer(dy), j), offset(pointer(x), j)
        partials[c, t, 0], partials[c, t, 1] = tile_dots(dy_tile, x_tile, runs, channels * inner, n, mean[c])
    for c in prange(channels):
        dot, dbias[c] = summed(partials[c])
        dweight[c] = dot * rstd[c]


@kernel
def gradient(dy, x, outer, channels, inner, scale, mean, rstd, dweight, dbias, dx, stream):
    """dx = (dy - x_hat * mean(dy * x_hat) - mean(dy)) * scale with given sums."""
    size = outer * channels * inner
    inverse = 1.0 / (outer * inner)
    for p in prange(-(-size // PIECE)):
        k, end = p * PIECE, min((p + 1) * PIECE, size)
        while k < end:
            run = k // inner
            n = min((run + 1) * inner, end) - k
            c = run % channels
            hi, lo, kc, c2, a = _constants(
                pointer(x), mean[c], rstd[c], scale[c], dweight[c], dbias[c], inverse
            )
            run_gradient(
                offset(pointer(dy), k),
                offset(pointer(x), k),
                n,
                hi,
                lo,
                kc,
                c2,
                a,
                offset(pointer(dx), k),
                stream,
            )
            k += n
        if stream:
            fence()
