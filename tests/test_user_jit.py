"""normkernels.jit inside code of one's own."""

import inspect
import re
import runpy
from pathlib import Path

import numba
import numpy as np
import pytest

import normkernels as nk
from helpers import FLOAT32_FIRST, assert_same_bits
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


@pytest.mark.parametrize("dtype", FLOAT32_FIRST[:2])
@pytest.mark.parametrize("shape", [(7, 1), (5, 33), (40, 768), (3, 9001)], ids=str)
def test_rows_are_those_of_the_public_functions(shape, dtype, rng):
    x = rng.normal(1e3, 1, shape).astype(dtype)
    weight, bias = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    y = np.empty_like(x)
    layer_norms(x, weight, bias, 1e-5, y)
    assert_same_bits(y, nk.layer_norm(x, shape[1], weight, bias))
    rms_norms(x, weight, None, 1e-6, y)
    assert_same_bits(y, nk.rms_norm(x, shape[1], weight, 1e-6))


def test_moments(rng):
    x = rng.normal(1e6, 1, (6, 10_000)).astype(np.float32)
    got = np.empty((6, 2))
    all_moments(x, got)
    expected = x.astype(np.float64)
    np.testing.assert_allclose(got[:, 0], expected.mean(1), rtol=1e-12)
    np.testing.assert_allclose(got[:, 1], expected.var(1), rtol=1e-5)


@numba.njit
def layer_norm_gradients(dy, x, weight, eps, dweight, dbias, out):
    for i in range(len(x)):
        mean, var = jit.moments(x[i])
        rstd = jit.reciprocal_sd(var, eps)
        jit.layer_norm_gradient(dy[i], x[i], mean, rstd, weight, dweight, dbias, out[i])


@numba.njit(parallel=True)
def batch_norms(dy, x, weight, bias, eps, y, dx, sums):
    for c in numba.prange(x.shape[1]):
        mean, var = jit.channel_moments(x, c)
        rstd = jit.reciprocal_sd(var, eps)
        jit.normalize_channel(x, c, mean, rstd, weight[c], bias[c], y)
        sums[0, c], sums[1, c] = jit.channel_sums(dy, x, c, mean, rstd)
        jit.channel_gradient(dy, x, c, mean, rstd, weight[c], sums[0, c], sums[1, c], dx)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 1), (5, 33), (40, 768), (3, 9001)], ids=str)
def test_gradients_of_rows(shape, dtype, rng):
    x, dy = (rng.normal(3, 2, shape).astype(dtype) for _ in range(2))
    weight, (dweight, dbias) = rng.normal(size=shape[1]).astype(dtype), np.zeros((2, shape[1]), dtype)
    dx = np.empty_like(x)
    layer_norm_gradients(dy, x, weight, 1e-5, dweight, dbias, dx)
    expected = nk.layer_norm_backward(dy, nk.layer_norm_forward(x, shape[1], weight, weight)[1])
    assert_same_bits(dx, expected.dx)
    for got, want in ((dweight, expected.dweight), (dbias, expected.dbias)):
        np.testing.assert_allclose(got, want, rtol=20 * np.finfo(dtype).eps, atol=60 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", FLOAT32_FIRST[:2])
@pytest.mark.parametrize("shape", [(50, 3, 1), (6, 5, 49), (4, 3, 9001)], ids=str)
def test_channels_are_those_of_batch_norm(shape, dtype, rng):
    x, dy = (rng.normal(mean, 1, shape).astype(dtype) for mean in (3, 0))
    weight, bias = (rng.normal(size=shape[1]).astype(dtype) for _ in range(2))
    y, dx, sums = np.empty_like(x), np.empty_like(x), np.empty((2, shape[1]))
    batch_norms(dy, x, weight, bias, 1e-5, y, dx, sums)
    expected, saved = nk.batch_norm_forward(x, None, None, weight, bias, training=True)
    grads = nk.batch_norm_backward(dy, saved)
    for got, want in ((y, expected), (dx, grads.dx), (sums[0], grads.dweight), (sums[1], grads.dbias)):
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=100 * np.finfo(dtype).eps * scale)


def test_from_python_too():
    """To try them out; what they are made of would crash there."""
    x = np.array([1.0, 3.0])
    assert jit.moments(x) == (2.0, 1.0)
    assert jit.reciprocal_sd(4.0, 0.0) == 0.5
    assert jit.channel_moments(x.reshape(2, 1, 1), 0) == (2.0, 1.0)


