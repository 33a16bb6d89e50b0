"""What is written beside the result of a norm: the sum with a residual, and running statistics."""

import numpy as np
import pytest
from on_device import passes, to_device, to_host
from test_norms_on_device import problem

from helpers import assert_same_bits, run
from normkernels.norms import NORMS


@pytest.mark.parametrize("sum_out", ["x", "residual", "apart"])
@pytest.mark.parametrize("spec", [s for s in NORMS.values() if s.residual == "before"], ids=lambda s: s.name)
def test_a_sum_may_take_the_place_of_what_is_added(spec, sum_out, rng):
    x, _, arguments = problem(spec, (3, 300), np.float32, rng)
    residual = rng.normal(size=x.shape).astype(np.float32)
    arrays = {"x": to_device(x), "residual": to_device(residual), "apart": to_device(np.full_like(x, np.nan))}
    on_device = {name: to_device(value) for name, value in arguments.items()}
    y, saved = spec.kernels.forward(
        arrays["x"], **on_device, residual=arrays["residual"], sum_out=arrays[sum_out]
    )
    expected, host = spec.kernels.forward(x, **arguments, residual=residual)
    np.testing.assert_allclose(to_host(y), expected, rtol=0, atol=1e-5)
    assert_same_bits(to_host(arrays[sum_out]), host.x)
    assert saved.x is arrays[sum_out]


@pytest.mark.parametrize("stride", [2, -1])
@pytest.mark.parametrize("name", ["batch_norm", "batch_renorm", "instance_norm"])
def test_running_statistics_of_any_strides(name, stride, rng):
    spec = NORMS[name]
    x, _, arguments = problem(spec, (2, 4, 3, 2), np.float32, rng)
    expected = run(passes(spec), x, x, arguments).arguments
    for name in ("running_mean", "running_var"):
        wide = np.full(4 * abs(stride), 7, np.float32)
        wide[::stride] = arguments[name]
        arguments[name] = to_device(wide[::stride])
    on_device = {name: to_device(value) for name, value in arguments.items()}
    spec.kernels.forward(to_device(x), **on_device)
    for name in ("running_mean", "running_var"):
        assert_same_bits(to_host(on_device[name]), expected[name])
