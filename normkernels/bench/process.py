"""Another Python process that answers lines of JSON."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from threading import Timer
from types import TracebackType
from typing import Any, Self


class WorkerEnded(Exception):
    """The other process ended before its work was done."""


class Process:
    """`python -m module arguments`, alive inside a `with` block; `setup` is what it is told first."""

    def __init__(
        self,
        name: str,
        module: str,
        *arguments: str,
        setup: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._name, self._late = name, False
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for us; we end the process
        )
        self._send(setup)

    def ask(self, message: Mapping[str, Any] | None, what: str, seconds: float | None = None) -> Any:
        """The answer to a message about `what`, or to none, within so many seconds; raises WorkerEnded."""
        if message is not None:
            self._send(message)
        assert self._process.stdout is not None
        late = Timer(seconds or 0.0, self._time_out)
        if seconds is not None:
            late.start()
        try:
            answer = self._process.stdout.readline()
        finally:
            late.cancel()
        if answer:
            return json.loads(answer)
        code = self._process.wait()
        if self._late:
            raise WorkerEnded(f"the {self._name} process took longer than {seconds:.0f} s at {what}")
        raise WorkerEnded(f"the {self._name} process ended with code {code} at {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._process.communicate()

    def _time_out(self) -> None:
        self._late = True
        self._end()

    def _end(self) -> None:
        """With the processes that it has started."""
        with suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its answer, or the lack of one, says more
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
