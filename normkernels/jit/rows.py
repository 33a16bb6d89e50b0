"""Rows: one-dimensional arrays."""

from typing import Any

from ..cpu.channel_primitives import normalize_run
from ..cpu.extremes import group_statistics
from ..cpu.jit import callable_from_python
from ..cpu.primitives import centring
from ..cpu.primitives import reciprocal_sd as _reciprocal_sd
from ..cpu.row_primitives import (
    Affine,
    AffineSums,
    Norm,
    Row,
    gradient_of_row,
    normalize_row,
    row_statistics,
)
from .argument_types import beside, beside_or_none, number, row, written


@callable_from_python
def reciprocal_sd(var: Any, eps: Any) -> Any:
    """``1/sqrt(var + eps)``, and 0 where both are 0, so that a constant row gives 0 and not NaN.

    Parameters
    ----------
    var, eps : float

    Returns
    -------
    float

    Examples
    --------
    >>> from normkernels import jit
    >>> jit.reciprocal_sd(4.0, 0.0)
    0.5
    """
    return _reciprocal_sd(number(var, "var"), number(eps, "eps"))


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

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> jit.moments(np.array([1.0, 3.0]))
    (2.0, 1.0)
    """
    p = row(x)
    if len(x) == 0:
        raise ValueError("moments needs at least one element")
    return row_statistics(p, len(x), len(x), 0.0, True)[:2]


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

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, y = np.array([1.0, 3.0]), np.empty(2)
    >>> jit.normalize(x, 2.0, 1.0, np.array([5.0, 5.0]), np.array([0.0, 1.0]), y)
    >>> y
    array([-5.,  6.])
    """
    p, w, b = row(x), beside(x, weight, "weight"), beside_or_none(x, bias, "bias")
    y = written(x, out, "out")
    centre = centring(p, number(mean, "mean"), number(rstd, "rstd"), 1.0)
    normalize_row(p, len(x), centre, Affine(w, b, None), y, None, 0)


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

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, y = np.array([1.0, 3.0]), np.empty(2)
    >>> jit.standardize(x, 2.0, 1.0, y)
    >>> y
    array([-1.,  1.])
    """
    p, y = row(x), written(x, out, "out")
    hi, lo, scale = centring(p, number(mean, "mean"), number(rstd, "rstd"), 1.0)
    normalize_run(p, len(x), (hi, scale, lo), None, None, y, None)


@callable_from_python
def layer_norm(x: Any, weight: Any, bias: Any, eps: Any, out: Any) -> None:
    """Layer norm of one row: `moments`, then `normalize` with ``rstd = 1/sqrt(var + eps)``.

    Parameters
    ----------
    x, weight, bias, out : array, shape (n,), contiguous, of one dtype
        out may be x. A bias may be None.
    eps : float
        Added to the variance.

    Raises
    ------
    ValueError
        If an array is not contiguous, x is empty, or another array shorter than x.

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, y = np.array([1.0, 3.0]), np.empty(2)
    >>> jit.layer_norm(x, np.array([5.0, 5.0]), np.array([0.0, 1.0]), 0.0, y)
    >>> y
    array([-5.,  6.])
    """
    mean, var = moments(x)
    mean, _, rstd = group_statistics(row(x), 1, 0, len(x), number(eps, "eps"), True, mean, var)
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

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, y = np.array([1.0, 7.0]), np.empty(2)
    >>> jit.rms_norm(x, np.ones(2), None, 0.0, y)
    >>> y
    array([0.2, 1.4])
    """
    p = row(x)
    if len(x) == 0:
        raise ValueError("rms_norm needs at least one element")
    mean, _, rstd = row_statistics(p, len(x), len(x), number(eps, "eps"), False)
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

    Examples
    --------
    >>> import numpy as np
    >>> from normkernels import jit
    >>> x, weight, dweight, dbias = np.array([1.0, 2.0, 3.0]), np.ones(3), np.zeros(3), np.zeros(3)
    >>> mean, var = jit.moments(x)
    >>> dy, dx = np.array([1.0, 0.0, 0.0]), np.empty(3)
    >>> jit.layer_norm_gradient(dy, x, mean, jit.reciprocal_sd(var, 0.0), weight, dweight, dbias, dx)
    >>> dx.round(3), dbias
    (array([ 0.204, -0.408,  0.204]), array([1., 0., 0.]))
    """
    p, n = row(x), len(x)
    g, w = beside(x, dy, "dy"), beside(x, weight, "weight")
    dw, db, dx = written(x, dweight, "dweight"), written(x, dbias, "dbias"), written(x, out, "out")
    scale = number(rstd, "rstd") if n > 1 else 0.0
    centre = centring(p, number(mean, "mean"), scale, 1.0)
    norm = Norm(1, n, max(1, n), 1, 1, True)
    gradient_of_row(Row(g, p, None, None, dx, None), norm, centre, AffineSums(w, None, None, dw, db))
