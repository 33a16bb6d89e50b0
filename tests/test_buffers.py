"""Output memory is used again, never too early, and never without bound."""

import gc
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import normkernels as nk
from normkernels import _buffers

ROWS = (512, 1024)
NBYTES = 4 * 512 * 1024


@pytest.fixture(autouse=True)
def empty_pool():
    nk.release_buffers()
    yield
    nk.set_buffer_limit(2**28)
    nk.release_buffers()


def fresh(value=0.0, rows=512):
    """An output of a few megabytes; of zero variance, so that all of it is `value`."""
    x = np.ones((rows, 1024), np.float32)
    return nk.layer_norm(x, 1024, bias=np.full(1024, value, np.float32))


def address(y):
    return y.__array_interface__["data"][0]


def test_memory_of_a_dropped_output_is_used_again():
    first = address(fresh())
    assert address(fresh()) == first


def test_living_outputs_are_apart():
    outputs = [fresh(i) for i in range(5)]
    assert [y[100, 100] for y in outputs] == [0, 1, 2, 3, 4]
    assert len({address(y) for y in outputs}) == 5


@pytest.mark.parametrize(
    "borrow",
    [
        lambda y: y[3:5, ::2],
        lambda y: y.T,
        lambda y: y.view(np.int32).view(np.float32),
        lambda y: np.asarray(memoryview(y)),
        lambda y: np.from_dlpack(y),
        lambda y: np.frombuffer(y, np.float32),
        lambda y: np.lib.stride_tricks.as_strided(y, (7,), (4,)),
    ],
    ids=["slice", "transpose", "view", "memoryview", "dlpack", "frombuffer", "as_strided"],
)
def test_memory_is_not_used_again_while_anything_sees_it(borrow):
    seen = borrow(fresh(3))
    gc.collect()
    others = [fresh(4) for _ in range(3)]
    assert (seen == 3).all()
    assert not any(np.shares_memory(seen, other) for other in others)


def test_an_output_is_an_ordinary_array():
    y = fresh()
    assert type(y) is np.ndarray
    assert y.flags.c_contiguous
    assert y.flags.writeable
    y += 1
    assert (y == 1).all()


def kept(make):
    """Bytes that stay allocated after the outputs of make() are dropped."""
    make()
    nk.release_buffers()
    tracemalloc.start()
    make()
    current, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return current


def make_many():
    outputs = [fresh(rows=512 + 64 * i) for i in range(8)]
    del outputs


def test_what_is_kept_is_bounded():
    nk.set_buffer_limit(3 * NBYTES)
    assert NBYTES <= kept(make_many) <= 3 * NBYTES + 2**16


def test_a_limit_of_zero_keeps_nothing():
    nk.set_buffer_limit(0)
    assert kept(make_many) < 2**16


def test_a_lower_limit_takes_effect_at_once():
    nk.set_buffer_limit(20 * NBYTES)

    def make():
        make_many()
        nk.set_buffer_limit(NBYTES)

    assert kept(make) <= NBYTES + 2**16


def test_release_buffers_keeps_nothing():
    def make():
        make_many()
        nk.release_buffers()

    assert kept(make) < 2**16


def test_limit_must_not_be_negative():
    with pytest.raises(ValueError, match=r"must .*got -1"):
        nk.set_buffer_limit(-1)


PROGRAM = """
import numpy as np, normkernels as nk
x = np.ones((512, 1024), np.float32)
y = nk.layer_norm(x, 1024)
first = y.__array_interface__["data"][0]
del y
hold = np.empty(4 * 512 * 1024 + 100, np.uint8)
y = nk.layer_norm(x, 1024)
print(y.__array_interface__["data"][0] == first)
"""


def in_a_new_process(limit):
    environment = {**os.environ, "NORMKERNELS_BUFFER_BYTES": limit}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False
    )


def test_environment_variable_sets_the_limit():
    assert in_a_new_process(str(2**26)).stdout.strip() == "True"
    assert in_a_new_process("0").stdout.strip() == "False"


def test_environment_variable_that_is_not_a_number():
    result = in_a_new_process("plenty")
    assert result.returncode != 0
    assert "NORMKERNELS_BUFFER_BYTES must" in result.stderr


def test_an_array_may_be_dropped_after_the_module_is_torn_down(monkeypatch):
    """At the end of a process the names of a module become None before the last arrays go."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", ignored.append)
    y = _buffers.empty(2**20, np.dtype(np.float32))
    monkeypatch.setattr(_buffers, "_pool", None)
    del y
    assert not ignored
