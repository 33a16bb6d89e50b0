"""NumPy: the reference in the dtype of the case, which allocates a temporary for every operation."""

from typing import Any

from ...norms import NORMS
from ..cases import Case
from ..check import Tensors
from ..inputs import Inputs
from ..measure import contender
from ..timing import Contender
from .peer import Peer


class NumPy(Peer):
    """On one thread. Every norm, both passes, every dtype and layout; what is fused is done in steps."""

    slack = 1.0

    def __init__(self, threads: int) -> None: ...

    def has(self, case: Case) -> bool:
        return True

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        spec = NORMS[case.op]
        passes = spec.in_steps(spec.reference) if case.fuse else spec.reference
        return contender(case, passes, inputs, slots)

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        if case.pass_ == "backward":
            return dict(result._asdict())
        return {"y": result} | {name: a for name, a in inputs.beside_x.items() if name == "sum_out"}
