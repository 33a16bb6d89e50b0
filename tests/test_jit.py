"""How kernels are compiled and kept."""

import os
import subprocess
import sys

from numba.core.dispatcher import Dispatcher

from normkernels.cpu import jit


def double(x):
    return 2 * x


def test_kernels_are_compiled_where_no_cache_can_be_written(monkeypatch):
    def refuse(dispatcher):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(Dispatcher, "enable_caching", refuse)
    kernel = jit.Kernel(double)
    assert kernel.serial(21) == 42
    assert kernel.parallel.stats.cache_path is None


def test_serial_and_parallel_forms_have_caches_of_their_own():
    kernel = jit.Kernel(double)
    files = {form._cache._cache_file._index_name for form in (kernel.serial, kernel.parallel)}
    assert len(files) == 2


def test_a_change_in_a_primitive_makes_a_new_stamp(monkeypatch):
    before = jit._source_stamp(double)
    monkeypatch.setattr(jit, "_PARTS", jit._PARTS + b" ")
    assert jit._source_stamp(double) != before


def test_import_without_the_compiler_is_one_clear_line():
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    result = subprocess.run(
        [sys.executable, "-c", "import normkernels"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (
        "ImportError: normkernels needs numba's compiler: NUMBA_DISABLE_JIT must not be set" in result.stderr
    )
