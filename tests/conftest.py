"""Fixtures of all tests; what they call is in helpers.py."""

import os

if os.environ.get("NORMKERNELS_TEST_DEVICE") == "host":  # before numba is imported: host_device.py says why
    os.environ["LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS"] = "0"

import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("normkernels", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("normkernels")


WITHOUT_DEVICE = "test_cuda_without_device.py"
# What stands for a device: numba's simulator, which runs Python; the host, which runs what is compiled, and
# since that takes seconds a variant, only the tests that meet every kernel and every way through it.
STAND_INS = {
    "simulator": {"NUMBA_ENABLE_CUDASIM": "1", "NORMKERNELS_TEST_DEVICE": ""},
    "host": {"NUMBA_ENABLE_CUDASIM": "0", "NORMKERNELS_TEST_DEVICE": "host"},
}


ON_HOST = "several or dtypes or evaluation or renormalization or training or odd"


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """What waits for other processes comes last."""
    items.sort(key=lambda item: item.path.name == WITHOUT_DEVICE)


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


@pytest.fixture(scope="session", autouse=True)
def without_device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tests of tests/cuda on what stands for a device, beside the others: they take minutes each."""
    if not any(item.path.name == WITHOUT_DEVICE for item in request.session.items):
        yield None
        return
    tests, folder, runs = Path(__file__).parent, tmp_path_factory.mktemp("without_device"), {}
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", str(tests / "cuda")]
    for kind, environment in STAND_INS.items():
        log = folder / kind
        with log.open("wb") as out:
            some = ["-k", ON_HOST] if kind == "host" else []
            run = subprocess.Popen(
                [*command, *some], cwd=tests.parent, env={**os.environ, **environment}, stdout=out, stderr=out
            )
        psutil.Process(run.pid).nice(19)  # some of the other tests have limits of time
        runs[kind] = run, log
    yield runs
    for run, _ in runs.values():
        run.kill()
        run.wait()


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
    """Run the command in an empty folder, with a small copy."""
    from normkernels import cli
    from normkernels.bench import run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "copy_bytes", lambda cache_bytes: 1 << 20)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["normkernels", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Outcome(code, *capsys.readouterr())

    return call
