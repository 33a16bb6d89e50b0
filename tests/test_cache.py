"""The cache of machine code on disk costs time at worst, never a result."""

import contextlib
import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numba
import pytest
from numba.core.caching import CompileResultCacheImpl

from normkernels.cpu import cache, jit

COMPILED = []


def double(x):
    return 2 * x


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Make a kernel afresh, as a new process would, its cache in an empty folder; compilations count."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    say = cache.KernelCache._say
    monkeypatch.setattr(cache.KernelCache, "_say", lambda self, sig: (COMPILED.append(sig), say(self, sig)))
    COMPILED.clear()
    return lambda function=double: jit.Kernel(function, f"test_cache.{function.__name__}", function)


def files(tmp_path):
    return sorted(p for p in tmp_path.rglob("*") if p.is_file())


def test_a_second_process_loads_what_the_first_compiled(kernel, tmp_path):
    assert kernel()(21) == kernel()(21) == 42
    assert len(COMPILED) == 1
    (file,) = files(tmp_path)
    assert file.name.startswith("test_cache.double-")


def test_every_signature_has_a_file_of_its_own(kernel, tmp_path):
    kernel()(1)
    kernel()(1.5)
    assert len(files(tmp_path)) == len(COMPILED) == 2
    assert kernel()(1.5) == 3.0
    assert kernel()(1) == 2
    assert len(COMPILED) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes()[:20]),
        lambda file: file.write_bytes(os.urandom(4096)),
        lambda file: file.write_bytes(file.read_bytes()[:90] + b"x" + file.read_bytes()[91:]),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["empty", "cut", "cut in its digest", "garbage", "one byte", "a folder"],
)
def test_a_damaged_file_is_compiled_again(kernel, tmp_path, damage):
    kernel()(21)
    (file,) = files(tmp_path)
    damage(file)
    assert kernel()(21) == 42
    assert len(COMPILED) == 2
    if file.is_file():
        assert kernel()(21) == 42
        assert len(COMPILED) == 2


def refuse(*args, **kwargs):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("step", ["write_bytes", "mkdir", "read_bytes"])
def test_errors_of_the_disk_cost_no_result(kernel, tmp_path, monkeypatch, step):
    if step == "read_bytes":
        kernel()(21)
    another = kernel()
    monkeypatch.setattr(Path, step, refuse)
    assert another(21) == 42


def test_a_file_that_cannot_be_put_in_place_leaves_nothing(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.os, "replace", refuse)
    assert kernel()(21) == 42
    assert files(tmp_path) == []


def test_after_a_change_the_old_code_is_never_used_even_where_the_disk_is_full(kernel, tmp_path, monkeypatch):
    kernel()(21)
    monkeypatch.setattr(jit, "_PARTS", jit._PARTS + b" ")
    another = kernel()
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert another(21) == 42
    assert len(COMPILED) == 2


def test_a_new_version_replaces_the_file_of_the_old(kernel, tmp_path, monkeypatch):
    kernel()(21)
    monkeypatch.setattr(cache, "VERSIONS", ("0.0", "0.0"))
    assert kernel()(21) == kernel()(21) == 42
    assert len(COMPILED) == 2
    assert len(files(tmp_path)) == 1


def test_code_of_another_signature_is_not_run(kernel, tmp_path, monkeypatch):
    """A file in the place of another: its digest is right, what it holds is not what was asked for."""
    kernel()(1)
    (integers,) = files(tmp_path)
    kernel()(1.5)
    (floats,) = set(files(tmp_path)) - {integers}
    floats.write_bytes(integers.read_bytes())
    assert kernel()(1.5) == 3.0
    assert len(COMPILED) == 3


def test_without_a_writable_place_kernels_are_compiled_in_every_process(kernel, monkeypatch):
    def no_locator(self, function):
        raise RuntimeError("no locator available")

    monkeypatch.setattr(CompileResultCacheImpl, "__init__", no_locator)
    assert kernel()(21) == kernel()(21) == 42
    assert kernel().stats.cache_path is None
    assert len(COMPILED) == 2


@pytest.mark.parametrize("left", ["nothing", "an old version"])
def test_of_two_that_start_cold_one_compiles(kernel, monkeypatch, left):
    """The second, here a thread, waits at the lock of the file, and then loads what the first compiled."""
    if left == "an old version":
        kernel()(21)
        monkeypatch.setattr(cache, "VERSIONS", ("0.0", "0.0"))
        COMPILED.clear()
    first, second = kernel(), kernel()
    path = first._cache._path(first._cache._key((numba.types.int64,), first.targetctx.codegen()))
    path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(1) as pool:
        with cache.FileLock(f"{path}.lock"):  # as the process has it that is compiling
            waiting = pool.submit(second, 21)
            with pytest.raises(TimeoutError):
                waiting.result(0.3)
            assert COMPILED == []
            with monkeypatch.context() as own:
                own.setattr(cache.KernelCache, "alone", lambda *args: contextlib.nullcontext())
                assert first(21) == 42
        assert waiting.result(60) == 42
    assert len(COMPILED) == 1


def test_a_lock_that_nobody_gives_back_is_not_waited_for_in_vain(kernel, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "LONGEST_WAIT_S", 0.1)
    waiting = kernel()
    key = waiting._cache._key((numba.types.int64,), waiting.targetctx.codegen())
    path = waiting._cache._path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.FileLock(f"{path}.lock"):
        assert waiting(21) == 42


def test_a_compilation_is_said_once(kernel, caplog, capsys, monkeypatch):
    monkeypatch.delenv(cache.QUIET, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with caplog.at_level(logging.INFO, "normkernels"):
        for _ in range(2):
            kernel()(21)
    (said,) = [r.message for r in caplog.records]
    assert said.startswith("compiling test_cache.double, kept in ")
    assert said.endswith("ahead of use: normkernels compile")
    assert capsys.readouterr().err == f"normkernels: {said}\n"


@pytest.mark.parametrize("reason", ["no terminal", "quiet"])
def test_nothing_is_printed_where_nobody_reads_it(kernel, capsys, monkeypatch, reason):
    monkeypatch.delenv(cache.QUIET, raising=False)
    if reason == "quiet":
        monkeypatch.setenv(cache.QUIET, "1")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    kernel()(21)
    assert capsys.readouterr().err == ""


COLD = """
import sys, numpy as np, ml_dtypes, normkernels as nk
dtype, activation = sys.argv[1:]
x = np.arange(12.0).reshape(3, 4).astype(dtype)
y = nk.layer_norm(x, 4, activation=activation or None)
reference = nk.reference.layer_norm(x.astype(float), 4)
if activation: reference = np.maximum(reference, 0)
assert y.dtype == x.dtype and abs(y.astype(float) - reference).max() < 0.02, y
"""


@pytest.mark.slow
def test_many_cold_processes_share_one_folder(tmp_path):
    """Each with a dtype and a fusion of its own; then each again, with what the others left."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    kinds = [(d, a) for d in ("float32", "float64", "float16", "bfloat16") for a in ("", "relu")]
    for _ in range(2):
        processes = [
            subprocess.Popen([sys.executable, "-c", COLD, *kind], env=environment, stderr=subprocess.PIPE)
            for kind in kinds
        ]
        for process in processes:
            assert process.communicate()[1] == b""
            assert process.returncode == 0
    assert len(files(tmp_path)) == len(kinds)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ulimit")
def test_a_full_disk_costs_no_result(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = f"ulimit -f 8; exec {sys.executable} -c '{COLD}' float32 ''"
    result = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert [p for p in files(tmp_path) if p.suffix == ".nbc"] == []
