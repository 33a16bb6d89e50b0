"""Kernels of local response normalization, over an array seen as (outer, channels, inner).

They take *columns*: `width` neighbouring elements of every channel of a sample, one channel after the other.
A window is a sum over elements `stride` apart, in the order of the channels: the bits of an element depend
on no neighbour, no piece and no layout. Settings and scratch memory are in the dtype of the arithmetic.
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
    """`width` elements from `first` of each of the channels, which lie `stride` apart in a sample.

    A window has channels `before` and `after` its own; `padded`: zeros lie where it goes beyond the sample.
    """

    channels: int
    stride: int
    first: int
    width: int
    before: int
    after: int
    padded: bool


class Settings(NamedTuple):
    """Of d = k + scale * (sum of x²) and d ** -beta; slope = 2 * beta * scale, quarters = 4 * beta or 0."""

    scale: float
    k: float
    beta: float
    slope: float
    quarters: int


class Terms(NamedTuple):
    """Room for d and two other tiles; g = dy * d ** -beta; t = g * x / d, which may be None."""

    d: object
    g: object
    t: object


@primitive
def _settings(settings):
    """The record of an array; quarters: that beta of them needs roots only."""
    beta = settings[2]
    rooted = beta == 0.25 or beta == 0.5 or beta == 0.75 or beta == 1.0
    return Settings(settings[0], settings[1], beta, settings[3], int(4 * beta) if rooted else 0)


@primitive
def _columns(j, shape, window):
    """Where the sample of part j begins, and its columns; shape: channels, stride, width of most parts."""
    channels, stride, width = shape
    before, after, padded = window
    parts = -(-stride // width)
    first = j % parts * width
    own = Columns(channels, stride, first, min(width, stride - first), before, after, padded)
    return j // parts * channels * stride, own


@primitive
def _position(q, columns):
    """Where element q of the columns lies in the sample."""
    return q // columns.width * columns.stride + columns.first + q % columns.width


@primitive
def _tile(columns):
    """Elements of the columns that are taken together: of several channels where these are neighbours."""
    if columns.width < columns.stride:
        return columns.width
    return min(TILE, columns.channels * columns.width)


@primitive
def _alike(start, end, columns):
    """How many elements from `start` on have equally many channels in their windows; where such a window
    begins, relative to its element, and how many channels it has."""
    before, after, stride = columns.before, columns.after, columns.stride
    channel, last = start // stride, columns.channels - 1
    low, high = min(before, channel), min(after, last - channel)
    if columns.padded:
        low, high = before, after
    elif low == before and high == after:
        end = min(end, (last + 1 - after) * stride)
    else:
        end = min(end, (channel + 1) * stride)
    return end - start, -low * stride, low + 1 + high


def _denominator(i, d, x, window, settings):
    """d = k + scale * (sum of x² over the window); the channel after that is on its way.

    window: where it begins, how many channels it has, and how far they lie apart.
    """
    low, channels, stride = window
    first = i + low
    x.prefetch(first + channels * stride, 1)

    def with_square(j, total):
        value = x[first + (j + 1) * stride]
        return fma(value, value, total)

    squares = repeated(channels - 1, x[first] * x[first], with_square)
    d[i.cached] = value = fma(squares, settings.scale, settings.k)
    return value


@step
def _denominators(i, d, x, window, settings):
    _denominator(i, d, x, window, settings)


def _write_terms(i, g, dy, x, p, r, t):
    g[i] = gradient = dy[i] * p
    if t is not None:
        t[i] = gradient * x[i] * r


@step
def _terms_of_roots(i, g, dy, x, d, window, settings, t):
    root = reciprocal_fourth_root(_denominator(i, d, x, window, settings))
    if t is not None:
        dy.prefetch(i + window[2], 1)
    square = root * root
    power = repeated(settings.quarters - 1, root, lambda _, p: p * root)
    _write_terms(i, g, dy, x, power, square * square, t)


@step
def _terms_of_powers(i, g, dy, x, p, r, t):
    _write_terms(i, g, dy, x, p[i], r[i], t)


@step
def _outside(i, count, d, least, most):
    """How many are not between the least and the most; NaN stays what it is."""
    value, more = d[i], count[0] + 1.0
    return (where(value < least, more, where(value > most, more, count[0])),)


@primitive
def _most(x):
    """Beyond this, and below its reciprocal, d may have lost squares to the range of the arithmetic of x."""
    return 1e25 if largest(x) < 1e300 else 1e280


@primitive
def _usual(x, d):
    return not (d < 1.0 / _most(x) or d > _most(x))


@primitive
def _tile_terms(dy, x, start, n, columns, settings, terms, stream):
    """g and t of the n elements from `start` of a sample; gives whether all of d are in range."""
    i, d, p, r = 0, terms.d, offset(terms.d, TILE), offset(terms.d, 2 * TILE)
    while i < n:
        m, low, channels = _alike(start + i, start + n, columns)
        window, own, to = (low, channels, columns.stride), offset(x, start + i), offset(d, i)
        if settings.quarters > 0:
            g, t = offset(terms.g, i), offset(terms.t, i)
            each(m, stream, _terms_of_roots, g, offset(dy, start + i), own, to, window, settings, t)
        else:
            each(m, None, _denominators, to, own, window, settings)
        i += m
    if settings.quarters == 0:
        unit = as_element(d, 1.0)
        for i in range(n):
            r[i] = unit / d[i]
            p[i] = r[i] ** settings.beta
        each(n, stream, _terms_of_powers, terms.g, offset(dy, start), offset(x, start), p, r, terms.t)
    return sums(1, n, _outside, d, as_element(d, 1.0 / _most(d)), as_element(d, _most(d)))[0] == 0.0


@primitive
def _root(x, i, columns, settings):
    """1 / sqrt(k + scale * (sum of x² over the window)) of element i, in float64; scaled before squaring."""
    scale, k, stride = np.float64(settings.scale), np.float64(settings.k), columns.stride
    first = max(i % stride, i - columns.before * stride)
    end = min(columns.channels * stride, i + columns.after * stride + 1)
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
def _mend_outputs(x, start, n, columns, settings, d, y, stream):
    """y = x * root ** (2 * beta), of which neither factor need be in range, where d is not."""
    for i in range(n):
        if not _usual(x, d[i]):
            root = _root(x, start + i, columns, settings)
            value = np.float64(element(x, start + i)) * root
            d[TILE] = as_element(d, value * root ** (2.0 * np.float64(settings.beta) - 1.0))
            copy_run(offset(d, TILE), 1, offset(y, start + i), stream)


@primitive
def _forward_columns(x, columns, settings, d, y, stream):
    tile, own = _tile(columns), columns.channels * columns.width
    for q in range(0, own, tile):
        start, n = _position(q, columns), min(tile, own - q)
        terms = Terms(d, offset(y, start), None)
        if not _tile_terms(x, x, start, n, columns, settings, terms, stream):
            _mend_outputs(x, start, n, columns, settings, d, y, stream)


@primitive
def _between_zeros(x, columns, room):
    """The sample, or its copy in a room of zeros for windows that go beyond it."""
    if not columns.padded:
        return x
    own = offset(room, columns.before * columns.stride)
    copy_run(x, columns.channels * columns.stride, own, None)
    return own


@primitive
def _room_with_zeros(shape, window):
    """Elements of a sample with zeros around it; 0 where windows are not padded."""
    return (shape[0] + 2 * window[0]) * shape[1] if window[2] else 0


@loop
def forward(b, x, outer, shape, block, window, settings, y, stream):
    """y = x / (k + scale * (sum of x² over the window)) ** beta

    shape, window: as for `_columns`; a width below the stride must not be above TILE.
    """
    padded = np.zeros(_room_with_zeros(shape, window), dtype_of(x))
    scratch = np.empty(3 * TILE, dtype_of(settings))
    for j in range(b * block, min((b + 1) * block, outer * -(-shape[1] // shape[2]))):
        sample, columns = _columns(j, shape, window)
        own = _between_zeros(offset(x, sample), columns, pointer(padded))
        _forward_columns(own, columns, _settings(settings), pointer(scratch), offset(y, sample), stream)
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
def _mend_gradients(dy, x, columns, settings, d, dx, stream):
    """dx = g - slope * (sum of x * root * t), t = g * x * root, where a d of the window is not in range."""
    channels, stride, beta = columns.channels, columns.stride, np.float64(settings.beta)
    roots, gradients = np.empty(channels), np.empty(channels)
    for position in range(columns.first, columns.first + columns.width):
        for c in range(channels):
            j = c * stride + position
            roots[c] = root = _root(x, j, columns, settings)
            gradients[c] = np.float64(element(dy, j)) * root**beta * root**beta
        for c in range(channels):
            i, usual, felt = c * stride + position, True, 0.0
            for j in range(max(0, c - columns.after), min(channels, c + columns.before + 1)):
                root = roots[j]
                usual &= _usual(x, root * root)
                t = gradients[j] * (np.float64(element(x, j * stride + position)) * root)
                felt += np.float64(element(x, i)) * root * t
            if not usual:
                d[0] = as_element(d, gradients[c] - np.float64(settings.slope) * felt)
                copy_run(d, 1, offset(dx, i), stream)


@primitive
def _backward_columns(dy, x, columns, settings, terms, room, dx, stream):
    """dx of columns; g and t have room for some of their channels, element `base` and what follows. Of t a
    channel that does not exist is 0."""
    d, g, t = terms
    width, own, tile, usual = columns.width, columns.channels * columns.width, _tile(columns), True
    lag, base = columns.before * width, -columns.after * width
    each(-base, None, _clear, t)
    for start in range(0, own + lag, tile):
        oldest, n = start - lag - columns.after * width, max(0, min(tile, own - start))
        if start + tile - base > room:
            copy_run(offset(g, oldest - base), start - oldest, g, None)
            copy_run(offset(t, oldest - base), start - oldest, t, None)
            base = oldest
        to = Terms(d, offset(g, start - base), offset(t, start - base))
        usual &= _tile_terms(dy, x, _position(start, columns), n, columns, settings, to, None)
        each(tile - n, None, _clear, offset(t, start + n - base))
        q = max(0, start - lag)  # an element of x comes in the windows the other way round
        n, i, felt = min(own, start + tile - lag) - q, _position(q, columns), q - columns.after * width - base
        each(
            n, stream, _gradient, offset(dx, i), offset(g, q - base), offset(x, i), offset(t, felt),
            columns.before + 1 + columns.after, width, settings.slope,
        )  # fmt: skip
    if not usual:
        _mend_gradients(dy, x, columns, settings, d, dx, stream)


@loop
def backward(b, dy, x, outer, shape, block, window, room, settings, dx, stream):
    """dx = dy / d**beta - slope * x * (sum of dy * x / d**(beta + 1) over the windows x is in)

    As `forward`; dx must not be dy or x.
    """
    padded = np.zeros(_room_with_zeros(shape, window), dtype_of(x))
    scratch, kept = np.empty(3 * TILE, dtype_of(settings)), np.empty(2 * room, dtype_of(settings))
    for j in range(b * block, min((b + 1) * block, outer * -(-shape[1] // shape[2]))):
        sample, columns = _columns(j, shape, window)
        own = _between_zeros(offset(x, sample), columns, pointer(padded))
        terms = Terms(pointer(scratch), pointer(kept), offset(pointer(kept), room))
        gradient = offset(dx, sample)
        _backward_columns(
            offset(dy, sample), own, columns, _settings(settings), terms, room, gradient, stream
        )
    if stream:
        fence()
