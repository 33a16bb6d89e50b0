"""Kernels of local response normalization, over an array seen as (outer, channels, inner).

A thread walks from vector to vector (`walks.Walk`), most often from channel to channel, where it finds what
it read before for another window in the cache next to it. Every element is summed by itself, in the order
of the channels.
"""

from .column_primitives import power, square_root
from .jit import kernel, primitive
from .primitives import block, load, offset, store, thread, zeros


@primitive
def _start(rows, width, length, pieces, form):
    """The first element of a thread, and how many rows it takes."""
    vectors, piece = width // form.lanes, block() % pieces
    own = block() // pieces * form.block + thread()
    e = (own // vectors * rows + piece * length) * width + own % vectors * form.lanes
    return e, min(length, rows - piece * length)


@primitive
def _onwards(place, channel, across, over, inner, channels):
    """Place within a channel, and channel, of the element in the next row."""
    place, channel = place + across, channel + over
    if place >= inner:
        place, channel = place - inner, channel + 1
    if channel >= channels:
        channel -= channels
    return place, channel


@primitive
def _powered(r, beta):
    """r ** beta"""
    if beta == 0.75:
        root = square_root(r)
        return root * square_root(root)
    if beta == 0.5:
        return square_root(r)
    if beta == 1.0:
        return r
    return power(r, beta)


@primitive
def _reciprocal(x, e, total, inner, first, last, scale, k, form):
    """1 / (k + scale * (sum of x² over the channels first..last)), relative to that of element e"""
    sums = zeros(x, form)
    for o in range(first, last + 1):
        h = load(x, e + o * inner, total, form)
        sums = sums + h * h
    return 1.0 / (sums * scale + k)


@primitive
def _window_sum(t, e, total, inner, first, last, form):
    sums = zeros(t, form)
    for o in range(first, last + 1):
        sums = sums + load(t, e + o * inner, total, form)
    return sums


@kernel
def forward(
    x, total, channels, inner, rows, width, length, pieces, across, over, before, after, scale, k, beta, y,
    form,
):  # fmt: skip
    """y = x / (k + scale * (sum of x² over the window)) ** beta"""
    e, n = _start(rows, width, length, pieces, form)
    place, c = e % inner, e // inner % channels
    for _ in range(n):
        if e < total:
            r = _reciprocal(x, e, total, inner, -min(before, c), min(after, channels - 1 - c), scale, k, form)
            store(y, e, total, form, load(x, e, total, form) * _powered(r, beta))
        e += width
        place, c = _onwards(place, c, across, over, inner, channels)


@kernel
def terms(
    dy, x, begin, total, channels, inner, rows, width, length, pieces, across, over, before, after, scale, k,
    beta, g, t, form,
):  # fmt: skip
    """g = dy / d**beta, t = g * x / d, d = k + scale * (sum of x² over the window), from `begin` on."""
    dy, x = offset(dy, begin), offset(x, begin)
    e, n = _start(rows, width, length, pieces, form)
    place, c = e % inner, e // inner % channels
    for _ in range(n):
        if e < total:
            r = _reciprocal(x, e, total, inner, -min(before, c), min(after, channels - 1 - c), scale, k, form)
            g_e = load(dy, e, total, form) * _powered(r, beta)
            store(g, e, total, form, g_e)
            store(t, e, total, form, g_e * load(x, e, total, form) * r)
        e += width
        place, c = _onwards(place, c, across, over, inner, channels)


@kernel
def gradient(
    g, t, x, begin, total, channels, inner, rows, width, length, pieces, across, over, before, after, slope,
    dx, form,
):  # fmt: skip
    """dx = g - slope * x * (sum of t over the windows that x is in), from `begin` on."""
    x, dx = offset(x, begin), offset(dx, begin)
    e, n = _start(rows, width, length, pieces, form)
    place, c = e % inner, e // inner % channels
    for _ in range(n):
        if e < total:  # an element is in the windows the other way round
            felt = _window_sum(t, e, total, inner, -min(after, c), min(before, channels - 1 - c), form)
            d = load(g, e, total, form) - load(x, e, total, form) * slope * felt
            store(dx, e, total, form, d)
        e += width
        place, c = _onwards(place, c, across, over, inner, channels)
