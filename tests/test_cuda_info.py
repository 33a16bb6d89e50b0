"""What `normkernels info` says of CUDA, on machines with and without it."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace

import pytest

pytest.importorskip("cuda.bindings", reason="the extra cuda is not installed")
pytest.importorskip("click", reason="the extra bench is not installed")

import cuda.core
from cuda.bindings import driver as bindings

from cuda_fakes import fake_driver  # noqa: F401
from normkernels.bench.device import info, plan
from normkernels.cuda import devices

LIMITS = SimpleNamespace(
    multiprocessor_count=132,
    l2_cache_size=50 << 20,
    max_shared_memory_per_multiprocessor=1,
    max_registers_per_multiprocessor=1,
    max_threads_per_multiprocessor=1,
    max_blocks_per_multiprocessor=1,
)


def device(number):
    if number == 1:
        raise RuntimeError("CUDA_ERROR_DEVICE_UNAVAILABLE:\nit is busy")
    capability = SimpleNamespace(major=9, minor=number)
    return SimpleNamespace(name=f"GPU {number}", compute_capability=capability, properties=LIMITS)


@pytest.fixture(name="three")
def three_devices(driver, monkeypatch):
    monkeypatch.setattr(cuda.core, "Device", device)
    driver.on_cuDeviceGetCount = lambda: (3,)
    driver.on_cuDriverGetVersion = lambda: (13010,)
    driver.on_cuDeviceTotalMem = lambda device: ((device + 1) << 30,)
    monkeypatch.setattr(plan.driver_version, "__defaults__", (plan.Path("nowhere"),))
    devices.properties.cache_clear()
    yield driver
    devices.properties.cache_clear()


def test_every_device_is_a_line(three, normkernels):
    shown = normkernels("info")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-5:] == [
        f"numba-cuda       {version('numba-cuda')}",
        "driver           CUDA 13.1",
        "device 0         GPU 0, 1.0 GB, compute capability 9.0",
        "device 1         RuntimeError: CUDA_ERROR_DEVICE_UNAVAILABLE: it is busy",
        "device 2         GPU 2, 3.0 GB, compute capability 9.2",
    ]


def test_without_a_device_it_says_what_is_missing(driver, normkernels):
    driver.fails["cuInit"] = bindings.CUresult.CUDA_ERROR_NO_DEVICE
    shown = normkernels("info")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[-1] == f"cuda             {devices.DRIVER}; got CUDA_ERROR_NO_DEVICE"
    assert shown.out.splitlines()[-2].startswith("numba-cuda ")


def test_without_the_packages_it_says_what_to_install(normkernels, monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(info, "version", absent)
    shown = normkernels("info")
    assert (shown.code, shown.out.splitlines()[-1]) == (0, f"cuda             {devices.EXTRA}")


def test_in_the_simulator():
    command = [sys.executable, "-m", "normkernels.cli", "info"]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].startswith("cuda             numba's simulator")
