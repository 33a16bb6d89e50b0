"""What the functions return besides arrays."""

from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from . import _formulas

Array = npt.NDArray[Any]
G = TypeVar("G", bound="Grads | ResidualGrads", covariant=True)


class Saved(NamedTuple, Generic[G]):
    """What a forward pass keeps for the backward. Its arrays are no copies: do not change them.

    To type checkers it is ``Saved[Grads]``, or ``Saved[ResidualGrads]`` after a residual.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0]])
    >>> y, saved = nk.layer_norm_forward(x, 2, np.ones(2), np.zeros(2))
    >>> saved
    Saved(layer_norm of float64 (1, 2))
    >>> saved.x is x
    True
    """

    x: Array
    """What was normalized: with `summed` the sum of x and residual."""
    mean: Array
    """float64, one per group, in the order of memory."""
    rstd: Array
    """float64, 1/sqrt(var + eps), one per group."""
    weight: Array | None
    bias: Array | None
    training: bool
    """False where the statistics were given and are constants in the backward."""
    plan: Any
    norm: str
    activation: str | None = None
    residual: Array | None = None
    """What was added to the output of a norm over channels."""
    summed: bool = False
    """Whether x is the sum of x and a residual."""
    renorm: tuple[Array, Array] | None = None
    """r and d of batch renormalization."""

    def __repr__(self) -> str:
        return f"Saved({self.norm} of {self.x.dtype} {self.x.shape})"


class Grads(NamedTuple):
    """Gradients with respect to x, weight and bias; None for a parameter that was not given.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0]])
    >>> y, saved = nk.rms_norm_forward(x, 2, np.ones(2))
    >>> grads = nk.rms_norm_backward(y, saved)
    >>> grads.dweight.round(3), grads.dbias
    (array([0.2, 1.8]), None)
    """

    dx: Array
    dweight: Array | None
    dbias: Array | None


class ResidualGrads(NamedTuple):
    """As `Grads`, of a norm with a residual.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 3.0]])
    >>> y, saved = nk.layer_norm_forward(x, 2, np.ones(2), np.zeros(2), residual=x)
    >>> grads = nk.layer_norm_backward(y, saved)
    >>> grads.dresidual is grads.dx  # x and residual enter alike
    True
    """

    dx: Array
    dweight: Array | None
    dbias: Array | None
    dresidual: Array


class Moments(NamedTuple):
    """Count, mean and population variance (divided by count) of groups of numbers."""

    count: int  # type: ignore[assignment]  # tuple.count gives way
    mean: Array
    var: Array

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets of numbers together, by Chan's formula.

        Parameters
        ----------
        other : Moments
            Moments of other numbers, groups of the same shape.

        Returns
        -------
        Moments

        Raises
        ------
        TypeError
            If the other is not a Moments.
        ValueError
            If the shapes of the two differ.

        Notes
        -----
        Chan, Golub & LeVeque (1979), equation 2.1.
        """
        if not isinstance(other, Moments):
            raise TypeError(f"other must be a Moments, got {type(other).__name__}")
        if np.shape(self.mean) != np.shape(other.mean):
            raise ValueError(f"other must have the shape {np.shape(self.mean)}, got {np.shape(other.mean)}")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        mean, m2 = _formulas.merge(
            self.count, self.mean, self.var * self.count, other.count, other.mean, other.var * other.count
        )
        count = self.count + other.count
        return Moments(count, mean, m2 / count)

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]  # not that of a tuple
        """As `merge`."""
        return self.merge(other)


class Range(NamedTuple):
    """Smallest value and distance from it to the largest, of groups of numbers."""

    min: Array
    range: Array


class Whitening(NamedTuple):
    """Mean of every feature, and the matrix that takes centred samples to white ones.

    Examples
    --------
    >>> import numpy as np
    >>> import normkernels as nk
    >>> x = np.array([[1.0, 2.0], [-1.0, -2.0], [1.0, -2.0], [-1.0, 2.0]])
    >>> y, statistics = nk.whiten(x, eps=0.0, return_statistics=True)
    >>> statistics.mean
    array([0., 0.])
    >>> statistics.matrix.round(3)
    array([[1. , 0. ],
           [0. , 0.5]])
    """

    mean: Array
    matrix: Array
