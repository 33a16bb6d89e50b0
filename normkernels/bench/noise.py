"""How noisy this machine is now: jitter, stolen time, drift of the copy speed, and what they hide."""

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from .ab.pairs import LEAST_PAIRS
from .ab.worker import CONTROLS, samples, typical
from .machine import usage
from .timing import collector_off

# Seconds of each control at a time: about what the gate spends on a case.
TURN = 0.1
# The median of n numbers from a normal distribution scatters by so many times sd / sqrt(n).
MEDIAN = np.sqrt(np.pi / 2)
# Standard deviations of a 99 % interval.
WIDTH = 2.576


@dataclass(frozen=True)
class Noise:
    """What was seen, all as fractions."""

    seconds: float
    jitter: float
    """Of arithmetic in the cache: from the tenth to the ninetieth percentile of a call, by the median."""
    steal: float
    """Of the processors' time, given to other machines on the same host."""
    others: float
    """Of the processors' time, used by other processes."""
    drift: float
    """Of the copy speed: from its slowest to its fastest tenth of the time, by the median."""
    detectable: float
    """The smallest change that a gate of LEAST_PAIRS pairs can tell from none here."""

    def __str__(self) -> str:
        return (
            f"jitter {self.jitter:.1%}, steal {self.steal:.1%}, other processes {self.others:.1%}, "
            f"copy speed drifts by {self.drift:.0%} in {self.seconds:.0f} s: "
            f"changes from about {self.detectable:.1%} on can be detected here with {LEAST_PAIRS} pairs"
        )


def measure(seconds: float, step: Callable[[float], None]) -> Noise:
    """Watch this machine for so long; `step` is told which share of it has passed."""
    calls = {name: setup() for name, setup in CONTROLS.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in calls}
    before, start = usage(), perf_counter()
    with collector_off():
        while (passed := perf_counter() - start) < seconds or len(times["control: copy"]) < LEAST_PAIRS:
            step(min(1.0, passed / seconds))
            for name, call in calls.items():
                times[name].append(samples(call, TURN))
    copies, arithmetic = times.values()
    return assess(copies, arithmetic, *before.shares(usage()), perf_counter() - start)


def assess(
    copies: list[list[float]], arithmetic: list[list[float]], steal: float, others: float, seconds: float
) -> Noise:
    """From the times of a copy and of arithmetic, turn by turn."""
    calls = np.concatenate([np.asarray(turn) for turn in arithmetic])
    p10, median, p90 = np.percentile(calls, (10, 50, 90))
    speeds = np.array([np.mean(part) for part in np.array_split([1 / np.median(t) for t in copies], 10)])
    return Noise(
        seconds=seconds,
        jitter=float((p90 - p10) / median),
        steal=steal,
        others=others,
        drift=float((speeds.max() - speeds.min()) / np.median(speeds)),
        detectable=max(map(_detectable, (copies, arithmetic))),
    )


def _detectable(turns: list[list[float]]) -> float:
    """Half the 99 % interval of the median of LEAST_PAIRS log-ratios of neighbouring turns."""
    logs = np.diff(np.log([typical(turn) for turn in turns]))
    low, high = np.percentile(logs, (16, 84))  # robust: one turn in which the machine stood still is no sd
    return float(np.expm1(WIDTH * MEDIAN * (high - low) / 2 / np.sqrt(LEAST_PAIRS)))
