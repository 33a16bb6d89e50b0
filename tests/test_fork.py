"""A forked child works, whatever its parent and the parent's threads did or held."""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import numba
import numpy as np
import pytest

import normkernels as nk
from normkernels import _buffers
from normkernels.cpu import parallel

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

X = np.random.default_rng(1).standard_normal((2048, 512), dtype=np.float32)


def norms():
    """Outputs beyond the sizes from which threads and the buffer pool serve."""
    y, saved = nk.layer_norm_forward(X, 512)
    return y, nk.layer_norm_backward(X, saved).dx


def in_child(work, seconds=100):
    """Whether work() is true in a forked child; the child ends with its answer, or at its limit of time."""
    child = os.fork()
    if child == 0:
        code = 2
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            code = 0 if work() else 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_norms_after_its_parent_used_threads():
    expected = norms()
    assert in_child(lambda: all(np.array_equal(a, b) for a, b in zip(norms(), expected, strict=True)))


def test_a_child_has_one_thread_also_where_more_are_asked_for():
    assert parallel.team_size(2) == 2
    assert in_child(lambda: parallel.team_size(2) == parallel.team_size(None) == 1)
    assert in_child(lambda: in_child(lambda: parallel.team_size(2) == 1))


def test_a_child_compiles():
    norms()
    assert in_child(lambda: np.isfinite(nk.rms_norm(np.ones((2, 3)), 3, np.ones(3), activation="relu")).all())


@pytest.mark.parametrize(
    "lock", [parallel.global_compiler_lock, _buffers._pool.lock], ids=["compiler", "buffers"]
)
def test_a_fork_waits_for_what_another_thread_holds(lock):
    held = threading.Event()

    def hold():
        lock.acquire()
        held.set()
        time.sleep(0.3)  # a child made meanwhile would find the lock held for good
        lock.release()

    def takes_the_lock():
        return lock.acquire(timeout=5) if lock is _buffers._pool.lock else compiles()

    def compiles():
        return numba.njit(lambda x: 2 * x)(21) == 42

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    worked = in_child(takes_the_lock, seconds=20)
    thread.join()
    assert worked


def test_a_child_that_imports_first_is_serial(monkeypatch):
    """Its parent may have used the pool for kernels of its own."""
    code = """
import multiprocessing, numba, numpy as np
@numba.njit(parallel=True)
def total(x):
    s = 0.0
    for i in numba.prange(len(x)): s += x[i]
    return s
def child():
    import normkernels as nk
    assert nk.layer_norm(np.ones((512, 1024), np.float32), 1024).shape == (512, 1024)
total(np.ones(1000))
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=100)


BUSY = """
import os, threading, warnings
import numpy as np, normkernels as nk
warnings.simplefilter("ignore", DeprecationWarning)
x = np.ones((1024, 1024), np.float32)
nk.layer_norm(x, 1024)
stop = False
def work():
    while not stop:
        nk.layer_norm(x, 1024)
threads = [threading.Thread(target=work) for _ in range(3)]
for t in threads: t.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        nk.layer_norm(x, 1024)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop = True
for t in threads: t.join()
print("forked")
"""


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["workqueue", "omp"])
def test_forks_beside_busy_threads(layer):
    environment = {**os.environ, "NUMBA_THREADING_LAYER": layer}
    result = subprocess.run(
        [sys.executable, "-c", BUSY],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.stdout == "forked\n", result.stderr
