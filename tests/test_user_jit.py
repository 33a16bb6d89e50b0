"""normkernels.jit inside code of one's own."""

import doctest
import runpy
from pathlib import Path

import numba
import numpy as np
import pytest

import normkernels as nk
from helpers import assert_same_bits
from normkernels import jit

EXAMPLES = Path(__file__).parents[1] / "examples"


@numba.njit(parallel=True)
def layer_norms(x, weight, bias, eps, out):
    for i in numba.prange(len(x)):
        jit.layer_norm(x[i], weight, bias, eps, out[i])


@numba.njit(parallel=True)
def rms_norms(x, weight, bias, eps, out):
    for i in numba.prange(len(x)):
        jit.rms_norm(x[i], weight, bias, eps, out[i])


@numba.njit(parallel=True)
def all_moments(x, out):
    for i in numba.prange(len(x)):
        out[i] = jit.moments(x[i])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 1), (5, 33), (40, 768), (3, 9001)], ids=str)
def test_rows_are_those_of_the_public_functions(shape, dtype, rng):
    x = rng.normal(1e3, 1, shape).astype(dtype)
    weight, bias = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    y = np.empty_like(x)
    layer_norms(x, weight, bias, 1e-5, y)
    assert_same_bits(y, nk.layer_norm(x, shape[1], weight, bias))
    rms_norms(x, weight, np.zeros_like(bias), 1e-6, y)
    assert_same_bits(y, nk.rms_norm(x, shape[1], weight, 1e-6))


def test_moments(rng):
    x = rng.normal(1e6, 1, (6, 10_000)).astype(np.float32)
    got = np.empty((6, 2))
    all_moments(x, got)
    expected = x.astype(np.float64)
    np.testing.assert_allclose(got[:, 0], expected.mean(1), rtol=1e-12)
    np.testing.assert_allclose(got[:, 1], expected.var(1), rtol=1e-5)


@numba.njit
def one_row(x, weight, bias, out):
    jit.layer_norm(x, weight, bias, 1e-5, out)


def test_what_is_not_contiguous_or_too_short_is_an_error():
    x = np.ones(12, np.float32)
    with pytest.raises(ValueError, match="contiguous"):
        one_row(x[::2], x[:6], x[:6], x[6:])
    with pytest.raises(ValueError, match="as long as x"):
        one_row(x[:6], x[:4], x[:6], x[6:])
    with pytest.raises(ValueError, match="at least one element"):
        one_row(x[:0], x[:6], x[:6], x[6:])


def test_the_docstring():
    result = doctest.testmod(jit)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(example, capsys):
    runpy.run_path(str(example), run_name="__main__")
    assert "every star found: True" in capsys.readouterr().out
