"""Normalization to call from your own ``@njit`` code: one row or channel at a time, without Python.

All take C-contiguous arrays of float32 or float64: a row is one-dimensional (``x[i]`` of a C-ordered array,
or ``x.ravel()``), channels lie in an array of three axes (outer, channels, inner), such as
``images.reshape(N, C, H * W)``. They compute in the dtype of x with statistics in float64 and allocate
nothing, so that they may be called from every iteration of a ``prange``. They are compiled into the
caller. A row gives the same bits as in the public functions, a channel the same values. A ValueError raised
inside a ``prange`` reaches Python as numba's SystemError: check shapes before the loop. Arrays of other
types, and read-only ones that are to be written, are numba's TypingError when your code is compiled.

>>> import numba, numpy as np
>>> from normkernels import jit
>>> @numba.njit(parallel=True)
... def scores(images, out):
...     for i in numba.prange(len(images)):
...         mean, var = jit.moments(images[i])
...         jit.standardize(images[i], mean, jit.reciprocal_sd(var, 0.0), out[i])
>>> x = np.array([[0.0, 4.0], [1.0, 3.0]])
>>> scores(x, y := np.empty_like(x))
>>> y
array([[-1.,  1.],
       [-1.,  1.]])
"""

from typing import Any

from . import _formulas
from .cpu.argument_types import require_alike, require_channels, require_row, require_writeable
from .cpu.channel_primitives import (
    dot_constants,
    forward_constants,
    gradient_constants,
    normalize_run,
    run_gradient,
    tile_dots,
)
from .cpu.extremes import group_statistics
from .cpu.fusion import tile_on_stack
from .cpu.jit import callable_from_python
from .cpu.primitives import centring, merge, tile_bounds, tile_count, tile_moments
from .cpu.row_primitives import normalize_row, row_gradient, row_moments, row_squares, rows_sums
from .cpu.vectors import as_element, offset, pointer

__all__ = [
    "channel_gradient",
    "channel_moments",
    "channel_sums",
    "layer_norm",
    "layer_norm_gradient",
    "moments",
    "normalize",
    "normalize_channel",
    "reciprocal_sd",
    "rms_norm",
    "standardize",
]

reciprocal_sd = callable_from_python(_formulas.reciprocal_sd)


@callable_from_python
def _check(x: Any) -> None:
    require_row(x)
    if len(x) > 1 and x.strides[0] != x.itemsize:
        raise ValueError("arrays must be contiguous")


@callable_from_python
def _check_beside(x: Any, other: Any) -> None:
    if other is None:
        return
    require_alike(x, other)
    if len(other) > 1 and other.strides[0] != other.itemsize:
        raise ValueError("arrays must be contiguous")
    if len(other) < len(x):
        raise ValueError("the other arrays must be as long as x")


@callable_from_python
def _check_written(x: Any, out: Any) -> None:
    require_writeable(out)
    _check_beside(x, out)


@callable_from_python
def moments(x: Any) -> Any:
    """Mean and population variance of a row, in float64.

    Parameters
    ----------
    x : array, shape (n,), contiguous, n at least 1

    Returns
    -------
    mean, var : float
        As `normkernels.moments` has them, to the bit.

    Raises
    ------
    ValueError
        If x is not contiguous or empty.
    """
    _check(x)
    if len(x) == 0:
        raise ValueError("moments needs at least one element")
    n = len(x)
    mean, m2 = row_moments(pointer(x), n)
    mean, var, _ = group_statistics(pointer(x), 1, 0, n, 0.0, True, mean, m2 / n)
    return mean, var


@callable_from_python
def normalize(x: Any, mean: Any, rstd: Any, weight: Any, bias: Any, out: Any) -> None:
    """``out = (x - mean) * rstd * weight + bias`` with a weight and a bias for every element.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x. A bias may be None.
    mean, rstd : float
        Of the row, in float64: the mean keeps digits that its rounding to float32 would lose.

    Raises
    ------
    ValueError
        If an array is not contiguous, or shorter than x.
    """
    _check(x)
    _check_beside(x, weight)
    _check_beside(x, bias)
    _check_written(x, out)
    w, b, y = pointer(weight), pointer(bias), pointer(out)
    normalize_row(pointer(x), len(x), mean, rstd, w, b, None, y, False)


@callable_from_python
def standardize(x: Any, mean: Any, rstd: Any, out: Any) -> None:
    """``out = (x - mean) * rstd``.

    Parameters
    ----------
    x, out : array, shape (n,), contiguous, of one dtype
        out may be x.
    mean, rstd : float
        Of the row, in float64.

    Raises
    ------
    ValueError
        If an array is not contiguous, or out shorter than x.
    """
    _check(x)
    _check_written(x, out)
    hi, lo, scale = centring(pointer(x), mean, rstd, 1.0)
    normalize_run(pointer(x), len(x), (hi, scale, lo), None, None, pointer(out), False)


@callable_from_python
def layer_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any) -> None:
    """Layer norm of one row: `moments`, then `normalize` with ``rstd = 1/sqrt(var + eps)``.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If an array is not contiguous, x is empty, or another array shorter than x.
    """
    mean, var = moments(x)
    mean, _, rstd = group_statistics(pointer(x), 1, 0, len(x), eps, True, mean, var)
    normalize(x, mean, rstd, weight, bias, out)


