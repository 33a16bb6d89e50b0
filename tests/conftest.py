"""Fixtures of all tests; what they call is in helpers.py."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import settings

settings.register_profile("normkernels", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("normkernels")


SIMULATOR = "test_cuda_simulator.py"


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """What waits for the simulator comes last."""
    items.sort(key=lambda item: item.path.name == SIMULATOR)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say why there are no tests of a device."""
    if config.option.markexpr == "cuda":
        from normkernels.cuda import devices

        try:
            devices.require()
        except devices.DeviceUnavailable as error:
            terminalreporter.write_line(f"-m cuda needs a device, or NUMBA_ENABLE_CUDASIM=1: {error}")


@pytest.fixture(scope="session", autouse=True)
def simulator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tests of tests/cuda in numba's simulator, beside the others: they take minutes of one processor."""
    if not any(item.path.name == SIMULATOR for item in request.session.items):
        yield None
        return
    tests, log = Path(__file__).parent, tmp_path_factory.mktemp("simulator") / "log"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-p", "no:cacheprovider", str(tests / "cuda")]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    with log.open("wb") as out:
        run = subprocess.Popen(command, cwd=tests.parent, env=environment, stdout=out, stderr=out)
    psutil.Process(run.pid).nice(19)  # some of the other tests have limits of time
    yield run, log
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
