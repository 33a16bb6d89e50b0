"""Benchmarks for airspeed velocity, run against any commit of normkernels: see docs/asv.md.

Old commits are timed with these files, so they hold everything that a case is made of and use nothing of
normkernels but its public functions.
"""

import os
from pathlib import Path

# A cache of kernels for each commit, so that none ever runs another's. Before numba is first imported.
_cache = os.environ.get("NUMBA_CACHE_DIR")
if "ASV_CONF_DIR" in os.environ and _cache and not Path(_cache).is_absolute():
    _commit = os.environ.get("ASV_COMMIT", "working-tree")
    os.environ["NUMBA_CACHE_DIR"] = str(Path(os.environ["ASV_CONF_DIR"], _cache, _commit))
