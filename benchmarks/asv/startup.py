"""What the first call costs, and the import. Every sample is an interpreter of its own."""

import subprocess
import sys
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import normkernels

CASES = ["layer_norm/128x768", "batch_norm/64x56x56"]

READY = """
import os, sys
os.environ["NUMBA_CACHE_DIR"] = {cache!r}
sys.path.insert(0, {here!r})
from cases import call
first_call = call({case!r}, 1, "forward")
"""


class FirstCall:
    """Seconds until a forward has returned for the first time in a process; numba is imported already.

    Cold: the kernel cache is empty, and everything is compiled. Warm: an earlier process filled it.
    """

    version = "1"
    params = (CASES,)
    param_names = ("case",)
    rounds = 1
    repeat = 7  # the fewest with which asv can find a difference: see speed.py
    number = 1
    warmup_time = 0
    timeout = 300

    def setup(self, case: str) -> None:
        if not hasattr(normkernels, case.partition("/")[0]):
            raise NotImplementedError(f"this commit has no {case}")
        self.directory = mkdtemp()

    def teardown(self, case: str) -> None:
        if hasattr(self, "directory"):
            rmtree(self.directory)

    def _ready(self, case: str, cache: str) -> str:
        return READY.format(cache=cache, here=str(Path(__file__).parent), case=case)

    def timeraw_cold_cache(self, case: str) -> tuple[str, str]:
        return "first_call()", self._ready(case, mkdtemp(dir=self.directory))

    def timeraw_warm_cache(self, case: str) -> tuple[str, str]:
        ready = self._ready(case, f"{self.directory}/warm")
        if not Path(self.directory, "warm").exists():
            subprocess.run([sys.executable, "-c", ready + "first_call()"], check=True)
        return "first_call()", ready


class Import:
    """Seconds of the import in a new interpreter."""

    version = "1"
    rounds = 2
    repeat = 4
    number = 1
    warmup_time = 0
    timeout = 120

    def timeraw_all(self) -> str:
        """With numba and NumPy, which take most of it."""
        return "import normkernels"

    def timeraw_after_numba(self) -> tuple[str, str]:
        """What the package itself adds."""
        return "import normkernels", "import numba"
