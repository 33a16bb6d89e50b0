"""Primitives over channels: all elements of a run share mean, weight and bias."""

import numpy as np

from .jit import primitive
from .primitives import add_run, corrected, pivot_of, put, put_part, split, streamed_head, tile_bounds
from .vectors import as_element, fma, lanes, load, load_part, offset, pointer, store, total, zeros


@primitive
def normalize_run(x, n, hi, lo, scale, shift, y, stream):
    """y = (x - mean) * scale + shift, all scalars of the dtype of x"""
    i = streamed_head(y, n, stream)
    if i > 0:
        put_part(y, 0, i, fma((load_part(x, 0, i, hi) - hi) - lo, scale, shift), stream)
    while i + lanes(x) <= n:
        put(y, i, fma((load(x, i) - hi) - lo, scale, shift), stream)
        i += lanes(x)
    if i < n:
        put_part(y, i, n - i, fma((load_part(x, i, n - i, hi) - hi) - lo, scale, shift), stream)


@primitive
def _add_dots(dy, x, n, hi, lo, s, q):
    """The vectors s and q plus dy and dy * (x - mean) of a run."""
    whole = n - n % lanes(x)
    for i in range(0, whole, lanes(x)):
        d = load(dy, i)
        s = s + d
        q = fma((load(x, i) - hi) - lo, d, q)
    if whole < n:
        d = load_part(dy, whole, n - whole, as_element(x, 0.0))
        s = s + d
        q = fma((load_part(x, whole, n - whole, hi) - hi) - lo, d, q)
    return s, q


@primitive
def tile_dots(dy, x, outer, stride, n, mean):
    """Sums of dy * (x - mean) and of dy over a tile."""
    hi, lo = split(x, mean)
    s = zeros(x)
    q = zeros(x)
    for g in range(outer):
        s, q = _add_dots(offset(dy, g * stride), offset(x, g * stride), n, hi, lo, s, q)
    return np.float64(total(q)), np.float64(total(s))


@primitive
def room(scratch, c):
    """Where channel c keeps two vectors of sums, and behind them a few scalars."""
    return offset(pointer(scratch), c * scratch.shape[1])


@primitive
def scalars(scratch, c):
    """The scalars of channel c: its pivot or, later, the constants of its output."""
    return offset(room(scratch, c), 2 * lanes(pointer(scratch)))


@primitive
def block_moments(x, t, start, end, outer, channels, inner, scratch, partials):
    """count, pivot, mean - pivot and m2 of tile t of the channels start..end.

    Run after run as they lie in memory, with the sums of every channel in `scratch`: from memory a
    core reads runs of 3 KB that lie far apart at half the speed of a stream (measured).
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    one = as_element(x, 1.0)
    x = offset(x, run * channels * inner + first)
    for c in range(start, end):
        s = room(scratch, c)
        store(s, 0, zeros(x))
        store(s, lanes(x), zeros(x))
        scalars(scratch, c)[0] = pivot_of(offset(x, c * inner), n)
    for g in range(runs):
        for c in range(start, end):
            s, pivot = room(scratch, c), scalars(scratch, c)[0]
            tile = offset(x, (g * channels + c) * inner)
            v, w = add_run(tile, n, pivot, one, load(s, 0), load(s, lanes(x)))
            store(s, 0, v)
            store(s, lanes(x), w)
    for c in range(start, end):
        s, pivot = room(scratch, c), scalars(scratch, c)[0]
        v, w = np.float64(total(load(s, 0))), np.float64(total(load(s, lanes(x))))
        moments = corrected(offset(x, c * inner), runs, channels * inner, n, pivot, v, w)
        for j in range(4):
            partials[c, t, j] = moments[j]


@primitive
def block_dots(dy, x, t, start, end, outer, channels, inner, scratch, partials):
    """Sums of dy * (x - mean) and of dy of tile t of the channels start..end, as `block_moments`.

    The scalars of every channel begin with hi and lo.
    """
    run, runs, first, n = tile_bounds(t, outer, inner)
    for c in range(start, end):
        s = room(scratch, c)
        store(s, 0, zeros(x))
        store(s, lanes(x), zeros(x))
    for g in range(run, run + runs):
        for c in range(start, end):
            s, mean = room(scratch, c), scalars(scratch, c)
            k = (g * channels + c) * inner + first
            v, w = _add_dots(offset(dy, k), offset(x, k), n, mean[0], mean[1], load(s, 0), load(s, lanes(x)))
            store(s, 0, v)
            store(s, lanes(x), w)
    for c in range(start, end):
        s = room(scratch, c)
        partials[c, t, 0] = total(load(s, lanes(x)))
        partials[c, t, 1] = total(load(s, 0))


@primitive
def summed(tiles):
    """The two sums of a group from those of its tiles."""
    a = b = 0.0
    for t in range(len(tiles)):
        a += tiles[t, 0]
        b += tiles[t, 1]
    return a, b


@primitive
def run_gradient(dy, x, n, hi, lo, k, c2, scale, dx, stream):
    """dx = (dy - (x - mean) * k - c2) * scale, all scalars of the dtype of x"""
    i = streamed_head(dx, n, stream)
    if i > 0:
        d = (load_part(x, 0, i, hi) - hi) - lo
        put_part(dx, 0, i, fma(d, k * -1, load_part(dy, 0, i, hi) - c2) * scale, stream)
    while i + lanes(x) <= n:
        d = (load(x, i) - hi) - lo
        put(dx, i, fma(d, k * -1, load(dy, i) - c2) * scale, stream)
        i += lanes(x)
    if i < n:
        d = (load_part(x, i, n - i, hi) - hi) - lo
        put_part(dx, i, n - i, fma(d, k * -1, load_part(dy, i, n - i, hi) - c2) * scale, stream)
