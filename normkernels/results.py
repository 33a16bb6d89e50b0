"""What the functions return besides arrays."""

from typing import Any, Generic, NamedTuple, Self, TypeVar

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


def is_zero(value: Any) -> bool:
    """Whether value is the 0 with which `sum` begins."""
    return isinstance(value, int) and value == 0


def correction(count: Any, ddof: int) -> Any:
    """Take a population variance to the divisor ``count - ddof``, as a factor; no lazy count is checked."""
    if isinstance(ddof, bool) or not isinstance(ddof, int | np.integer):
        raise TypeError(f"ddof must be an integer, got {ddof!r}")
    if ddof and isinstance(count, int | float | np.number) and not 0 < ddof < count:
        raise ValueError(f"ddof must be 0 or more and below the count, {count}, got {ddof}")
    return count / (count - ddof) if ddof else 1.0


Pair = tuple[Any, Any]
"""A number or array in float64, and what it lost by rounding."""


class _Moments(NamedTuple):
    count: int  # type: ignore[assignment]  # tuple.count gives way
    mean: Array
    var: Array


def merge_pairs(
    count_a: Any, mean_a: Pair, m2_a: Pair, count_b: Any, mean_b: Pair, m2_b: Pair
) -> tuple[Pair, Pair]:
    """As `_formulas.merge_pairs`, of any numbers: a NaN or an infinity has lost 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        found = _formulas.merge_pairs(count_a * 1.0, mean_a, m2_a, count_b * 1.0, mean_b, m2_b)
        mean, m2 = ((high, np.where(np.isfinite(high), low, 0.0)) for high, low in found)
    return mean, m2


def check_mergeable(moments: Any, other: Any, kinds: tuple[type, ...]) -> None:
    """Refuse what is no moments, of one of these kinds, or of groups of another shape."""
    of_kind: Any = kinds
    if not isinstance(other, of_kind):
        raise TypeError(f"other must be a Moments, got {type(other).__name__}")
    shape, other_shape = np.shape(moments.mean), np.shape(other.mean)
    known = [(a, b) for a, b in zip(shape, other_shape, strict=False) if a == a and b == b]
    if len(shape) != len(other_shape) or any(a != b for a, b in known):  # what Dask does not know is NaN
        raise ValueError(f"other must have the shape {shape}, got {other_shape}")
    for m in (moments, other):
        if np.ndim(m.count):
            rule = "moments that are merged must have one count for all groups"
            raise ValueError(f"{rule}, got counts of shape {np.shape(m.count)}")


class Moments(_Moments):
    """Count, mean and population variance (divided by count) of groups of numbers.

    Moments add up: ``a + b`` is ``a.merge(b)``, and ``sum`` takes any number of them. Merges lose nothing:
    beside the three fields they keep what mean and variance lost by being rounded to float64, as do pickle
    and copy; what ``Moments(count, mean, var)`` makes is taken as it is.

    Attributes
    ----------
    count : int
        How many numbers a group has.
    mean : array
        float64; of a single group a NumPy scalar.
    var : array
        As mean.

    Examples
    --------
    >>> import normkernels as nk
    >>> parts = [[1.0, 2.0], [3.0], [4.0, 5.0]]
    >>> whole = sum(nk.moments(part) for part in parts)
    >>> whole.count, float(whole.mean), float(whole.var)
    (5, 3.0, 2.0)
    """

    _mean_low: Any = 0.0
    """mean + _mean_low is the mean."""
    _m2: Pair | None = None
    """The sum of squared deviations; None where it is var * count."""

    def _with_low(self, low: Any) -> Self:
        """Note what the mean lost by rounding."""
        self._mean_low = low
        return self

    def _with_pairs(self, mean_low: Any, m2: Any, m2_low: Any) -> Self:
        """Note the mean and m2, the sum of squared deviations, as pairs."""
        self._mean_low, self._m2 = mean_low, (m2, m2_low)
        return self

    @classmethod
    def _of_pairs(cls, count: int, mean: Pair, m2: Pair) -> Self:
        return cls(count, mean[0], (m2[0] + m2[1]) / count)._with_pairs(mean[1], *m2)

    def _pairs(self) -> tuple[Pair, Pair]:
        """Mean and m2, the sum of squared deviations."""
        return (self.mean, self._mean_low), self._m2 or (self.var * self.count, 0.0)

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
        if hasattr(other, "__dask_graph__") and hasattr(other, "_pairs"):  # lazy, as is the result then
            lazy: Moments = other.merge(self)
            return lazy
        check_mergeable(self, other, (Moments,))
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        a, b = (self, other) if self.count >= other.count else (other, self)
        return Moments._of_pairs(a.count + b.count, *merge_pairs(a.count, *a._pairs(), b.count, *b._pairs()))

    def __add__(self, other: "Moments") -> "Moments":  # type: ignore[override]  # not that of a tuple
        """As `merge`."""
        return self.merge(other)

    def __radd__(self, other: Any) -> "Moments":
        """As `merge`; `sum` begins with 0, which is nothing."""
        return self if is_zero(other) else NotImplemented

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
        return self if is_zero(other) else NotImplemented


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
