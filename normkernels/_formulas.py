"""Scalar mathematics in plain Python; every backend compiles these functions for itself."""

import math
from typing import Any

Real = Any
"""A float, or an array of them."""


def merge(n_a: Real, mean_a: Real, m2_a: Real, n_b: Real, mean_b: Real, m2_b: Real) -> tuple[Real, Real]:
    """Chan's merge: mean and m2 of two sets together; m2 is the sum of squared deviations.

    Chan, Golub & LeVeque (1979), equation 2.1. Both means may be measured from any common origin.
    """
    n = n_a + n_b
    delta = mean_b - mean_a
    return mean_a + delta * (n_b / n), m2_a + m2_b + delta * delta * (n_a * n_b / n)


def two_sum(a: Real, b: Real) -> tuple[Real, Real]:
    """a + b, and what was lost by rounding it: together exact.

    Knuth, The Art of Computer Programming, volume 2, 4.2.2, theorem B.
    """
    total = a + b
    rise = total - a
    return total, (a - (total - rise)) + (b - rise)


def merge_pairs(
    n_a: Real, mean_a: tuple[Real, Real], m2_a: tuple[Real, Real],
    n_b: Real, mean_b: tuple[Real, Real], m2_b: tuple[Real, Real],
) -> tuple[tuple[Real, Real], tuple[Real, Real]]:  # fmt: skip
    """As `merge`, with every mean and m2 a pair, whose sum it is: nothing is lost, however many are merged.

    It errs least where a is the larger set.
    """
    origin = mean_a[0]
    shift, between = merge(n_a, mean_a[1], 0.0, n_b, (mean_b[0] - origin) + mean_b[1], 0.0)
    m2, low = two_sum(m2_a[0], m2_b[0])
    m2, rest = two_sum(m2, between)
    return two_sum(origin, shift), (m2, m2_a[1] + m2_b[1] + low + rest)


def reciprocal_sd(var: float, eps: float) -> float:
    """1/sqrt(var + eps), and 0 where both vanish, so that a constant group gives x_hat = 0, not NaN."""
    v = var + eps
    return 1.0 / math.sqrt(v) if v != 0.0 else 0.0
