"""Channels of arrays (outer, channels, inner)."""

from typing import Any

from ..cpu.channel_primitives import (
    dot_constants,
    gradient_constants,
    normalize_run,
    output_constants,
    run_dots,
    run_gradient,
)
from ..cpu.extremes import group_statistics
from ..cpu.jit import callable_from_python
from ..cpu.pointers import offset
from ..cpu.primitives import merge, tile_bounds, tile_count, tile_moments
from .argument_types import alike, channel, channels_of, number, written_alike


@callable_from_python
def channel_moments(x: Any, c: Any) -> Any:
    """Mean and population variance of channel c, in float64.

    Parameters
    ----------
    x : array, shape (outer, channels, inner), contiguous
        Fast where inner is 32 or more: a channel is then made of whole vectors.
    c : int

    Returns
    -------
    mean, var : float

    Raises
    ------
    ValueError
        If x is not contiguous, a channel has no elements, or there is no channel c.

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> jit.channel_moments(x, 1)
    (20.0, 100.0)
    """
    p, c = channels_of(x), channel(x, c)
    outer, channels, inner = x.shape
    if outer * inner == 0:
        raise ValueError("channel_moments needs at least one element in a channel")
    count = origin = mean = m2 = 0.0
    for t in range(tile_count(outer, inner)):
        run, runs, first, n = tile_bounds(t, outer, inner)
        tile = offset(p, (run * channels + c) * inner + first)
        count_t, pivot, mean_t, m2_t = tile_moments(tile, runs, channels * inner, n)
        if t == 0:
            count, origin, mean, m2 = count_t, pivot, mean_t, m2_t
        else:
            mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
            count += count_t
    stride, var = channels * inner, m2 / count
    mean, var, _ = group_statistics(offset(p, c * inner), outer, stride, inner, 0.0, True, origin + mean, var)
    return mean, var


@callable_from_python
def normalize_channel(x: Any, c: Any, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    """``out = (x - mean) * rstd * weight + bias`` for channel c.

    Parameters
    ----------
    x, out : array, shape (outer, channels, inner), contiguous, of one dtype
        out may be x.
    c : int
    mean, rstd, weight, bias : float
        Of the channel; mean and rstd in float64.

    Raises
    ------
    ValueError
        If an array is not contiguous, the shapes differ, or there is no channel c.

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x = np.array([[[1.0, 3.0], [10.0, 30.0]]])
    >>> jit.normalize_channel(x, 1, 20.0, 0.1, 2.0, 5.0, x)
    >>> x
    array([[[1., 3.],
            [3., 7.]]])
    """
    p, y, c = channels_of(x), written_alike(x, out, "out"), channel(x, c)
    mean, rstd = number(mean, "mean"), number(rstd, "rstd")
    weight, bias = number(weight, "weight"), number(bias, "bias")
    outer, channels, inner = x.shape
    a = output_constants(p, mean, rstd, weight, bias)
    for i in range(outer):
        k = (i * channels + c) * inner
        normalize_run(offset(p, k), inner, a, None, None, offset(y, k), None)


@callable_from_python
def channel_sums(dy: Any, x: Any, c: Any, mean: Any, rstd: Any) -> Any:
    """Sum ``dy * x_hat`` and dy over channel c, in float64: its dweight and dbias.

    Parameters
    ----------
    dy, x : array, shape (outer, channels, inner), contiguous, of one dtype
    c : int
    mean, rstd : float
        Of the channel, in float64.

    Returns
    -------
    dweight, dbias : float

    Raises
    ------
    ValueError
        If an array is not contiguous, the shapes differ, or there is no channel c.

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, dy = np.array([[[1.0, 3.0], [10.0, 30.0]]]), np.array([[[1.0, 2.0], [3.0, 4.0]]])
    >>> jit.channel_sums(dy, x, 1, 20.0, 0.1)
    (1.0, 7.0)
    """
    p, g, c = channels_of(x), alike(x, dy, "dy"), channel(x, c)
    mean, rstd = number(mean, "mean"), number(rstd, "rstd")
    outer, channels, inner = x.shape
    hi, r = dot_constants(p, mean, rstd)
    dweight = dbias = 0.0
    for t in range(tile_count(outer, inner) if x.size else 0):
        run, runs, first, n = tile_bounds(t, outer, inner)
        dot = s = 0.0
        for i in range(run, run + runs):
            k = (i * channels + c) * inner + first
            sums = run_dots(offset(g, k), offset(p, k), n, (hi, r), None, None, None, None)
            dot += sums[0]
            s += sums[1]
        dweight += dot
        dbias += s
    return dweight + (hi - mean) * r * dbias, dbias


@callable_from_python
def channel_gradient(
    dy: Any, x: Any, c: Any, mean: Any, rstd: Any, weight: Any, dweight: Any, dbias: Any, out: Any
) -> None:
    """``out = dx`` of channel c: ``dx = (dy - x_hat * dweight / M - dbias / M) * rstd * weight``.

    M is the number of its elements, outer * inner.

    Parameters
    ----------
    dy, x, out : array, shape (outer, channels, inner), contiguous, of one dtype
        out may be dy or x.
    c : int
    mean, rstd, weight : float
        Of the channel; mean and rstd in float64.
    dweight, dbias : float
        From `channel_sums`.

    Raises
    ------
    ValueError
        If an array is not contiguous, the shapes differ, or there is no channel c.

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, dy = np.array([[[1.0, 3.0], [10.0, 30.0]]]), np.array([[[1.0, 2.0], [3.0, 9.0]]])
    >>> dweight, dbias = jit.channel_sums(dy, x, 1, 20.0, 0.1)
    >>> jit.channel_gradient(dy, x, 1, 20.0, 0.1, 1.0, dweight, dbias, dy)
    >>> dy
    array([[[ 1.0000000e+00,  2.0000000e+00],
            [ 4.4408921e-17, -4.4408921e-17]]])
    """
    p, g, c = channels_of(x), alike(x, dy, "dy"), channel(x, c)
    dx = written_alike(x, out, "out")
    mean, rstd, weight = number(mean, "mean"), number(rstd, "rstd"), number(weight, "weight")
    dweight, dbias = number(dweight, "dweight"), number(dbias, "dbias")
    outer, channels, inner = x.shape
    m = outer * inner
    a = gradient_constants(p, mean, rstd, weight, dweight / m, dbias / m)
    for i in range(outer):
        k = (i * channels + c) * inner
        run_gradient(offset(g, k), offset(p, k), inner, a, None, offset(dx, k), None)
