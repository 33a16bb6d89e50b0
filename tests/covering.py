"""A few of the cases that a product of parameters makes: those that every run of the tests does."""

from itertools import combinations
from typing import Any

import pytest


def mark_slow(items: list[Any]) -> None:
    """Mark as slow what a covering array leaves out, for tests with the marker `covering(strength)`.

    A strength of 2 keeps cases in which all pairs of values of two parameters meet, 1 cases in which every
    value occurs. What is marked as slow by itself counts as left out.
    """
    tests: dict[Any, list[Any]] = {}
    for item in items:
        if item.get_closest_marker("covering") and not item.get_closest_marker("slow"):
            tests.setdefault((item.path, item.originalname), []).append(item)
    for cases in tests.values():
        (strength,) = cases[0].get_closest_marker("covering").args
        kept = covering([tuple(map(id, case.callspec.params.values())) for case in cases], strength)
        for i, case in enumerate(cases):
            if i not in kept:
                case.add_marker(pytest.mark.slow)


def covering(cases: list[tuple[int, ...]], strength: int) -> set[int]:
    """Which cases to take so that all values, pairs, … of any parameters that meet in one of them do.

    Greedy: whichever case has most of what is missing comes next.
    """
    meetings = [set(combinations(enumerate(case), min(strength, len(case)))) for case in cases]
    missing, taken = set().union(*meetings), set()
    while missing:
        best = max(range(len(cases)), key=lambda i: len(meetings[i] & missing))
        taken.add(best)
        missing -= meetings[best]
    return taken
