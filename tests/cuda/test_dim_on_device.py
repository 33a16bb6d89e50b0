"""layer_norm and rms_norm over axes that `dim` names: on a device these must be the last ones in memory."""

import numpy as np
import pytest
from on_device import passes, to_device, to_host

from helpers import LAYOUTS, assert_matches, run
from normkernels.norms import NORMS

both = pytest.mark.parametrize("spec", [NORMS["layer_norm"], NORMS["rms_norm"]], ids=lambda s: s.name)


@both
def test_axes_that_are_last_in_memory(spec, rng):
    x, dy = (rng.normal(size=(2, 4, 3, 5)).astype(np.float32) for _ in range(2))
    arguments = spec.arguments(x.shape, np.float32, rng, channel_axis=1)
    channels_last = LAYOUTS["channels_last"]
    result = run(passes(spec), channels_last(x), channels_last(dy), arguments)
    assert_matches(spec, result, x, dy, arguments)
    arguments = spec.arguments(x.shape, np.float32, rng) | {"dim": -1}
    assert_matches(spec, run(passes(spec), x, dy, arguments), x, dy, arguments)


@both
@pytest.mark.parametrize("dim", [1, (0, 3), (3, 2)], ids=str)
def test_other_axes_are_an_error(spec, dim):
    x, out = np.ones((2, 4, 3, 5), np.float32), to_device(np.zeros((2, 4, 3, 5), np.float32))
    sizes = tuple(x.shape[a] for a in np.atleast_1d(dim))
    message = r"dim must name the axes that are last in memory where x is on a device, got "
    with pytest.raises(NotImplementedError, match=message):
        spec.kernels.call(to_device(x), sizes, dim=dim, out=out)
    assert not to_host(out).any()
