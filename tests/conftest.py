"""Fixtures of all tests; what they call is in helpers.py."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("normkernels", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("normkernels")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)
