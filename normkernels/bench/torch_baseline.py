"""The other end of torch_worker: hands it cases, takes its answers."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from types import TracebackType

from .cases import Case
from .results import Baseline, as_json, baseline_from
from .timing import Effort


class WorkerEnded(Exception):
    """The PyTorch process ended before its work was done."""


def available() -> bool:
    """Whether PyTorch is installed."""
    return find_spec("torch") is not None


class TorchBaseline:
    """A PyTorch process, alive inside a `with` block."""

    def __init__(self, threads: int, copy_bytes: int, cache_bytes: int, effort: Effort) -> None:
        # numba's own pool waits without spinning, and leaves OpenMP to PyTorch
        environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "normkernels.bench.torch_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; we end the process
        )
        self._send(
            {
                "threads": threads,
                "copy_bytes": copy_bytes,
                "cache_bytes": cache_bytes,
                "effort": asdict(effort),
            }
        )

    def measure(self, case: Case) -> Baseline | None:
        """PyTorch on one case; None where it has no such norm."""
        self._send(as_json(case))
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerEnded(f"the PyTorch process ended with code {self._process.wait()} at {case.id}")
        return baseline_from(json.loads(answer))

    def __enter__(self) -> "TorchBaseline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.communicate()

    def _send(self, message: dict[str, object]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its answer, or the lack of one, says more
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
