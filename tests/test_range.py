"""Numbers near the ends of a dtype's range: squares that leave it, sums and differences that would."""

import ml_dtypes
import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, accepted, bounds, epsilon, fitted, oracle, rounding, run, widened
from normkernels import jit
from normkernels.norms import NORMS
from normkernels.reference.fused import ACTIVATIONS

every_norm = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)

# Rows and columns; runs short and long, few channels in tiles; long rows in tiles.
SHAPES = [(300, 12), (6, 10, 20), (5, 12, 200), (3, 2, 9000), (1, 2, 40_000)]
SCALES = {"large": 1e200, "largest": 1e305, "small": 1e-200, "smallest": 1e-300, "mixed": None}


def problem(spec, shape, scale, dtype, rng):
    """x with groups of this scale, or of several; dy, and arguments that add nothing to the variance."""
    shape = fitted(spec, shape)
    x, dy = rng.normal(1, 1, size=(2, *shape))
    axis = 1 if spec.family == "channels" else 0
    scales = np.resize([1e200, 1e-200, 1.0] if scale is None else [scale], shape[axis])
    x *= np.expand_dims(scales, [a for a in range(len(shape)) if a != axis])
    arguments = spec.arguments(shape, dtype, rng) | accepted(spec, eps=0, r_max=1, d_max=0)
    if spec.name != "batch_renorm":
        arguments |= accepted(spec, running_mean=None, running_var=None)
    return x.astype(dtype), dy.astype(dtype), arguments


def assert_right(spec, x, dy, arguments):
    got, expected = run(spec.kernels, x, dy, arguments), oracle(spec, x, dy, arguments)
    y, grads = bounds(spec, x, dy, expected.saved)
    if spec.family == "windows":
        saved = expected.saved._replace(x_hat=np.abs(expected.y), x=-np.abs(expected.saved.x))
        grads = grads._replace(dx=8 * rounding(x.dtype, 1) * spec.reference.backward(np.abs(dy), saved).dx)
    lost = 4 * float(np.finfo(x.dtype).smallest_subnormal)
    for a, b, bound in zip((got.y, *got.grads), (expected.y, *expected.grads), (y, *grads), strict=True):
        if a is not None:
            assert (np.abs(a - b) <= bound + lost).all()


@every_norm
@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_float64_of_any_size(spec, scale, rng):
    for shape in SHAPES:
        assert_right(spec, *problem(spec, shape, scale, np.float64, rng))
