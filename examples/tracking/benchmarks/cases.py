"""What `normkernels ab` compares in this project: names, and functions that prepare cases."""

import imagestats
import numpy as np


def contrast():
    images = np.random.default_rng(0).random((64, 128, 128), dtype=np.float32)

    def check():
        np.testing.assert_allclose(imagestats.contrast(images), images.std((1, 2)), rtol=1e-3)

    return lambda: imagestats.contrast(images), check, images.nbytes


def histogram():
    image = np.random.default_rng(0).random((512, 512), dtype=np.float32)

    def check():
        assert imagestats.histogram(image, 16).sum() == image.size

    return lambda: imagestats.histogram(image, 16), check, image.nbytes


def cases():
    return {"contrast/64x128x128": contrast, "histogram/512x512": histogram}
