"""Kernels on PyTorch's threads."""

import ctypes
import sys

import numpy as np
import pytest

import normkernels as nk

torch = pytest.importorskip("torch")

import normkernels.torch  # noqa: E402
from normkernels.cpu import parallel  # noqa: E402
from normkernels.torch import _pool  # noqa: E402


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch's OpenMP is another one")
def test_the_pool_is_pytorchs():
    assert parallel._given is not None
    assert parallel.team_of(2) == (parallel._given, 2)
    assert not parallel.needs_turns()


def test_bits_are_those_of_numbas_pool(monkeypatch, rng):
    """On any number of threads, more than there are processors among them."""
    x = rng.normal(size=(64, 48, 20, 20)).astype(np.float32)
    expected = nk.batch_norm(x, None, None, training=True, threads=1)
    np.testing.assert_array_equal(nk.batch_norm(x, None, None, training=True, threads=2), expected)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        y = normkernels.torch.functional.batch_norm(torch.from_numpy(x), None, None, training=True)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(y.numpy(), expected)
    monkeypatch.setattr(parallel, "_given", None)
    np.testing.assert_array_equal(nk.batch_norm(x, None, None, training=True, threads=2), expected)


def test_without_its_entry_point_there_is_none(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert _pool.parallel_for() is None
    monkeypatch.setattr(ctypes, "CDLL", lambda path: (_ for _ in ()).throw(OSError(path)))
    assert _pool.parallel_for() is None
