"""The same bits for any threads, run after run, wherever a group lies and whatever lies beside it."""

import copy
import threading

import numba
import numpy as np
import pytest

from helpers import DTYPES, FLOAT32_FIRST, assert_same_bits, fitted, run
from normkernels import _calls
from normkernels.cpu import tuning
from normkernels.norms import NORMS

# Large enough for several threads; few wide groups, many small ones, one that is all.
SHAPES = [(3000, 257), (3, 5, 40_000), (16, 64, 28, 28), (64, 1000, 2), (300, 512), (1, 1, 300_000)]

every_norm = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
every_norm_of_groups = pytest.mark.parametrize(
    "spec", [spec for spec in NORMS.values() if spec.family != "windows"], ids=lambda spec: spec.name
)


def problem(spec, shape, rng, dtype=np.float32):
    shape = fitted(spec, shape)
    x, dy = (rng.normal(3, 2, shape).astype(dtype) for _ in range(2))
    return x, dy, spec.arguments(shape, dtype, rng)


def results(spec, x, dy, arguments, **options):
    """y, gradients and running statistics"""
    y, grads, _, arguments = run(spec.kernels, x, dy, arguments, **options)
    return y, tuple(grads), arguments


@every_norm
@pytest.mark.parametrize("dtype", FLOAT32_FIRST)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_number_of_threads(spec, shape, dtype, rng):
    args = problem(spec, shape, rng, dtype)
    one = results(spec, *args, threads=1)
    for threads in (min(2, numba.config.NUMBA_NUM_THREADS), None):
        assert_same_bits(results(spec, *args, threads=threads), one, f"threads={threads}")


@every_norm
@pytest.mark.parametrize("shape", [(5, 7), (40, 70), (9, 6, 33), (2, 3, 9000), (3, 100, 3, 3)], ids=str)
def test_small_arrays_by_one_thread_and_by_several(spec, shape, rng, monkeypatch):
    args = problem(spec, shape, rng)
    by_one = results(spec, *args)
    monkeypatch.setattr(tuning, "PARALLEL_BYTES", 0)
    monkeypatch.setattr(_calls, "_known", {})  # calls that were prepared for other bounds
    assert_same_bits(results(spec, *args), by_one)


@pytest.mark.covering(2)
@every_norm
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(40, 16), (100, 48), (9, 6, 160), (2, 3, 9008), (2, 70, 64)], ids=str)
def test_streaming_stores(spec, shape, dtype, rng, monkeypatch):
    """What large outputs get, into memory that begins inside a cache line too."""
    x, dy, arguments = problem(spec, shape, rng, dtype)
    plain = results(spec, x, dy, arguments)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    monkeypatch.setattr(_calls, "_known", {})  # calls that were prepared for other bounds
    assert_same_bits(results(spec, x, dy, arguments), plain)
    for shift in (1, 5):
        out = np.empty(x.size + shift, dtype)[shift:].reshape(x.shape)
        assert_same_bits(
            spec.kernels.call(x, **copy.deepcopy(arguments), out=out), plain[0], f"shift={shift}"
        )
        _, saved = spec.kernels.forward(x, **copy.deepcopy(arguments))
        grads = spec.kernels.backward(dy, saved, out=out)
        assert_same_bits(tuple(grads), plain[1], f"shift={shift}")


@every_norm
def test_threads_are_as_they_were_after_a_call(spec, rng):
    before = numba.get_num_threads()
    results(spec, *problem(spec, SHAPES[0], rng), threads=1)
    results(spec, *problem(spec, SHAPES[0], rng), threads=numba.config.NUMBA_NUM_THREADS)
    assert numba.get_num_threads() == before


@every_norm
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_run_to_run(spec, shape, rng):
    args = problem(spec, shape, rng)
    first = results(spec, *args)
    for _ in range(3):
        assert_same_bits(results(spec, *args), first)


