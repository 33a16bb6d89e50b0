"""Fixtures of all tests; what they call is in helpers.py."""

import os

# Before numba is imported. Threads that wait leave the cores to other workers.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if os.environ.get("NORMKERNELS_TEST_DEVICE") == "host":  # host_device.py says why
    os.environ["LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"] = "0"

import gc
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from covering import mark_slow

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("normkernels", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("normkernels")


MOST_WORKERS = 4  # to each its own imports, and its own copy of what is compiled
# Norms that share kernels are tested by one worker: what two compile at once is compiled twice.
SHARED = {
    "channels": ("batch_norm", "batch_renorm"),
    "rows": ("layer_norm", "rms_norm", "weight_norm", "group_norm", "instance_norm"),
}


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: Any) -> None:
    """`pytest` by itself takes several processes; with files, markers, -n0 or --pdb it is one."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # this is one of them
        return
    option = config.option
    whole = config.args_source is config.ArgsSource.TESTPATHS and option.markexpr in config.getini("addopts")
    if whole and config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        option.numprocesses = 0 if option.usepdb else min(MOST_WORKERS, os.cpu_count() or 1)
        option.dist = "loadscope"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`--dist loadscope` goes by the kernels that are tested, else by files."""
    if config.option.dist != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class ByKernels(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            found = (family for family, norms in SHARED.items() if any(norm in nodeid for norm in norms))
            return next(found, nodeid.partition("::")[0])

    return ByKernels(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    mark_slow(items)
    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
    if simulated or os.environ.get("NORMKERNELS_TEST_DEVICE") == "host":
        for item in items:
            if item.get_closest_marker("cuda") and item.path.parent.name != "cuda":
                item.add_marker(pytest.mark.skip(reason="compiles for a device, not for what stands for one"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say why there are no tests of a device."""
    if config.option.markexpr == "cuda":
        from normkernels.cuda import devices

        try:
            devices.require()
        except devices.DeviceUnavailable as error:
            stand_ins = "NUMBA_ENABLE_CUDASIM=1 or NORMKERNELS_TEST_DEVICE=host"
            terminalreporter.write_line(f"-m cuda needs a device, or {stand_ins}: {error}")
        except devices.FatalDeviceError:
            pass  # the tests have said so


@pytest.fixture(scope="module", autouse=True)
def _little_to_collect() -> None:
    """What there is by now is left out by gc.collect(), which would take a second otherwise."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _gradients_of_pytorch() -> Iterator[None]:
    """A library to compare with switches them off, for the process that is meant to be its own."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_grad_enabled(True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


@dataclass
class Outcome:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def normkernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command in an empty folder, with a small copy and NumPy timed once."""
    from normkernels import cli
    from normkernels.bench import measure, run, timing

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "copy_bytes", lambda cache_bytes: 1 << 20)
    monkeypatch.setattr(measure, "BASELINE", timing.Effort(seconds=0, least=1, most=1))

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["normkernels", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Outcome(code, *capsys.readouterr())

    return call
