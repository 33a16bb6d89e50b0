"""Few kernels are ever compiled, whatever the arrays look like: one for the dtypes and for what is None."""

from collections import Counter

import pytest
from numba import types

from helpers import DTYPES, LAYOUTS, accepted, fitted, run
from normkernels.cpu.jit import KERNELS
from normkernels.norms import NORMS


@pytest.mark.parametrize(
    "dtypes", [DTYPES[:1], pytest.param(DTYPES, marks=pytest.mark.slow)], ids=["one", "all"]
)
@pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
def test_one_signature_for_the_dtypes_and_what_is_absent(spec, dtypes, rng):
    for dtype in dtypes:
        for shape in [(4, 3), (2, 3, 4, 5), (600, 700), (2, 3, 50_000)]:
            shape = fitted(spec, shape)
            x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
            full = spec.arguments(shape, dtype, rng)
            for arguments in (full, full | accepted(spec, weight=None, bias=None)):
                for threads in (1, None):
                    run(spec.kernels, x, dy, arguments, threads=threads)
            for layout in LAYOUTS.values():
                run(spec.kernels, layout(x), dy, full)

    assert sum(len(kernel.signatures) for kernel in KERNELS) > 0
    for kernel in KERNELS:
        alike = Counter(_essence(types.Tuple(arguments)) for arguments in kernel.signatures)
        assert max(alike.values(), default=0) <= 1, f"{kernel.name}: {kernel.signatures}"


def _essence(argument):
    """None, the dtype of an array, or that it is a number; of a tuple, those of its parts."""
    if isinstance(argument, types.BaseTuple):
        return tuple(_essence(a) for a in argument)
    if isinstance(argument, types.Array):
        return argument.dtype
    return argument if argument is types.none else "number"