@every_norm
@pytest.mark.parametrize("shape", [(40, 6, 130), (3, 5, 40_000)], ids=str)
def test_any_address(spec, shape, rng):
    """Vectors begin at the first element, not at the next cache line."""
    x, dy, arguments = problem(spec, shape, rng)
    expected = results(spec, x, dy, arguments)
    for shift in (1, 5, 16):
        shifted = [
            np.concatenate([np.zeros(shift, a.dtype), a.ravel()])[shift:].reshape(x.shape) for a in (x, dy)
        ]
        out = np.empty(x.size + shift, x.dtype)[shift:].reshape(x.shape)
        assert_same_bits(results(spec, *shifted, arguments), expected, f"shift={shift}")
        y = spec.kernels.call(shifted[0], **copy.deepcopy(arguments), out=out)
        assert_same_bits(y, expected[0], f"shift={shift}")


@pytest.mark.parametrize("cols", [5, 130, 9000])
def test_a_row_does_not_know_its_batch(cols, rng):
    spec = NORMS["layer_norm"]
    x, dy, arguments = problem(spec, (70, cols), rng)
    y, (dx, *_), _ = results(spec, x, dy, arguments)
    for rows in (slice(0, 1), slice(69, 70), slice(3, 20), slice(16, 49), slice(None, None, -1)):
        part_y, (part_dx, *_), _ = results(spec, x[rows], dy[rows], arguments)
        assert_same_bits((part_y, part_dx), (y[rows].copy(), dx[rows].copy()), str(rows))


@pytest.mark.parametrize("shape", [(40, 70), (6, 70, 33), (2, 70, 9000)], ids=str)
def test_a_channel_does_not_know_its_place(shape, rng):
    spec = NORMS["batch_norm"]
    x, dy, arguments = problem(spec, shape, rng)
    expected = run(spec.kernels, x, dy, arguments)
    order = rng.permutation(70)
    moved = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    result = run(spec.kernels, *(np.ascontiguousarray(a[:, order]) for a in (x, dy)), moved)
    assert_same_bits((result.y, result.grads.dx), (expected.y[:, order], expected.grads.dx[:, order]))
    assert_same_bits(tuple(result.grads[1:]), tuple(g[order] for g in expected.grads[1:]))
    for name in ("running_mean", "running_var"):
        assert_same_bits(result.arguments[name], expected.arguments[name][order], name)


@pytest.mark.covering(2)
@every_norm_of_groups
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("shape", [(40, 70), (6, 5, 33), (6, 7, 9000), (300, 64, 5)], ids=str)
def test_nan_and_inf_stay_in_their_group(spec, value, shape, rng):
    x, dy, arguments = problem(spec, shape, rng)
    expected = run(spec.kernels, x, dy, arguments)
    index = tuple(n // 2 for n in x.shape)
    x[index] = np.nan
    with np.errstate(invalid="ignore"):
        group = np.isnan(spec.reference.call(x, **copy.deepcopy(arguments)))
    assert 1 < group.sum() < x.size
    x[index] = value
    result = run(spec.kernels, x, dy, arguments)
    nan = group if spec.centred or np.isnan(value) else index  # a norm of inf divides the others to 0
    for a, b in ((result.y, expected.y), (result.grads.dx, expected.grads.dx)):
        assert np.isnan(a[nan]).all()
        a[group] = b[group]
        assert_same_bits(a, b)


@every_norm
def test_calls_from_several_python_threads(spec, rng):
    """Kernels release the lock: results must not depend on who else is computing."""
    problems = [problem(spec, (200, 64, 20), rng) for _ in range(4)]
    expected = [results(spec, *args) for args in problems]
    got = {}

    def work(i):
        got[i] = [results(spec, *problems[i]) for _ in range(5)]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for i, want in enumerate(expected):
        assert len(got[i]) == 5
        for result in got[i]:
            assert_same_bits(result, want)
