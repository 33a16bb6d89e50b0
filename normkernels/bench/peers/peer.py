"""What a library to compare with has to say of itself, and whether it computes the same."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...norms import NORMS
from ..cases import Case
from ..check import Tensors, compare
from ..inputs import Array, Inputs
from ..timing import Contender


class Peer(ABC):
    """A library on the CPU, with so many threads; it is imported in the process that makes it."""

    slack = 64.0
    """So many times the kernels' tolerance is no other result: libraries sum in the dtype of the case.

    Measured: 2.7e-5 where the kernels may have 1.5e-5, PyTorch's batch norm of 270 000 values a channel.
    """

    @abstractmethod
    def __init__(self, threads: int) -> None: ...

    @abstractmethod
    def has(self, case: Case) -> bool:
        """Whether the library computes the norm and pass of a case, in its dtype and layout."""

    @abstractmethod
    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        """The pass of a case over `slots` copies of its tensors, which are made here and not timed.

        The contender's `reads` are the tensors that the layer before writes (x, of a backward dy), and its
        `array` picks y, of a backward dx, out of a result: both as NumPy arrays of the library's own memory.
        """

    @abstractmethod
    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        """The result of a call as arrays in the layout of the case, named y, or dx, dweight and dbias.

        With those among the running statistics of `inputs` that a call has moved, or their new values.
        """


def verify(peer: Peer, case: Case, inputs: Inputs, given: Inputs, contender: Contender) -> float:
    """The worst error of one call; raises check.Mismatch.

    The contender was made of `given`, which are `inputs` with arguments of their own.
    """
    results = peer.results(case, given, contender.once())
    moved = {name: a for name, a in results.items() if name in inputs.arguments}
    return compare(case, inputs, results, moved, peer.slack)


def gradients(case: Case, arrays: Sequence[Array]) -> Tensors:
    """Gradients in the order of the arguments, by the names of the reference."""
    names = ("dx", *NORMS[case.op].parameters.values())
    shaped = [a if name == "dx" else a.reshape(-1) for name, a in zip(names, arrays, strict=True)]
    return dict.fromkeys(("dx", "dweight", "dbias")) | dict(zip(names, shaped, strict=True))


def in_layout(case: Case, a: Array) -> Array:
    """An array whose second axis is that of the channels, in the order of the case."""
    return np.moveaxis(a, 1, -1) if case.layout == "channels_last" else a
