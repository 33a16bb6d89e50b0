"""Few kernels are ever compiled, whatever the arrays look like."""

import pytest

from helpers import DTYPES, LAYOUTS, accepted, fitted, run
from normkernels.cpu.jit import KERNELS
from normkernels.norms import NORMS

FORMS = 2  # serial and parallel


@pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
def test_one_signature_per_dtype_and_form(spec, rng):
    for dtype in DTYPES:
        for shape in [(4, 3), (2, 3, 4, 5), (600, 700), (2, 3, 50_000)]:
            shape = fitted(spec, shape)
            x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
            full = spec.arguments(shape, dtype, rng)
            for arguments in (full, full | accepted(spec, weight=None, bias=None)):
                for threads in (1, None):
                    run(spec.kernels, x, dy, arguments, threads=threads)
            for layout in LAYOUTS.values():
                run(spec.kernels, layout(x), dy, full)

    assert sum(kernel.signatures for kernel in KERNELS) > 0
    for kernel in KERNELS:
        assert kernel.signatures <= FORMS * len(DTYPES), f"{kernel.name} has {kernel.signatures} signatures"
