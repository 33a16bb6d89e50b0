"""Tests that need a device: a real one, or numba's simulator (``NUMBA_ENABLE_CUDASIM=1``).

Elsewhere nothing of this folder is collected; tests/test_cuda_simulator.py runs it in the simulator.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from normkernels._devices import DeviceUnavailable

try:
    from normkernels.cuda import config, devices, strip_rules

    devices.require()
except DeviceUnavailable:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """In the simulator a thread is one of Python: blocks of few rows are not filled up with idle ones."""
    if devices.simulated():
        for name, rule in vars(config).items():
            if isinstance(rule, config.Rule):
                monkeypatch.setattr(config, name, replace(rule, block=32))
        for name in ("STRIPS", "STRIPS_FUSED_BACKWARD"):
            small = tuple(replace(rule, threads=64) for rule in getattr(strip_rules, name))
            monkeypatch.setattr(strip_rules, name, small)
        monkeypatch.setattr(config, "MERGING_BLOCK", 32)
        monkeypatch.setattr(config, "MERGING", 32)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.cuda)
