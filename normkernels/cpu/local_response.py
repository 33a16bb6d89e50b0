"""Kernels of local response normalization, over an array seen as (outer, channels, inner).

A sample is `size` = channels * inner contiguous elements. The same element of the next channel lies a
`stride` further on, so a window is a sum of shifted elements, and the zeros around a sample are
what that sum leaves out. Every element is summed by itself, in the order of the channels: its bits
depend on no neighbour, no piece and no layout.
Settings and scratch memory are in the dtype of the arithmetic.
"""

import math

import numpy as np

from .fusion import copy_run
from .jit import loop, primitive
from .pointers import as_element, dtype_of, element, fence, largest, offset, pointer

# Elements taken through all steps together: three arrays of them stay in L1.
TILE = 1024


@primitive
def _clear(sums, n):
    for i in range(n):
        sums[i] = as_element(sums, 0.0)


@primitive
def _reciprocals(x, start, n, size, stride, before, after, settings, r):
    """r = 1 / (k + scale * (sum of x² over the window)), of the n elements from `start` of a sample"""
    unit = as_element(r, 1.0)
    _clear(r, n)
    for channel in range(-before, after + 1):
        first = start + channel * stride
        for i in range(max(0, -first), min(n, size - first)):
            value = element(x, first + i)
            r[i] += value * value
    for i in range(n):
        r[i] = unit / (settings[1] + settings[0] * r[i])


@primitive
def _window_sums(t, start, n, size, stride, before, after, sums):
    """Sums of t over the window, of the n elements from `start` of a sample"""
    _clear(sums, n)
    for channel in range(-before, after + 1):
        first = start + channel * stride
        for i in range(max(0, -first), min(n, size - first)):
            sums[i] += t[first + i]


@primitive
def _power(r, n, beta, p):
    """p = r ** beta; square roots, which are vectorized if p is not r, for the powers in use"""
    if beta == 0.75:
        for i in range(n):
            root = math.sqrt(r[i])
            p[i] = root * math.sqrt(root)
    elif beta == 0.5:
        for i in range(n):
            p[i] = math.sqrt(r[i])
    elif beta == 1.0:
        for i in range(n):
            p[i] = r[i]
    else:
        for i in range(n):
            p[i] = r[i] ** beta


@primitive
def _usual(x, r):
    """Whether no square that counts in 1 / r has left the range of the arithmetic of x"""
    limit = 1e25 if largest(x) < 1e300 else 1e280
    return not (r <= 1.0 / limit or r >= limit)  # NaN stays what it is


@primitive
def _all_usual(x, r, n):
    usual = True
    for i in range(n):
        usual &= _usual(x, r[i])
    return usual


@primitive
def _root(x, i, size, stride, before, after, settings):
    """1 / sqrt(k + scale * (sum of x² over the window)) of element i, in float64; scaled before squaring"""
    scale, k = np.float64(settings[0]), np.float64(settings[1])
    top = math.sqrt(abs(k))
    for j in range(i - before * stride, i + after * stride + 1, stride):
        if 0 <= j < size:
            top = max(top, abs(np.float64(element(x, j))))
    unit = 1.0
    if top < np.inf:
        unit = math.ldexp(1.0, min(max(-math.frexp(top)[1], -1000), 1000))
    q = 0.0
    for j in range(i - before * stride, i + after * stride + 1, stride):
        if 0 <= j < size:
            q += (np.float64(element(x, j)) * unit) ** 2
    return 1.0 / math.sqrt(k * unit * unit + scale * q) * unit


@primitive
def _mend_tile(x, start, n, size, stride, before, after, settings, r, p):
    """p = x * root ** (2 * beta), of which neither factor need be in range, where r is not"""
    for i in range(n):
        if not _usual(x, r[i]):
            root = _root(x, start + i, size, stride, before, after, settings)
            value = np.float64(element(x, start + i)) * root
            p[i] = as_element(p, value * root ** (2.0 * settings[2] - 1.0))


@primitive
def _mend_columns(
    kept, like, channels, stride, first, width, before, after, settings, sums, dx, stream
):  # fmt: skip
    """dx = g - slope * (sum of x * root * t), t = g * x * root, over the windows that are not in range.

    kept: dy, then x, in float64, the columns one channel after the other. It comes as an array, which numba
    keeps until this returns; not so one of which only the pointer is handed on. `like` has the arithmetic
    whose range counts.
    """
    dy, x = pointer(kept), offset(pointer(kept), channels * width)
    own, beta, slope = channels * width, np.float64(settings[2]), np.float64(settings[3])
    for i in range(own):
        c, usual, felt = i // width, True, 0.0
        for j in range(max(0, c - after), min(channels - 1, c + before) + 1):
            o = j * width + i % width
            root = _root(x, o, own, width, before, after, settings)
            usual &= _usual(like, root * root)
            felt += x[i] * root * (dy[o] * root**beta * root**beta * (x[o] * root))
        if not usual:
            power = _root(x, i, own, width, before, after, settings) ** beta
            sums[0] = as_element(sums, dy[i] * power * power - slope * felt)
            copy_run(sums, 1, offset(dx, c * stride + first + i % width), stream)


