"""Kernels of local response normalization, over an array seen as (outer, channels, inner).

They take *columns*: `width` neighbouring elements of every channel of a sample, one channel after the other.
A window is a sum over elements `stride` apart, in the order of the channels: the bits of an element depend
on no neighbour, no piece and no layout. Settings (scale, k, beta, slope) and scratch memory are in the
dtype of the arithmetic.
"""

import math
from typing import NamedTuple

import numpy as np

from .fusion import copy_run
from .jit import loop, primitive
from .loops import each, sums
from .pointers import as_element, dtype_of, element, fence, largest, offset, pointer
from .roots import reciprocal_fourth_root
from .tracing import step
from .tuning import WINDOW_TILE as TILE
from .vectors import fma, repeated, where


class Columns(NamedTuple):
    """`width` elements from `first` of each of the channels, which lie `stride` apart in a sample."""

    channels: int
    stride: int
    first: int
    width: int


class Window(NamedTuple):
    """How many channels it has beside its own; `padded`: zeros lie where it goes beyond the sample."""

    before: int
    after: int
    padded: bool


@primitive
def _place(q, columns):
    """Where element q of the columns lies in the sample"""
    return q // columns.width * columns.stride + columns.first + q % columns.width


@primitive
def _part(j, columns):
    """Where the sample of part j begins, and its columns; columns: channels, stride, width of most parts"""
    channels, stride, width = columns
    parts = -(-stride // width)
    first = j % parts * width
    return j // parts * channels * stride, Columns(channels, stride, first, min(width, stride - first))


@primitive
def _tile(columns):
    """Elements of the columns that are taken together: of several channels where these are neighbours"""
    if columns.width < columns.stride:
        return columns.width
    return min(TILE, columns.channels * columns.width)


@primitive
def _alike(start, end, columns, window):
    """How many elements from `start` on have equally many channels in their windows; where such a window
    begins, relative to its element, and how many channels it has"""
    before, after, padded = window
    channel, last = start // columns.stride, columns.channels - 1
    low, high = min(before, channel), min(after, last - channel)
    if padded:
        low, high = before, after
    elif low == before and high == after:
        end = min(end, (last + 1 - after) * columns.stride)
    else:
        end = min(end, (channel + 1) * columns.stride)
    return end - start, -low * columns.stride, low + 1 + high


def _with_square(total, value):
    return fma(value, value, total)


def _denominator(i, d, x, low, channels, stride, settings):
    """d = k + scale * (sum of x² over the window); the channel after that is on its way"""
    scale, k = settings
    first = i + low
    x.prefetch(first + channels * stride, 1)
    squares = repeated(
        channels - 1,
        x[first] * x[first],
        lambda j, total: _with_square(total, x[first + (j + 1) * stride]),
    )
    d[i.cached] = value = fma(squares, scale, k)
    return value


@step
def _denominators(i, d, x, low, channels, stride, settings):
    _denominator(i, d, x, low, channels, stride, settings)


def _terms(i, g, dy, x, p, r, t):
    """g = dy * p and, if it is wanted, t = g * x * r"""
    g[i] = gradient = dy[i] * p
    if t is not None:
        t[i] = gradient * x[i] * r


@step
def _terms_of_roots(i, g, dy, x, d, low, channels, stride, settings, quarters, t):
    root = reciprocal_fourth_root(_denominator(i, d, x, low, channels, stride, settings))
    if t is not None:
        dy.prefetch(i + stride, 1)
    square = root * root
    _terms(i, g, dy, x, repeated(quarters - 1, root, lambda _, p: p * root), square * square, t)


@step
def _terms_of_powers(i, g, dy, x, p, r, t):
    _terms(i, g, dy, x, p[i], r[i], t)


@step
def _outside(i, count, d, least, most):
    """How many are not between the least and the most; NaN stays what it is"""
    value, more = d[i], count[0] + 1.0
    return (where(value < least, more, where(value > most, more, count[0])),)


@primitive
def _most(x):
    """Beyond this, and below its reciprocal, d may have lost squares to the range of the arithmetic of x"""
    return 1e25 if largest(x) < 1e300 else 1e280


@primitive
def _usual(x, d):
    return not (d < 1.0 / _most(x) or d > _most(x))


@primitive
def _all_usual(d, n):
    """Whether no element of d is out of range"""
    return sums(1, n, _outside, d, as_element(d, 1.0 / _most(d)), as_element(d, _most(d)))[0] == 0.0


@primitive
def _tile_terms(dy, x, start, n, columns, window, settings, d, g, t, stream):
    """g = dy * d ** -beta and, if it is wanted, t = g * x / d, of the n elements from `start` of a sample

    Gives whether all of d are usual.
    """
    i, beta, constants = 0, settings[2], (settings[0], settings[1])
    p, r = offset(d, TILE), offset(d, 2 * TILE)
    fast = beta == 0.75 or beta == 0.5 or beta == 1.0 or beta == 0.25
    quarters = int(4 * beta) if fast else 0
    while i < n:
        m, low, channels = _alike(start + i, start + n, columns, window)
        own, to = offset(x, start + i), offset(d, i)
        if fast:
            each(
                m, stream, _terms_of_roots, offset(g, i), offset(dy, start + i), own, to,
                low, channels, columns.stride, constants, quarters, offset(t, i),
            )  # fmt: skip
        else:
            each(m, None, _denominators, to, own, low, channels, columns.stride, constants)
        i += m
    if not fast:
        unit = as_element(d, 1.0)
        for i in range(n):
            r[i] = unit / d[i]
            p[i] = r[i] ** beta
        each(n, stream, _terms_of_powers, g, offset(dy, start), offset(x, start), p, r, t)
    return _all_usual(d, n)


@primitive
def _root(x, i, columns, window, settings):
    """1 / sqrt(k + scale * (sum of x² over the window)) of element i, in float64; scaled before squaring"""
    scale, k, stride = np.float64(settings[0]), np.float64(settings[1]), columns.stride
    first = max(i % stride, i - window.before * stride)
    end = min(columns.channels * stride, i + window.after * stride + 1)
    top = math.sqrt(abs(k))
    for j in range(first, end, stride):
        top = max(top, abs(np.float64(element(x, j))))
    unit = 1.0
    if top < np.inf:
        unit = math.ldexp(1.0, min(max(-math.frexp(top)[1], -1000), 1000))
    q = 0.0
    for j in range(first, end, stride):
        q += (np.float64(element(x, j)) * unit) ** 2
    return 1.0 / math.sqrt(k * unit * unit + scale * q) * unit


@primitive
def _forward_columns(x, columns, window, settings, d, y, stream):
    own, tile, beta = columns.channels * columns.width, _tile(columns), np.float64(settings[2])
    for q in range(0, own, tile):
        start, n = _place(q, columns), min(tile, own - q)
        if _tile_terms(x, x, start, n, columns, window, settings, d, offset(y, start), None, stream):
            continue
        for i in range(n):  # x * root ** (2 * beta), of which neither factor need be in range
            if not _usual(x, d[i]):
                root = _root(x, start + i, columns, window, settings)
                value = np.float64(element(x, start + i)) * root * root ** (2.0 * beta - 1.0)
                d[TILE] = as_element(d, value)
                copy_run(offset(d, TILE), 1, offset(y, start + i), stream)


@loop
def forward(b, x, outer, columns, block, window, settings, y, stream):
    """y = x / (k + scale * (sum of x² over the window)) ** beta

    A width below the stride must not be above TILE.
    """
    channels, stride, width = columns
    size, zeros, window = channels * stride, window[0] * stride, Window(*window)
    padded = np.zeros(size + 2 * zeros if window.padded else 0, dtype_of(x))
    scratch = np.empty(3 * TILE, dtype_of(settings))
    for j in range(b * block, min((b + 1) * block, outer * -(-stride // width))):
        sample, part = _part(j, columns)
        own, to = offset(pointer(x), sample), offset(pointer(y), sample)
        if window.padded:
            copy_run(own, size, offset(pointer(padded), zeros), None)
            own = offset(pointer(padded), zeros)
        _forward_columns(own, part, window, pointer(settings), pointer(scratch), to, stream)
    if stream:
        fence()


@step
def _gradient(i, dx, g, x, t, channels, stride, slope):
    """dx = g - slope * x * (sum of t over the window)"""
    felt = repeated(channels - 1, t[i], lambda j, total: total + t[i + (j + 1) * stride])
    dx[i] = g[i] - slope * x[i] * felt


@step
def _clear(i, t):
    t[i] = 0.0


@primitive
def _mend(dy, x, columns, window, settings, d, dx, stream):
    """dx = g - slope * (sum of x * root * t), t = g * x * root, over the windows that are not in range"""
    last, stride = columns.channels - 1, columns.stride
    beta, slope = np.float64(settings[2]), np.float64(settings[3])
    for q in range(columns.channels * columns.width):
        c, i, usual, felt = q // columns.width, _place(q, columns), True, 0.0
        first, end = i - min(c, window.after) * stride, i + min(last - c, window.before) * stride + 1
        for j in range(first, end, stride):
            root = _root(x, j, columns, window, settings)
            usual &= _usual(x, root * root)
            g = np.float64(element(dy, j)) * root**beta * root**beta
            felt += np.float64(element(x, i)) * root * (g * (np.float64(element(x, j)) * root))
        if not usual:
            power = _root(x, i, columns, window, settings) ** beta
            d[0] = as_element(d, np.float64(element(dy, i)) * power * power - slope * felt)
            copy_run(d, 1, offset(dx, i), stream)


@primitive
def _backward_columns(dy, x, columns, window, settings, d, g, t, room, dx, stream):
    """dx of columns; g and t have room for some of their channels, element `base` and what follows. Of t a
    channel that does not exist is 0."""
    width, own, tile, usual = columns.width, columns.channels * columns.width, _tile(columns), True
    lag, base = window.before * width, -window.after * width
    each(-base, None, _clear, t)
    for start in range(0, own + lag, tile):
        oldest, n = start - lag - window.after * width, max(0, min(tile, own - start))
        if start + tile - base > room:
            copy_run(offset(g, oldest - base), start - oldest, g, None)
            copy_run(offset(t, oldest - base), start - oldest, t, None)
            base = oldest
        to = offset(g, start - base), offset(t, start - base)
        usual &= _tile_terms(dy, x, _place(start, columns), n, columns, window, settings, d, *to, None)
        each(tile - n, None, _clear, offset(t, start + n - base))
        q = max(0, start - lag)  # an element of x comes in the windows the other way round
        n, i, felt = min(own, start + tile - lag) - q, _place(q, columns), q - window.after * width - base
        each(
            n, stream, _gradient, offset(dx, i), offset(g, q - base), offset(x, i),
            offset(t, felt), window.before + 1 + window.after, width, settings[3],
        )  # fmt: skip
    if not usual:
        _mend(dy, x, columns, window, settings, d, dx, stream)


@loop
def backward(b, dy, x, outer, columns, block, window, room, settings, dx, stream):
    """dx = dy / d**beta - slope * x * (sum of dy * x / d**(beta + 1) over the windows x is in)

    As `forward`; dx must not be dy or x.
    """
    channels, stride, width = columns
    size, zeros, window = channels * stride, window[0] * stride, Window(*window)
    padded = np.zeros(size + 2 * zeros if window.padded else 0, dtype_of(x))
    scratch = np.empty(3 * TILE, dtype_of(settings))
    terms = np.empty(2 * room, dtype_of(settings))  # lives while its pointer is taken in the loop
    for j in range(b * block, min((b + 1) * block, outer * -(-stride // width))):
        sample, part = _part(j, columns)
        own, to = offset(pointer(x), sample), offset(pointer(dx), sample)
        if window.padded:
            copy_run(own, size, offset(pointer(padded), zeros), None)
            own = offset(pointer(padded), zeros)
        _backward_columns(
            offset(pointer(dy), sample), own, part, window, pointer(settings), pointer(scratch),
            pointer(terms), offset(pointer(terms), room), room, to, stream,
        )  # fmt: skip
    if stream:
        fence()
