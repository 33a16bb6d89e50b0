"""In which condition a case finds its data: cold, or between two layers of a pipeline.

Cold: the sets of tensors that take turns fill four times the last-level cache. In the pipeline they take
turns too, but the layer before has just written the tensor that the pass reads, and the layer after reads the
one that it writes.
"""

from collections.abc import Callable
from math import ceil
from time import perf_counter
from typing import Any

import numpy as np

from .cases import PIPELINE, Case
from .inputs import Array
from .timing import Contender

# What is left of a call where noise has made the layers alone take longer than with the call.
LEAST_SECONDS = 1e-9


def in_condition(case: Case, contender: Contender) -> "Contender | Pipeline":
    """The contender, warmed up, in the condition of its case."""
    return Pipeline(contender) if case.condition == PIPELINE else contender


class Pipeline:
    """A contender between two layers; a sample is the time of the three, less that of the two without it.

    The layer before changes the sign of its tensor in place, the layer after looks for the largest number;
    both are NumPy on one thread, which disturbs no library's pool. Without the contender the layer after
    reads what the one before wrote.
    """

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self.calls = contender.calls

    def fresh(self) -> float:
        """Seconds per call that allocates its result."""
        return self._seconds(self._contender.call)

    def into_out(self) -> float:
        """Seconds per call that writes to an array of the caller."""
        return self._seconds(self._contender.call_into_out)

    def _seconds(self, call: Callable[[int], Any]) -> float:
        self._with(call, ceil(self.calls / 2))  # not timed: see Contender
        whole = self._with(call, self.calls)
        return max(LEAST_SECONDS, whole - self._without(self.calls)) / self.calls

    def _with(self, call: Callable[[int], Any], calls: int) -> float:
        contender, turns = self._contender, self._contender.turns(calls)
        start = perf_counter()
        for i in turns:
            before(contender.reads[i])
            after(contender.array(call(i)))
        return perf_counter() - start

    def _without(self, calls: int) -> float:
        contender, turns = self._contender, self._contender.turns(calls)
        start = perf_counter()
        for i in turns:
            before(contender.reads[i])
            after(contender.reads[i])
        return perf_counter() - start


def before(x: Array) -> None:
    """The layer before: x = -x."""
    bits = _bits(x)
    np.bitwise_xor(bits, bits.dtype.type(1 << (8 * bits.itemsize - 1)), out=bits)


def after(y: Array) -> None:
    """The layer after: reads all of y."""
    _bits(y).max()


def _bits(a: Array) -> Any:
    """The numbers as integers: NumPy has no vectors for half types."""
    return a.view(f"u{a.itemsize}")
