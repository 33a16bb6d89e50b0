"""The tests of tests/cuda without a device, in numba's simulator; conftest.py starts them before others."""

import importlib.util

import pytest


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
def test_norms_in_the_simulator(simulator):
    run, log = simulator
    code = run.wait(timeout=1800)
    text = log.read_text(errors="replace")
    assert code == 0, text[-10_000:]
    assert " passed" in text
