"""Timing calls: warm-up, rotation through memory, repetitions in turns."""

import gc
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

Sample = Callable[[], float]

# A sample is so many calls that the clock's own time vanishes.
SAMPLE_SECONDS = 1e-3


@dataclass(frozen=True)
class Effort:
    """Repetitions go on until `seconds` have passed, within `least` and `most`."""

    seconds: float
    least: int
    most: int


FULL = Effort(seconds=0.6, least=7, most=25)
QUICK = Effort(seconds=0.1, least=3, most=7)
BASELINE = Effort(seconds=0.5, least=1, most=5)


class Contender:
    """One function with the sets of arguments that take turns, so that each call finds its data cold.

    The result of a call is kept until the same arguments come round again: the memory that fresh
    results occupy takes turns too. `array` picks the array out of a result that `out=` may receive.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        keywords: Mapping[str, Any],
        array: Callable[[Any], Any] = lambda result: result,
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._keywords = keywords
        self._array = array
        self._results: list[Any] = [None] * len(arguments)
        self._turn = itertools.cycle(range(len(arguments)))
        self.calls = 1

    def warm_up(self, rounds: int = 1) -> None:
        """Call with every set of arguments, and settle how many calls make a sample."""
        for i in range(rounds * len(self._arguments)):
            i %= len(self._arguments)
            self._results[i] = self._function(*self._arguments[i], **self._keywords)
        self.calls = max(1, math.ceil(SAMPLE_SECONDS / self.fresh()))
        if self.calls > 1:
            self.calls = max(1, math.ceil(SAMPLE_SECONDS / self.fresh()))

    def fresh(self) -> float:
        """Seconds per call that allocates its result."""
        function, arguments, keywords = self._function, self._arguments, self._keywords
        results = self._results
        turns = list(itertools.islice(self._turn, self.calls))
        start = perf_counter()
        for i in turns:
            results[i] = function(*arguments[i], **keywords)
        return (perf_counter() - start) / self.calls

    def into_out(self) -> float:
        """Seconds per call that writes to an array of the caller."""
        function, arguments, keywords = self._function, self._arguments, self._keywords
        turns = list(itertools.islice(self._turn, self.calls))
        outs = [self._array(self._results[i]) for i in turns]
        start = perf_counter()
        for i, out in zip(turns, outs, strict=True):
            function(*arguments[i], out=out, **keywords)
        return (perf_counter() - start) / self.calls


@contextmanager
def _collector_off() -> Any:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def take_turns(samples: Sequence[Sample], effort: Effort) -> list[list[float]]:
    """Seconds per call of each of `samples`, sampled in turns; every round begins with another one."""
    seconds: list[list[float]] = [[] for _ in samples]
    with _collector_off():
        start = perf_counter()
        for repetition in range(effort.most):
            for k in range(len(samples)):
                k = (k + repetition) % len(samples)
                seconds[k].append(samples[k]())
            if repetition + 1 >= effort.least and perf_counter() - start > effort.seconds:
                break
    return seconds
