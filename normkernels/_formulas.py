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


def reciprocal_sd(var: float, eps: float) -> float:
    """1/sqrt(var + eps), and 0 where both vanish, so that a constant group gives x_hat = 0, not NaN."""
    v = var + eps
    return 1.0 / math.sqrt(v) if v != 0.0 else 0.0
