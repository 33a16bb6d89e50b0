"""Lengths, places and devices that launch rules are walked through with."""

from dataclasses import replace

import numpy as np

from normkernels.cuda.devices import SIMULATED

LONGEST = 300_000
ITEMSIZES = (2, 4, 8)
# Where arrays begin, in elements: all at a multiple of 16 bytes, all elsewhere, each somewhere.
PLACES = {"aligned": (0, 0, 0), "alike": (1, 1, 1), "unlike": (0, 1, 0)}
LARGE, SMALL = SIMULATED, replace(SIMULATED, multiprocessors=68)


def lengths() -> list[int]:
    """All of the shorter ones; then on both sides of powers of two, and everywhere some of each remainder."""
    powers = [n + d for n in 2 ** np.arange(11, 19) for d in range(-9, 10)]
    spread = [n + d for n in np.geomspace(2100, LONGEST, 30).astype(int) for d in range(8)]
    return sorted({*range(1, 2100), *map(int, powers + spread), LONGEST})
