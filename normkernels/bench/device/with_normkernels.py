"""These kernels."""

from ...norms import NORMS
from ..cases import Case
from ..inputs import Inputs
from ..measure import contender
from ..timing import Contender
from .inputs import clone
from .measure import Library


def _contender(case: Case, inputs: Inputs, slots: int) -> Contender:
    return contender(case, NORMS[case.op].kernels, inputs, slots, clone)


LIBRARY = Library(_contender, takes_out=True)