@numba.njit
def one_row(x, weight, bias, out):
    jit.layer_norm(x, weight, bias, 1e-5, out)


def test_what_is_not_contiguous_or_too_short_is_an_error():
    x = np.ones(12, np.float32)
    with pytest.raises(ValueError, match="contiguous"):
        one_row(x[::2], x[:6], x[:6], x[6:])
    with pytest.raises(ValueError, match="weight must be as long as x"):
        one_row(x[:6], x[:4], x[:6], x[6:])
    with pytest.raises(ValueError, match="number of a channel"):
        jit.channel_moments(np.ones((2, 3, 4)), 3)
    with pytest.raises(ValueError, match="outer, channels, inner"):
        jit.channel_moments(np.ones((2, 3, 4))[:, :, ::2], 0)
    with pytest.raises(ValueError, match="dy must be contiguous and have the shape of x"):
        jit.channel_sums(np.ones((2, 3, 4)), np.ones((2, 3, 5)), 0, 0.0, 1.0)
    one_row(x[:1], x[::2][:1], x[:1], x[6:])  # one element is contiguous whatever its stride
    with pytest.raises(ValueError, match="at least one element"):
        one_row(x[:0], x[:6], x[:6], x[6:])


def readonly(a):
    a.flags.writeable = False
    return a


ROW, CHANNELS = np.arange(8.0), np.arange(8.0).reshape(2, 2, 2)
NUMBERS = ("mean", "rstd", "eps", "var")


def good(function):
    """Arguments by name that the function takes."""
    x = CHANNELS if "channel" in function.__name__ else ROW
    numbers = {"c": 0} | dict.fromkeys(NUMBERS, 1.0)
    if "channel" in function.__name__:
        numbers |= dict.fromkeys(("weight", "bias", "dweight", "dbias"), 1.0)
    return {name: numbers.get(name, x) for name in inspect.signature(function.py_func).parameters}


def bad(function):
    """Each argument by name, a value it must not have, and what is said."""
    for name, value in good(function).items():
        if name == "c":
            yield from ((name, wrong, "c must be an integer") for wrong in (None, 1.5, ROW))
        elif not isinstance(value, np.ndarray):
            yield from ((name, wrong, f"{name} must be a number") for wrong in (None, ROW, 1j))
        else:
            wrongs = [value.astype(np.int64), value.astype(np.float16), value.reshape(2, 4), value.tolist()]
            wrongs += [] if name == "x" else [value.astype(np.float32)]
            if (name, "channel" in function.__name__) != ("bias", False):
                wrongs.append(None)
            yield from ((name, wrong, f"{name} must be an array|x must be a.* array") for wrong in wrongs)
            if name in ("out", "dweight", "dbias"):
                yield name, readonly(value.copy()), f"{name} is written and must not be read-only"


@pytest.mark.parametrize("name", jit.__all__)
def test_types_are_checked_when_code_is_compiled(name):
    """Never later: what is written through a pointer of another type is written beside the array."""
    function = getattr(jit, name)
    right = good(function)
    halves = {k: a.astype(np.float16) if isinstance(a, np.ndarray) else a for k, a in right.items()}
    cases = [({argument: wrong}, message) for argument, wrong, message in bad(function)]
    cases += [(halves, "x must be an? ")] if "x" in right else []
    for wrong, message in cases:
        with pytest.raises(numba.TypingError) as caught:
            function.compile(tuple(numba.typeof(a) for a in (right | wrong).values()))
        assert re.search(f"{message}.*, got", str(caught.value)), wrong


def test_no_weight_in_code_of_a_user():
    @numba.njit
    def rows(x, out):
        for i in range(len(x)):
            jit.layer_norm(x[i], None, None, 1e-5, out[i])

    with pytest.raises(numba.TypingError, match="weight must be an array of float64 .*got none"):
        rows(np.ones((2, 3)), np.ones((2, 3)))


def test_an_integer_is_a_number():
    x, y = np.array([1.0, 3.0]), np.empty(2)
    jit.standardize(x, 2, 1, y)
    assert_same_bits(y, np.array([-1.0, 1.0]))
    assert jit.reciprocal_sd(4, 0) == 0.5


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.stem)
def test_examples_run(example, capsys):
    runpy.run_path(str(example), run_name="__main__")
    assert "every star found: True" in capsys.readouterr().out
