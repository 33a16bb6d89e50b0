"""How much memory a pass takes."""

from contextlib import suppress
from itertools import product

from .cases import CASES, PASSES, call


def batch(case: str) -> int:
    return 1 if case.startswith("weight_norm") else 16


class Memory:
    """The most memory that a process ever had which makes the tensors and runs a pass five times.

    Python, numba and the tensors are most of it, and the same at every commit; what moves is what
    the package keeps besides.
    """

    version = "1"
    params = (list(CASES), list(PASSES))
    param_names = ("case", "pass")
    timeout = 120

    def setup_cache(self) -> None:
        """Compile all of it: in a process of its own, since that takes more memory than any kernel."""
        for case, pass_ in product(*self.params):
            with suppress(NotImplementedError):
                call(case, batch(case), pass_)()

    setup_cache.timeout = 600  # type: ignore[attr-defined]

    def setup(self, case: str, pass_: str) -> None:
        self.run = call(case, batch(case), pass_)

    def peakmem_pass(self, case: str, pass_: str) -> None:
        for _ in range(5):
            self.run()
