"""Who is measured. The OpenMP pools of two libraries disturb each other, so a process holds one library.

NumPy, which has no pool here, is the baseline of each group and shares the process of normkernels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from normkernels.bench.cases import Case
from normkernels.bench.check import check
from normkernels.bench.inputs import Inputs
from normkernels.bench.measure import contender
from normkernels.bench.timing import Contender
from normkernels.norms import NORMS

BASELINE = "numpy"

# --backend -> the backends of that process, and the packages it needs besides.
PROCESSES = {
    "normkernels": (("normkernels", BASELINE), ()),
    "torch": (("torch",), ("torch",)),
    "onnxruntime": (("onnxruntime",), ("onnx", "onnxruntime")),
}


@dataclass(frozen=True)
class Backend:
    """One implementation of the norms."""

    has: Callable[[Case], bool]
    """Whether it computes a case."""
    verify: Callable[[Case, Inputs], float]
    """Its worst error against the reference in float64; raises check.Mismatch."""
    contender: Callable[[Case, Inputs, int], Contender]
    """The pass of a case over so many copies of its data, fresh arrays out."""


def missing(process: str) -> list[str]:
    """The packages that a process needs and this environment has not."""
    return [package for package in PROCESSES[process][1] if find_spec(package) is None]


def backend(name: str) -> Backend:
    """A backend by name; other libraries are imported here and not before."""
    if name == "normkernels":
        return Backend(
            has=lambda case: True,
            verify=check,
            contender=lambda case, inputs, slots: contender(case, NORMS[case.op].kernels, inputs, slots),
        )
    if name == BASELINE:
        return Backend(
            has=lambda case: True,
            verify=lambda case, inputs: check(case, inputs, NORMS[case.op].reference),
            # its own temporaries keep its data cold
            contender=lambda case, inputs, slots: contender(case, NORMS[case.op].reference, inputs, slots=1),
        )
    library = import_module(f"with_{name}")
    return Backend(library.has, library.verify, library.contender)
