"""Tests that need a device, or what stands for one.

That is numba's simulator (``NUMBA_ENABLE_CUDASIM=1``), or the host (``NORMKERNELS_TEST_DEVICE=host``,
host_device.py); `.ci/run` runs them there. Elsewhere nothing of this folder is collected.
"""

import gc
import os
from dataclasses import replace
from pathlib import Path

import pytest

from normkernels._devices import DeviceUnavailable

HOST = None
if os.environ.get("NORMKERNELS_TEST_DEVICE") == "host":
    import host_device

    HOST = host_device.install()

try:
    from normkernels.cuda import config, devices, strip_rules

    devices.require()
except DeviceUnavailable:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """Without a device threads are Python's: blocks of few rows are not filled up with idle ones."""
    if HOST or devices.simulated():
        for name, rule in vars(config).items():
            if isinstance(rule, config.Rule):
                monkeypatch.setattr(config, name, replace(rule, block=32))
        for name in ("STRIPS", "STRIPS_FUSED_BACKWARD"):
            small = tuple(replace(rule, threads=64) for rule in getattr(strip_rules, name))
            monkeypatch.setattr(strip_rules, name, small)
        monkeypatch.setattr(config, "MERGING_BLOCK", 32)
        monkeypatch.setattr(config, "MERGING", 32)


@pytest.fixture(autouse=True)
def _nothing_beside_arrays():
    """On the host, what a kernel writes beside an array is seen when that is freed."""
    yield
    if HOST:
        gc.collect()
        faults, HOST.faults = HOST.faults, []
        assert not faults


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.cuda)
