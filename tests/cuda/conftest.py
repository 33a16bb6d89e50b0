"""Tests of kernels in numba's simulator, which has to be chosen before numba is imported.

NUMBA_ENABLE_CUDASIM=1 pytest tests/cuda
"""

import os

collect_ignore_glob = [] if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1" else ["test_*.py"]
