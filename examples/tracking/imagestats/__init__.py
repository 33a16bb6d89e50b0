"""Statistics of stacks of images, compiled by numba."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def contrast(images):
    """The standard deviation of every image of a stack (n, height, width)."""
    result = np.empty(len(images))
    for i in numba.prange(len(images)):
        total = squares = 0.0
        for row in images[i]:
            for value in row:
                total += value
                squares += value * value
        mean = total / images[i].size
        result[i] = np.sqrt(squares / images[i].size - mean * mean)
    return result


@numba.njit(cache=True)
def histogram(image, bins):
    """How many values of an image in [0, 1) fall into each of `bins` equal parts."""
    counts = np.zeros(bins, np.int64)
    for value in image.ravel():
        counts[int(value * bins)] += 1
    return counts
