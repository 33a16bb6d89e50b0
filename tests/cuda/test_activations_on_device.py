"""Activations and their slopes at their limits: what a given mean and rstd make of infinite elements."""

import numpy as np
import pytest
from on_device import passes

from normkernels.norms import NORMS

LIMITS = {"relu": (0, np.inf), "sigmoid": (0, 1), "silu": (0, np.inf), "gelu": (0, np.inf)}
SLOPES = {"relu": (0, 1), "sigmoid": (0, 0), "silu": (0, 1), "gelu": (0, 1)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LIMITS)
def test_activations_and_their_slopes_reach_their_limits(name, dtype):
    x = np.array([[-np.inf, np.inf], [-3e38, 3e38]], dtype)
    given = {"running_mean": np.zeros(2, np.float32), "running_var": np.ones(2, np.float32)}
    on_device = passes(NORMS["batch_norm"])
    y, saved = on_device.forward(x, **given, eps=0.0, activation=name)
    dx = on_device.backward(np.ones_like(x), saved).dx
    np.testing.assert_array_equal(y[0], np.array(LIMITS[name], dtype))
    np.testing.assert_array_equal(dx, np.array([SLOPES[name]] * 2, dtype))
