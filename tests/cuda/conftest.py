"""Tests that need a device: a real one, or numba's simulator (``NUMBA_ENABLE_CUDASIM=1``).

Elsewhere nothing of this folder is collected; tests/test_cuda_simulator.py runs it in the simulator.
"""

import pytest

from normkernels._devices import DeviceUnavailable

try:
    from normkernels.cuda import devices

    devices.require()
    SIMULATED = devices.simulated()
except DeviceUnavailable:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.cuda)
