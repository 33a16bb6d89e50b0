"""From seconds in pairs to verdicts: the paired log-ratio, its interval, and a correction for many cases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from msgspec import Meta

from ..schema import Positive, Share

Verdict = Literal["slower", "faster", "same"]
Pair = tuple[Positive, Positive]
"""Seconds of base and of head, measured one right after the other."""

CONFIDENCE = 0.99
RESAMPLES = 9999
# The share of false alarms among all alarms of a run that is put up with, before the rerun.
FALSE_DISCOVERIES = 0.05


@dataclass(frozen=True)
class Comparison:
    """One case, measured in pairs."""

    name: str
    base: Positive
    """Median seconds per call."""
    head: Positive
    ratio: Positive
    """The median over the pairs of head by base: above 1 is slower."""
    low: Positive
    high: Positive
    """The 99 % bootstrap interval of `ratio`."""
    p: Share
    """Wilcoxon's signed-rank test of the log-ratios, adjusted for the number of cases."""
    verdict: Verdict
    pairs: Annotated[list[Pair], Meta(min_length=1)]

    @property
    def change(self) -> float:
        """How much longer head takes, as a fraction of base."""
        return self.ratio - 1


def compare(pairs: Mapping[str, Sequence[Pair]], threshold: float, seed: int = 0) -> list[Comparison]:
    """Judge every case: slower or faster where the ratio is beyond the threshold, and that is no chance.

    No chance: the interval excludes 1, and Wilcoxon's p stays below FALSE_DISCOVERIES after Benjamini and
    Hochberg's correction over all cases.
    """
    logs = {name: np.log([head / base for base, head in each]) for name, each in pairs.items()}
    adjusted = adjust([_p(log) for log in logs.values()])
    return [
        _comparison(name, pairs[name], log, p, threshold, seed)
        for (name, log), p in zip(logs.items(), adjusted, strict=True)
    ]


def adjust(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values."""
    from scipy import stats  # takes half a second to import: the other commands are spared that

    return [float(value) for value in stats.false_discovery_control(p)] if p else []


def _p(logs: np.ndarray) -> float:
    from scipy import stats

    return 1.0 if not logs.any() else float(stats.wilcoxon(logs, method="exact").pvalue)


def _comparison(
    name: str, pairs: Sequence[Pair], logs: np.ndarray, p: float, threshold: float, seed: int
) -> Comparison:
    middle = float(np.median(logs))
    low, high = interval(logs, seed)
    verdict: Verdict = "same"
    if p < FALSE_DISCOVERIES and low > 0 and middle > math.log1p(threshold):
        verdict = "slower"
    if p < FALSE_DISCOVERIES and high < 0 and middle < -math.log1p(threshold):
        verdict = "faster"
    base, head = (float(np.median(side)) for side in zip(*pairs, strict=True))
    return Comparison(
        name, base, head, math.exp(middle), math.exp(low), math.exp(high), p, verdict, list(pairs)
    )


def interval(logs: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The bootstrap interval of the median."""
    if np.ptp(logs) == 0:
        return float(logs[0]), float(logs[0])
    from scipy import stats

    found = stats.bootstrap(
        (logs,),
        np.median,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def moved(control: Comparison, threshold: float) -> bool:
    """Whether what did not change seems to have, by half the threshold or more."""
    beyond = abs(math.log(control.ratio)) > math.log1p(threshold / 2)
    return beyond and not control.low <= 1 <= control.high
