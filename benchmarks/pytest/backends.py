"""Who is measured. The OpenMP pools of two libraries disturb each other, so a process holds one library.

NumPy, which has no pool here, is the baseline of each group and shares the process of normkernels. The
libraries are those of `normkernels bench --against`.
"""

from functools import cache

import numba

from normkernels.bench.cases import Case
from normkernels.bench.inputs import Inputs
from normkernels.bench.measure import contender
from normkernels.bench.peers import PEERS
from normkernels.bench.peers.peer import Peer
from normkernels.bench.peers.with_numpy import NumPy
from normkernels.bench.timing import Contender
from normkernels.norms import NORMS

OWN, BASELINE = "normkernels", "numpy"


class Own(NumPy):
    """The kernels, which are called as the reference is."""

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        return contender(case, NORMS[case.op].kernels, inputs, slots)


# --backend -> the backends of that process
PROCESSES = {OWN: (OWN, BASELINE)} | {name: (name,) for name in PEERS if name != BASELINE}


def packages(process: str) -> tuple[str, ...]:
    """The packages that a process needs besides."""
    return PEERS[process].needs if process in PEERS else ()


def missing(process: str) -> list[str]:
    """Those that this environment has not."""
    return PEERS[process].missing() if process in PEERS else []


@cache
def backend(name: str) -> Peer:
    """A backend by name; other libraries are imported here and not before."""
    threads = numba.get_num_threads()
    return Own(threads) if name == OWN else PEERS[name].make(threads)