@callable_from_python
def rms_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any) -> None:
    """RMS norm of one row: ``out = x / sqrt(mean(x²) + eps) * weight + bias``.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x. RMS norm as published has a bias of None.
    eps : float
        Added to the mean square.

    Raises
    ------
    ValueError
        If an array is not contiguous, x is empty, or another array shorter than x.
    """
    _check(x)
    if len(x) == 0:
        raise ValueError("rms_norm needs at least one element")
    n = len(x)
    m2 = row_squares(pointer(x), n)
    mean, _, rstd = group_statistics(pointer(x), 1, 0, n, eps, False, 0.0, m2 / n)
    normalize(x, mean, rstd, weight, bias, out)


@callable_from_python
def layer_norm_gradient(
    dy: Any, x: Any, mean: Any, rstd: Any, weight: Any, dweight: Any, dbias: Any, out: Any
) -> None:
    """Backward of `layer_norm` for one row: ``out = dx``, ``dweight += dy * x_hat``, ``dbias += dy``.

    With ``wdy = weight * dy``: ``dx = (wdy - x_hat * mean(x_hat * wdy) - mean(wdy)) * rstd``.

    Parameters
    ----------
    dy, x, weight, dweight, dbias, out : array, shape (n,), contiguous, of one dtype
        out may be dy or x. Give every thread a dweight and a dbias of its own, and add them up.
    mean, rstd : float
        Of the row, in float64.

    Raises
    ------
    ValueError
        If an array is not contiguous, or shorter than x.
    """
    _check(x)
    _check_beside(x, dy)
    _check_beside(x, weight)
    _check_written(x, dweight)
    _check_written(x, dbias)
    _check_written(x, out)
    a, n = tile_on_stack(pointer(x)), len(x)
    a[0], a[1], a[2] = centring(pointer(x), mean, rstd if n > 1 else 0.0, 1.0)
    g, w, dw, db = pointer(dy), pointer(weight), pointer(dweight), pointer(dbias)
    c1, c2, _, _ = rows_sums(g, pointer(x), n, 0, a, w, None, None, None, dw, db)
    a[3], a[4] = as_element(a, c1 / n), as_element(a, c2 / n)
    row_gradient(g, pointer(x), n, a, w, None, pointer(out), False)


@callable_from_python
def _check_channels(x: Any, c: Any) -> None:
    require_channels(x, c)
    if not x.flags.c_contiguous:
        raise ValueError("arrays must be contiguous with the axes (outer, channels, inner)")
    if not 0 <= c < x.shape[1]:
        raise ValueError("c must be the number of a channel")


@callable_from_python
def _check_alike(x: Any, other: Any) -> None:
    require_alike(x, other)
    if other.shape != x.shape or not other.flags.c_contiguous:
        raise ValueError("dy and out must be contiguous and have the shape of x")


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
    """
    _check_channels(x, c)
    outer, channels, inner = x.shape
    if outer * inner == 0:
        raise ValueError("channel_moments needs at least one element in a channel")
    count = origin = mean = m2 = 0.0
    for t in range(tile_count(outer, inner)):
        run, runs, first, n = tile_bounds(t, outer, inner)
        tile = offset(pointer(x), (run * channels + c) * inner + first)
        count_t, pivot, mean_t, m2_t = tile_moments(tile, runs, channels * inner, n)
        if t == 0:
            count, origin, mean, m2 = count_t, pivot, mean_t, m2_t
        else:
            mean, m2 = merge(count, mean, m2, count_t, (pivot - origin) + mean_t, m2_t)
            count += count_t
    run, stride = offset(pointer(x), c * inner), channels * inner
    mean, var, _ = group_statistics(run, outer, stride, inner, 0.0, True, origin + mean, m2 / count)
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
    """
    _check_channels(x, c)
    require_writeable(out)
    _check_alike(x, out)
    outer, channels, inner = x.shape
    a = tile_on_stack(pointer(x))
    forward_constants(a, mean, rstd, weight, bias, a, 1)
    for i in range(outer):
        k = (i * channels + c) * inner
        normalize_run(offset(pointer(x), k), inner, a, None, None, offset(pointer(out), k), False)


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
    """
    _check_channels(x, c)
    _check_alike(x, dy)
    outer, channels, inner = x.shape
    a = tile_on_stack(pointer(x))
    dot_constants(a, mean, rstd, 1.0, 0.0, a, None, 1)
    dweight = dbias = 0.0
    for t in range(tile_count(outer, inner) if x.size else 0):
        run, runs, first, n = tile_bounds(t, outer, inner)
        k = (run * channels + c) * inner + first
        dy_tile, x_tile = offset(pointer(dy), k), offset(pointer(x), k)
        sums = tile_dots(dy_tile, x_tile, runs, channels * inner, n, a[0], a[1], None, None, None, None)
        dweight += sums[0]
        dbias += sums[1]
    return dweight + (a[0] - mean) * a[1] * dbias, dbias


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
    """
    _check_channels(x, c)
    _check_alike(x, dy)
    require_writeable(out)
    _check_alike(x, out)
    outer, channels, inner = x.shape
    a, m = tile_on_stack(pointer(x)), outer * inner
    gradient_constants(a, mean, rstd, weight, dweight / m, dbias / m, True, a, 1)
    for i in range(outer):
        k = (i * channels + c) * inner
        dy_run, x_run = offset(pointer(dy), k), offset(pointer(x), k)
        run_gradient(dy_run, x_run, inner, a, None, offset(pointer(out), k), False)
