"""Libraries to compare with that a test can name; a process of their own finds this module by PYTHONPATH."""

import os
from typing import Any

import numpy as np

from normkernels.bench.cases import Case
from normkernels.bench.check import Tensors
from normkernels.bench.inputs import Inputs
from normkernels.bench.peers.peer import Peer
from normkernels.bench.peers.with_numpy import NumPy
from normkernels.bench.timing import Contender


class Plain(Peer):
    """A whole library: the layer norm of float32, forward."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def has(self, case: Case) -> bool:
        return (case.op, case.pass_, case.dtype) == ("layer_norm", "forward", "float32")

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        xs = [inputs.x.copy() for _ in range(slots)]
        weight, bias = inputs.arguments["weight"], inputs.arguments["bias"]

        def layer_norm(x: Any) -> Any:
            centred = x - x.mean(-1, keepdims=True)
            return centred / np.sqrt(centred.var(-1, keepdims=True) + 1e-5) * weight + bias

        return Contender(layer_norm, [(x,) for x in xs], {}, reads=xs)

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {"y": result}


class Wrong(Plain):
    """Forgets eps and adds something."""

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        return {"y": result + 1e-3}


class Dying(NumPy):
    """Ends its process."""

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        os._exit(3)


class Failing(NumPy):
    """Cannot start."""

    def __init__(self, threads: int) -> None:
        raise RuntimeError("no compiler\nwas found")