@primitive
def _forward_tile(x, start, n, size, stride, before, after, settings, r, p, y, stream):
    """y = x * r ** beta"""
    _reciprocals(x, start, n, size, stride, before, after, settings, r)
    _power(r, n, settings[2], p)
    for i in range(n):
        p[i] = element(x, start + i) * p[i]
    if not _all_usual(x, r, n):
        _mend_tile(x, start, n, size, stride, before, after, settings, r, p)
    copy_run(p, n, offset(y, start), stream)


@loop
def forward(b, x, outer, size, stride, block, before, after, settings, y, stream):
    """y = x / (k + scale * (sum of x² over the window)) ** beta; settings: scale, k, beta, slope."""
    tiles = -(-size // TILE)
    r, p = np.empty(TILE, dtype_of(settings)), np.empty(TILE, dtype_of(settings))
    for j in range(b * block, min((b + 1) * block, outer * tiles)):
        sample, start = j // tiles * size, j % tiles * TILE
        _forward_tile(
            offset(pointer(x), sample), start, min(TILE, size - start), size, stride, before, after,
            pointer(settings), pointer(r), pointer(p), offset(pointer(y), sample), stream,
        )  # fmt: skip
    if stream:
        fence()


@primitive
def _terms(dy, x, n, beta, r, g, t):
    """g = dy * r ** beta, t = g * x * r"""
    _power(r, n, beta, g)
    for i in range(n):
        g[i] = element(dy, i) * g[i]
    for i in range(n):
        t[i] = g[i] * element(x, i) * r[i]


@primitive
def _gradient_tile(x, t, start, n, size, stride, before, after, slope, sums, g, dx, stream):
    """dx = g - slope * x * (sum of t over the window)"""
    _window_sums(t, start, n, size, stride, before, after, sums)
    for i in range(n):
        sums[i] = g[i] - slope * element(x, i) * sums[i]
    copy_run(sums, n, dx, stream)


@primitive
def _backward_columns(
    dy, x, channels, stride, first, width, before, after, settings, r, g, t, dx, stream
):  # fmt: skip
    """dx of the `width` elements from `first` of every channel of a sample.

    g and t hold them one channel after the other. Where that is how they lie in x too, a tile may
    go over several channels.
    """
    size, own, usual = channels * stride, channels * width, True
    step = TILE if width == stride else width
    for start in range(0, own, step):
        i, n = start // width * stride + first + start % width, min(step, own - start)
        _reciprocals(x, i, n, size, stride, before, after, settings, r)
        usual &= _all_usual(x, r, n)
        _terms(offset(dy, i), offset(x, i), n, settings[2], r, offset(g, start), offset(t, start))
    kept = np.empty(0 if usual else 2 * own)  # dx may be dy or x
    for i in range(len(kept) // 2):
        k = i // width * stride + first + i % width
        kept[i], kept[own + i] = np.float64(element(dy, k)), np.float64(element(x, k))
    for start in range(0, own, step):  # an element of x comes in the windows the other way round
        i, n = start // width * stride + first + start % width, min(step, own - start)
        _gradient_tile(
            offset(x, i), t, start, n, own, width, after, before, settings[3], r, offset(g, start),
            offset(dx, i), stream,
        )  # fmt: skip
    if not usual:
        _mend_columns(
            kept, x, channels, stride, first, width, before, after,
            settings, r, dx, stream,
        )  # fmt: skip


@loop
def backward(b, dy, x, outer, channels, stride, width, block, before, after, settings, dx, stream):
    """dx = dy / d**beta - slope * x * (sum of dy * x / d**(beta + 1) over the windows x is in).

    settings: scale, k, beta, slope. A width below the stride must not be above TILE.
    """
    parts, size = -(-stride // width), channels * stride
    r = np.empty(TILE, dtype_of(settings))
    terms = np.empty(2 * channels * width, dtype_of(settings))
    for j in range(b * block, min((b + 1) * block, outer * parts)):
        sample, first = j // parts * size, j % parts * width
        _backward_columns(
            offset(pointer(dy), sample), offset(pointer(x), sample), channels, stride, first,
            min(width, stride - first), before, after, pointer(settings), pointer(r), pointer(terms),
            offset(pointer(terms), channels * width), offset(pointer(dx), sample), stream,
        )  # fmt: skip
    if stream:
        fence()
