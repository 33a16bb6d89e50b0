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


def _is_zero(value: Any) -> bool:
    return isinstance(value, int) and value == 0


def correction(count: int, ddof: int) -> float:
    """Take a population variance to the divisor ``count - ddof``, as a factor."""
    if isinstance(ddof, bool) or not isinstance(ddof, int | np.integer):
        raise TypeError(f"ddof must be an integer, got {ddof!r}")
    if ddof and not 0 < ddof < count:
        raise ValueError(f"ddof must be 0 or more and below the count, {count}, got {ddof}")
    return count / (count - ddof) if ddof else 1.0


class Moments(NamedTuple):
    """Count, mean and population variance (divided by count) of groups of numbers.

    Moments add up: ``a + b`` is ``a.merge(b)``, and ``sum`` takes any number of them.

    Examples
    --------
    >>> import normkernels as nk
    >>> parts = [[1.0, 2.0], [3.0], [4.0, 5.0]]
    >>> whole = sum(nk.moments(part) for part in parts)
    >>> whole.count, float(whole.mean), float(whole.var)
    (5, 3.0, 2.0)
    """

    count: int  # type: ignore[assignment]  # tuple.count gives way
    mean: Array
    """float64; of a single group a NumPy scalar."""
    var: Array
    """As mean."""

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

        Examples
        --------
        >>> import normkernels as nk
        >>> whole = nk.moments([1.0, 2.0]).merge(nk.moments([3.0, 4.0, 5.0]))
        >>> whole.count, float(whole.mean), float(whole.var)
        (5, 3.0, 2.0)
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

    def __radd__(self, other: Any) -> "Moments":
        """As `merge`; `sum` begins with 0, which is nothing."""
        return self if _is_zero(other) else NotImplemented

    def variance(self, ddof: int = 0) -> Array:
        """Variance with the divisor ``count - ddof``.

        Parameters
        ----------
        ddof : int
            0 for the variance of a population, 1 for the unbiased estimate from a sample.

        Returns
        -------
        array

        Raises
        ------
        TypeError
            If ddof is no integer.
        ValueError
            If ddof is negative, or not below the count.

        Examples
        --------
        >>> import normkernels as nk
        >>> float(nk.moments([1.0, 2.0, 3.0]).variance(ddof=1))
        1.0
        """
        result: Array = self.var * correction(self.count, ddof)
        return result


class Range(NamedTuple):
    """Smallest and largest value of groups of numbers.

    Ranges add up: ``a + b`` is ``a.merge(b)``, and ``sum`` takes any number of them.

    Examples
    --------
    >>> import normkernels as nk
    >>> _, statistics = nk.minmax([3.0, 1.0, 2.0], return_statistics=True)
    >>> float(statistics.min), float(statistics.max), float(statistics.range)
    (1.0, 3.0, 2.0)
    """

    min: Array
    """Of a single group a NumPy scalar."""
    max: Array
    """As min."""

    @property
    def range(self) -> Array:
        """Distance from the smallest to the largest value."""
        return self.max - self.min

    def merge(self, other: "Range") -> "Range":
        """Range of both sets of numbers together; NaN where one of them is NaN.

        Parameters
        ----------
        other : Range
            Range of other numbers, groups of the same shape.

        Returns
        -------
        Range

        Raises
        ------
        TypeError
            If the other is not a Range.
        ValueError
            If the shapes of the two differ.

        Examples
        --------
        >>> import numpy as np
        >>> from normkernels import Range
        >>> a = Range(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
        >>> b = Range(np.array([1.0, 0.0]), np.array([4.0, 2.0]))
        >>> whole = a.merge(b)
        >>> whole.min.tolist(), whole.max.tolist()
        ([0.0, 0.0], [4.0, 3.0])
        """
        if not isinstance(other, Range):
            raise TypeError(f"other must be a Range, got {type(other).__name__}")
        if np.shape(self.min) != np.shape(other.min):
            raise ValueError(f"other must have the shape {np.shape(self.min)}, got {np.shape(other.min)}")
        return Range(np.minimum(self.min, other.min), np.maximum(self.max, other.max))

    def __add__(self, other: "Range") -> "Range":  # type: ignore[override]  # not that of a tuple
        """As `merge`."""
        return self.merge(other)

    def __radd__(self, other: Any) -> "Range":
        """As `merge`; `sum` begins with 0, which is nothing."""
        return self if _is_zero(other) else NotImplemented


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
