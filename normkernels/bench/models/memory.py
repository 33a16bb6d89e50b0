"""The memory that a model needs: the largest resident size of a process that does nothing else."""

import multiprocessing
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from pathlib import Path

from ..process import WorkerEnded
from .cases import Case


class Memory:
    """Processes, one for each model, with everything imported before they begin."""

    def __init__(self, pool: ProcessPoolExecutor, threads: int) -> None:
        self._pool, self._threads = pool, threads

    def peaks(self, case: Case) -> tuple[int, int]:
        """Bytes before and after; raises WorkerEnded."""
        before, after = (self._peak(case, variant) for variant in (0, 1))
        return before, after

    def _peak(self, case: Case, variant: int) -> int:
        try:
            return self._pool.submit(_peak, case, variant, self._threads).result()
        except BrokenProcessPool:
            raise WorkerEnded(f"the process that measures memory ended at {case}") from None


@contextmanager
def measuring(threads: int, modules: tuple[str, ...]) -> Iterator[Memory]:
    """For so many threads of a step; models need `modules`."""
    context = multiprocessing.get_context("forkserver")  # a fork of this process would lack its threads
    context.set_forkserver_preload(["normkernels.bench.models.steps", *modules])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        yield Memory(pool, threads)


def _peak(case: Case, variant: int, threads: int) -> int:
    """In a process of its own. The first step does not count, where the system can be told to forget it."""
    import torch

    from ...torch import replace_norms
    from . import steps

    torch.set_num_threads(threads)
    model = steps.made(case)
    if variant:
        replace_norms(model, report=None)
    step = steps.step_of(model, steps.compiled(model, case), case)
    step()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    step()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
