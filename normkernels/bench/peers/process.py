"""The other end of a worker: hands it cases, takes its answers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..cases import Case
from ..process import Process, WorkerEnded
from ..results import Baseline, as_json
from ..schema import made
from ..timing import Effort
from . import PEERS

# Within which a library has to start, and to answer for a case: torch.compile takes a minute for some.
SECONDS = 300.0


class PeerProcess(Process):
    """A library in a process of its own, alive inside a `with` block; what goes wrong becomes a note."""

    def __init__(
        self,
        name: str,
        cases: Sequence[Case],
        threads: int,
        copy_bytes: int,
        cache_bytes: int,
        effort: Effort,
        notes: list[str],
    ) -> None:
        self.name, self._notes, self._title = name, notes, PEERS[name].title
        self._cases, self._has = list(cases), set[str]()
        super().__init__(
            self._title,
            "normkernels.bench.peers.worker",
            PEERS[name].where,
            setup={
                "name": name,
                "cases": [as_json(case) for case in cases],
                "threads": threads,
                "copy_bytes": copy_bytes,
                "cache_bytes": cache_bytes,
                "effort": asdict(effort),
            },
            # numba's own pool waits without spinning, and leaves OpenMP to the library
            environment={"NUMBA_THREADING_LAYER": "workqueue"},
        )

    def start(self) -> None:
        """Wait until the library is imported, and learn which cases it has."""
        answer = self._answered(None)
        if answer is None:
            return
        self._has = {case.id for case, has in zip(self._cases, answer, strict=True) if has}
        if not self._has:
            self._notes.append(f"{self._title} has none of these cases")

    def measure(self, case: Case) -> Baseline | None:
        """What the library took for one case; None where it has no such norm, or computes something else."""
        answer = self._answered(case) if case.id in self._has else None
        return made(Baseline, answer) if answer else None

    def _answered(self, case: Case | None) -> Any:
        try:
            what = case.id if case else "its start"
            message = as_json(case) if case else None
            said = self.ask(message, what, SECONDS)
        except WorkerEnded as error:
            self._has.clear()
            self._notes.append(f"{error}: {self._title} was not measured any further")
            return None
        if "problem" in said:
            self._notes.append(f"{self._title} was not measured: {said['problem']}")
        return said.get("answer")
