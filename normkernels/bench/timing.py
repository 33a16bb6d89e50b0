"""Timing calls: warm-up, rotation through memory, repetitions in turns."""

import gc
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

Sample = Callable[[], float]

# With a single set of arguments, a sample is so many calls that the clock's own time vanishes.
SAMPLE_SECONDS = 5e-4


@dataclass(frozen=True)
class Effort:
    """Repetitions go on until `seconds` have passed, within `least` and `most`."""

    seconds: float
    least: int
    most: int


FULL = Effort(seconds=0.45, least=7, most=25)
QUICK = Effort(seconds=0.1, least=3, most=7)
BASELINE = Effort(seconds=0.25, least=1, most=5)


class Clock(Protocol):
    """What a sample is timed by."""

    def start(self) -> float: ...

    def seconds(self, start: float) -> float:
        """Since `start`."""
        ...


class HostClock:
    """For what is done when a call returns."""

    def start(self) -> float:
        return perf_counter()

    def seconds(self, start: float) -> float:
        return perf_counter() - start


class Contender:
    """One function with the sets of arguments that take turns, so that each call finds its data cold.

    Keywords are one set for all of them, or one for each.

    The result of a call is kept until the same arguments come round again: the memory that fresh
    results occupy takes turns too. `array` picks the array out of a result that `out=` may receive, and
    `reads` are the arrays that the layer before a call writes, one for each set (condition.Pipeline).

    A sample goes through a quarter of the sets, after half as many calls that are not timed:
    what ran before leaves lines in the cache that are yet to be written back, and whoever comes next waits
    for them (measured: 10 % of the time of a call on 25 MB right after a large copy with plain stores).
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        keywords: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        array: Callable[[Any], Any] = lambda result: result,
        reads: Sequence[Any] = (),
    ) -> None:
        self._function = function
        self.arguments = arguments
        each = [keywords] * len(arguments) if isinstance(keywords, Mapping) else keywords
        self._keywords: Sequence[Mapping[str, Any]] = each
        self.array, self.reads = array, reads
        self._results: list[Any] = [None] * len(arguments)
        self._turn = itertools.cycle(range(len(arguments)))
        self.calls = 1
        self.clock: Clock = HostClock()

    def warm_up(self) -> None:
        """Call with every set of arguments, and settle how many calls make a sample."""
        self._call_fresh(self.turns(len(self.arguments)))
        self.calls = math.ceil(len(self.arguments) / 4)
        if len(self.arguments) == 1:
            for _ in range(2):  # the first sample of one short call says little
                self.calls = math.ceil(SAMPLE_SECONDS / self.fresh())

    def fresh(self) -> float:
        """Seconds per call that allocates its result."""
        self._call_fresh(self.turns(math.ceil(self.calls / 2)))
        return self._call_fresh(self.turns(self.calls))

    def into_out(self) -> float:
        """Seconds per call that writes to an array of the caller."""
        self._call_into(self.turns(math.ceil(self.calls / 2)))
        return self._call_into(self.turns(self.calls))

    def call(self, i: int) -> Any:
        """The result of a call with one of the sets of arguments."""
        self._results[i] = self._function(*self.arguments[i], **self._keywords[i])
        return self._results[i]

    def call_into_out(self, i: int) -> Any:
        """As `call`, into the array that the call before has returned; its result."""
        out = self.array(self._results[i])
        return self._function(*self.arguments[i], out=out, **self._keywords[i])

    def once(self, **more: Any) -> Any:
        """One call with the arguments whose turn it is, and more keywords; its result."""
        i = next(self._turn)
        self._results[i] = self._function(*self.arguments[i], **self._keywords[i], **more)
        return self._results[i]

    def turns(self, calls: int) -> list[int]:
        """Whose turns the next calls are."""
        return list(itertools.islice(self._turn, calls))

    def _call_fresh(self, turns: list[int]) -> float:
        function, arguments, keywords = self._function, self.arguments, self._keywords
        results = self._results
        start = self.clock.start()
        for i in turns:
            results[i] = function(*arguments[i], **keywords[i])
        return self.clock.seconds(start) / len(turns)

    def _call_into(self, turns: list[int]) -> float:
        function, arguments, keywords = self._function, self.arguments, self._keywords
        outs = [self.array(result) for result in self._results]
        start = self.clock.start()
        for i in turns:
            function(*arguments[i], out=outs[i], **keywords[i])
        return self.clock.seconds(start) / len(turns)


@contextmanager
def collector_off() -> Any:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def take_turns(samples: Sequence[Sample], effort: Effort) -> list[list[float]]:
    """Seconds per call of each of `samples`, one after the other, repeated."""
    seconds: list[list[float]] = [[] for _ in samples]
    with collector_off():
        start = perf_counter()
        for repetition in range(effort.most):
            for sample, times in zip(samples, seconds, strict=True):
                times.append(sample())
            if repetition + 1 >= effort.least and perf_counter() - start > effort.seconds:
                break
    return seconds
