"""Libraries to compare with that a test can name; a process of their own finds this module by PYTHONPATH."""

import os
from typing import Any

from normkernels.bench.cases import Case
from normkernels.bench.check import Tensors
from normkernels.bench.inputs import Inputs
from normkernels.bench.peers.peer import Peer
from normkernels.bench.peers.with_numpy import NumPy
from normkernels.bench.timing import Contender


class Wrong(NumPy):
    """Adds something, more than rounding explains."""

    slack = Peer.slack

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {name: a + 0.1 for name, a in super().results(case, inputs, result).items() if a is not None}


class Dying(NumPy):
    """Ends its process."""

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        os._exit(3)


class Failing(NumPy):
    """Cannot start."""

    def __init__(self, threads: int) -> None:
        raise RuntimeError("no compiler\nwas found")
