"""The other end of torch_worker: hands it cases, takes its answers."""

from dataclasses import asdict
from importlib.util import find_spec

from .cases import Case
from .process import Process
from .results import Baseline, as_json
from .schema import made
from .timing import Effort


def available() -> bool:
    """Whether PyTorch is installed."""
    return find_spec("torch") is not None


class TorchBaseline(Process):
    """A PyTorch process, alive inside a `with` block."""

    def __init__(self, threads: int, copy_bytes: int, cache_bytes: int, effort: Effort) -> None:
        super().__init__(
            "PyTorch",
            "normkernels.bench.torch_worker",
            setup={
                "threads": threads,
                "copy_bytes": copy_bytes,
                "cache_bytes": cache_bytes,
                "effort": asdict(effort),
            },
            # numba's own pool waits without spinning, and leaves OpenMP to PyTorch
            environment={"NUMBA_THREADING_LAYER": "workqueue"},
        )

    def measure(self, case: Case) -> Baseline | None:
        """PyTorch on one case; None where it has no such norm."""
        answer = self.ask(as_json(case), case.id)
        return made(Baseline, answer) if answer else None
