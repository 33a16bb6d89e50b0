"""The tests of tests/cuda where there is no device; conftest.py starts them before others."""

import importlib.util

import pytest


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda is not installed")
@pytest.mark.parametrize("kind", ["simulator", "host"])
def test_norms(without_device, kind):
    run, log = without_device[kind]
    code = run.wait(timeout=1800)
    text = log.read_text(errors="replace")
    assert code == 0, text[-10_000:]
    assert " passed" in text
