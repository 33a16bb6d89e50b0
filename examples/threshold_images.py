"""Find what stands out in a stack of images, without ever writing the standardized images.

Every image is brought to mean 0 and variance 1 and compared with a threshold, in one parallel loop: what
`normkernels.jit` is for. Run it: `python examples/threshold_images.py`.
"""

import numba
import numpy as np

from normkernels import jit


@numba.njit(parallel=True)
def bright_pixels(images, sds, mask):
    """Mark pixels that are more than `sds` standard deviations above the mean of their image; count them."""
    counts = np.zeros(len(images), np.int64)
    for i in numba.prange(len(images)):
        mean, var = jit.moments(images[i])
        limit = mean + sds * np.sqrt(var)
        for k in range(images.shape[1]):
            mask[i, k] = images[i, k] > limit
            counts[i] += mask[i, k]
    return counts


def main() -> None:
    """Stars on a bright sky: one part in ten thousand of the mean, invisible to float32 sums."""
    rng = np.random.default_rng(0)
    images = (1e4 + rng.standard_normal((64, 256, 256))).astype(np.float32)
    stars = rng.integers(0, 256 * 256, (64, 10))
    flat = images.reshape(64, -1)
    np.put_along_axis(flat, stars, np.float32(1e4 + 12), axis=1)

    mask = np.empty(flat.shape, np.bool_)
    counts = bright_pixels(flat, 8.0, mask)
    found = np.take_along_axis(mask, stars, axis=1).all()
    print(f"{counts.sum()} bright pixels in {len(images)} images; every star found: {found}")


if __name__ == "__main__":
    main()
