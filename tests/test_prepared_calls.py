"""Prepared calls: what an earlier call left behind gives the same results, and lets nothing wrong pass."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import numba
import numpy as np
import pytest
from ml_dtypes import bfloat16

import normkernels as nk
from helpers import LAYOUTS, accepted, assert_same_bits
from normkernels import _buffers, _calls
from normkernels.norms import NORMS


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(_calls, "_known", {})
    monkeypatch.setattr(_calls, "_once", {})


CASES = [
    ("layer_norm", (4, 64), {}),
    ("layer_norm", (3, 5, 7), {"normalized_shape": (5, 7)}),
    ("layer_norm", (4, 64), {"weight": None, "bias": None}),
    ("layer_norm", (1, 40_000), {}),
    ("rms_norm", (2, 40), {}),
    ("group_norm", (2, 8, 3), {"num_groups": 4}),
    ("group_norm", (2, 8, 50), {"num_groups": 2}),
    ("group_norm", (2, 8, 3), {"num_groups": 4, "weight": None, "bias": None}),
    ("group_norm", (2, 8, 50), {"num_groups": 2, "bias": None}),
    ("group_norm", (1, 8, 3), {"num_groups": 4, "weight": None}),
    ("instance_norm", (2, 8, 50), {}),
    ("instance_norm", (3, 5, 7), {"running_mean": None, "running_var": None}),
    ("weight_norm", (6, 50), {}),
    ("weight_norm", (6, 5, 3), {"g": "column"}),
    ("batch_norm", (4, 64), {}),
    ("batch_norm", (5, 300), {}),
    ("batch_norm", (2, 6, 9, 9), {}),
    ("batch_norm", (40, 3), {"weight": None, "bias": None}),
]


def arguments(spec, shape, options, dtype, rng):
    """Those of a case."""
    given = spec.arguments(shape, dtype, rng) | options
    if "g" in options:
        given["g"] = rng.uniform(1, 2, (shape[0], *[1] * (len(shape) - 1))).astype(dtype)
    if "normalized_shape" in options:
        given |= {"weight": rng.normal(size=shape[1:]).astype(dtype), "bias": np.ones(shape[1:], dtype)}
    return given


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize(("norm", "shape", "options"), CASES)
def test_the_second_call_gives_what_the_first_gives(norm, shape, options, activation, dtype, rng):
    spec = NORMS[norm]
    given = arguments(spec, shape, options, dtype, rng) | accepted(spec, activation=activation)
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    found = []
    for _ in range(3):
        own = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}
        y, saved = spec.kernels.forward(x, **own)
        grads = spec.kernels.backward(dy, saved)
        again = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}
        found.append((spec.kernels.call(x, **again), y, saved.mean, saved.rstd, *grads, tuple(own.values())))
    assert len(_calls._known) == 3  # call, forward and backward
    for name, later in enumerate(found[1:]):
        for a, b in zip(found[0][:-1], later[:-1], strict=True):
            assert_same_bits(a, b, str(name))
        for a, b in zip(found[0][-1], later[-1], strict=True):  # running statistics
            if isinstance(a, np.ndarray):
                assert_same_bits(a, b)


HALF = [c for c in CASES if c[0] in ("layer_norm", "group_norm", "batch_norm") and "weight" not in c[2]]


@pytest.mark.parametrize("beside", [np.float32, None], ids=["float32", "half"])
@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize(("norm", "shape", "options"), HALF)
def test_half_types(norm, shape, options, dtype, beside, rng):
    """With parameters of the same dtype or float32; the same bits as on the long way."""
    spec = NORMS[norm]
    given = arguments(spec, shape, options, beside or dtype, rng)
    x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
    found = []
    for _ in range(2):
        own = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}
        y, saved = spec.kernels.forward(x, **own)
        found.append((y, *spec.kernels.backward(dy, saved), *own.values()))
    assert len(_calls._known) == 2
    for a, b in zip(*found, strict=True):
        if isinstance(a, np.ndarray):
            assert_same_bits(a, b)


@pytest.mark.parametrize("training", [True, False])
def test_channels_last(training, rng):
    """And other strides, which have calls of their own, or none."""
    spec = NORMS["batch_norm"]
    x, dy = (rng.normal(size=(3, 5, 4, 6)).astype(np.float32) for _ in range(2))
    given = spec.arguments(x.shape, np.float32, rng) | {"training": training}
    found = []
    for layout in ("channels_last", "contiguous", "channels_last", "fortran", "channels_last"):
        own = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}
        arrays = [LAYOUTS[layout](a) for a in (x, dy)]
        y, saved = spec.kernels.forward(arrays[0], **own)
        grads = spec.kernels.backward(arrays[1], saved)
        found.append((y, *grads))
        assert y.strides == arrays[0].strides
    assert len(_calls._known) == 2  # of channels-last: forward and backward
    for a, b in zip(found[0], found[4], strict=True):
        assert_same_bits(a, b)
    for a, b in zip(found[0], found[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_running_statistics_of_either_dtype(training, rng):
    x, mean, var = rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=8), rng.uniform(1, 2, size=8)
    expected = None
    for dtype in (np.float64, np.float32, np.float64, np.float32):
        own = mean.astype(dtype), var.astype(dtype)
        y = nk.batch_norm(x, *own, training=training)
        expected = (y, *own) if expected is None else expected
        for a, b in zip((y, *own), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_what_is_wrong_is_said_however_often_it_went_well(rng):
    x, weight, bias = rng.normal(size=(4, 8)), np.ones(8), np.zeros(8)
    mean, var = np.zeros(8), np.ones(8)
    for _ in range(2):
        nk.layer_norm(x, 8, weight, bias, threads=1)
        nk.layer_norm(x, 8, weight, bias, 0.5, threads=1)
        nk.batch_norm(x, mean, var, weight, bias, True, 0.5)
        nk.layer_norm(x, (8,), weight, bias)
        nk.group_norm(x, 2, weight, bias)
        nk.batch_norm(x, mean, var, weight, bias, True)
    wrong = [
        (TypeError, lambda: nk.layer_norm(x, 8.0, weight, bias, threads=1)),
        (TypeError, lambda: nk.layer_norm(x, (8.0,), weight, bias)),
        (TypeError, lambda: nk.layer_norm(x, 8, weight, bias, threads=1.0)),
        (TypeError, lambda: nk.layer_norm(x, 8, weight.astype(np.int64), bias, threads=1)),
        (TypeError, lambda: nk.layer_norm(x.astype(int), 8, weight, bias, threads=1)),
        (ValueError, lambda: nk.layer_norm(x, 8, weight[:4], bias, threads=1)),
        (ValueError, lambda: nk.layer_norm(x, 8, weight, bias, eps=-1e-5, threads=1)),
        (TypeError, lambda: nk.layer_norm(x, 8, weight, bias, Decimal("0.5"), threads=1)),
        (TypeError, lambda: nk.group_norm(x, 2, weight, bias, 1e-5 + 0j)),
        (TypeError, lambda: nk.batch_norm(x, mean, var, weight, bias, True, Decimal("0.5"))),
        (TypeError, lambda: nk.group_norm(x, 2.0, weight, bias)),
        (TypeError, lambda: nk.batch_norm(x, mean, var, weight, bias, 1)),
        (TypeError, lambda: nk.batch_norm(x, mean, var, weight, bias, True, channel_axis=1.0)),
        (ValueError, lambda: nk.batch_norm(x, mean, mean, weight, bias, True)),
        (ValueError, lambda: nk.batch_norm(x, weight, var, weight, bias, True)),
        (ValueError, lambda: nk.batch_norm(x, mean, var, mean[:], bias, True)),
    ]
    before = [a.copy() for a in (weight, bias, mean, var)]
    for error, call in wrong:
        with pytest.raises(error):
            call()
    for a, b in zip((weight, bias, mean, var), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("norm", "shape", "options"), CASES)
def test_out_receives_what_a_small_call_gives(norm, shape, options, rng):
    spec = NORMS[norm]
    given = arguments(spec, shape, options, np.float32, rng)
    x, dy = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    y, saved = spec.kernels.forward(x, **given)
    expected = spec.kernels.backward(dy, saved)
    whole = np.empty(2 * x.size, np.float32)
    for _ in range(2):
        for out in (np.empty_like(x), whole[: x.size].reshape(shape)):
            assert spec.kernels.call(x, **given, out=out) is out
            assert_same_bits(out, y)
            out[:] = 7
            assert spec.kernels.forward(x, **given, out=out)[0] is out
            assert_same_bits(out, y)
            grads = spec.kernels.backward(dy, saved, out=out)
            assert grads.dx is out
            for a, b in zip(grads, expected, strict=True):
                assert_same_bits(a, b)
        own = x.copy()
        assert spec.kernels.call(own, **given, out=own) is own
        assert_same_bits(own, y)
        for k in range(2):
            dy_own, x_own = dy.copy(), x.copy()
            out = (dy_own, x_own)[k]
            assert spec.kernels.backward(dy_own, saved._replace(x=x_own), out=out).dx is out
            assert_same_bits(out, expected[0])


def test_an_out_that_cannot_be_is_refused_however_often_it_went_well(rng):
    memory = rng.normal(size=48).astype(np.float32)
    x, apart, beside = memory[:32].reshape(4, 8), np.empty((4, 8), "f"), memory[8:40].reshape(4, 8)
    weight, mean, var = np.ones(8, "f"), np.zeros(8, "f"), np.ones(8, "f")
    shared = np.ones(32, "f")
    readonly = np.empty((4, 8), "f")
    readonly.flags.writeable = False
    calls = [
        lambda out: nk.layer_norm(x, 8, weight, weight, out=out),
        lambda out: nk.layer_norm_forward(x, 8, weight, weight, out=out),
        lambda out: nk.group_norm(x, 2, weight, weight, out=out),
        lambda out: nk.batch_norm(x, mean, var, weight, weight, out=out),
        lambda out: nk.batch_norm(x, mean, var, weight, weight, True, out=out),
    ]
    _, saved = nk.layer_norm_forward(x, 8, weight, weight)
    calls.append(lambda out: nk.layer_norm_backward(apart, saved, out=out))
    before = memory.copy()
    for call in calls:
        for _ in range(2):
            call(np.empty((4, 8), "f"))
            call(np.empty(40, "f")[8:].reshape(4, 8))
            for out in (beside, readonly, np.empty((8, 4), "f")):
                with pytest.raises(ValueError, match="out must"):
                    call(out)
            with pytest.raises(TypeError, match="out must have the dtype"):
                call(np.empty((4, 8)))
    for _ in range(2):
        nk.layer_norm(x, 8, shared[:8], out=np.empty(40, "f")[8:].reshape(4, 8))
        with pytest.raises(ValueError, match="out must not overlap"):
            nk.layer_norm(x, 8, shared[:8], out=shared.reshape(4, 8))
        with pytest.raises(ValueError, match="out must not overlap"):
            nk.layer_norm_forward(x, 8, weight, out=x)
        own = weight.copy()
        nk.layer_norm(own, 8, weight, out=own)
        with pytest.raises(ValueError, match="out must not overlap"):
            nk.layer_norm(own, 8, own, out=own)
    np.testing.assert_array_equal(memory, before)


def test_arrays_that_lie_otherwise_go_the_long_way(rng):
    """Strided, read-only, misaligned, of a subclass: after a call with plain ones of the same shape."""
    x, weight = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    expected = nk.layer_norm(x, 8, weight)
    memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    memory[:] = x
    readonly = x.copy()
    readonly.flags.writeable = False
    for same in (np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2], readonly, memory, x.view(np.memmap)):
        np.testing.assert_array_equal(nk.layer_norm(same, 8, weight), expected)
        np.testing.assert_array_equal(nk.layer_norm(x, 8, np.repeat(weight, 2)[::2]), expected)
    with pytest.raises(TypeError, match="big-endian|byte order|native"):
        nk.layer_norm(x.astype(">f4"), 8, weight)


def test_a_saved_of_another_norm_is_refused(rng):
    x = rng.normal(size=(4, 8))
    _, saved = nk.layer_norm_forward(x, 8, np.ones(8), np.zeros(8))
    for _ in range(2):
        nk.layer_norm_backward(x, saved)
        with pytest.raises(TypeError, match="saved must come from rms_norm_forward, got layer_norm"):
            nk.rms_norm_backward(x, saved)
        with pytest.raises(TypeError, match="saved must come from layer_norm_forward, got local"):
            nk.layer_norm_backward(x, nk.local_response_norm_forward(x, 3)[1])
    x = rng.normal(size=(2, 4, 5))
    _, saved = nk.group_norm_forward(x, 4)
    for _ in range(2):
        nk.group_norm_backward(x, saved)
        with pytest.raises(TypeError, match="saved must come from instance_norm_forward, got group_norm"):
            nk.instance_norm_backward(x, saved)


@pytest.mark.parametrize("norm", ["layer_norm", "group_norm", "instance_norm", "batch_norm"])
def test_statistics_that_no_forward_gave_are_refused(norm, rng):
    spec = NORMS[norm]
    x = rng.normal(size=(3, 4, 6)).astype(np.float32)
    _, saved = spec.kernels.forward(x, **spec.arguments(x.shape, np.float32, rng))
    twice = np.repeat(saved.rstd, 2)
    for _ in range(2):
        for wrong in ({"mean": saved.mean.astype(np.float32)}, {"rstd": twice[::2]}):
            with pytest.raises(TypeError, match="saved.* must be as the forward gave"):
                spec.kernels.backward(x, saved._replace(**wrong))
        spec.kernels.backward(x, saved)


def test_what_is_remembered_is_bounded(monkeypatch, rng):
    monkeypatch.setattr(_calls, "LIMIT", 4)
    for n in range(1, 20):
        x = rng.normal(size=(2, n))
        np.testing.assert_array_equal(nk.layer_norm(x, n), nk.layer_norm(x, n))
    assert len(_calls._known) == 4
    for n in range(20, 40):
        nk.layer_norm(rng.normal(size=(2, n)), n)
    assert len(_calls._known) == len(_calls._once) == 4


def test_large_constants_are_not_kept(rng):
    x = rng.normal(size=(2, 100_000))
    for _ in range(3):
        nk.batch_norm(x, None, None, training=True)
    assert not _calls._known


def test_statistics_of_another_shape_are_refused_however_often_it_went_well(rng):
    x = rng.normal(size=(4, 8))
    _, saved = nk.layer_norm_forward(x, 8)
    for _ in range(3):
        nk.layer_norm_backward(x, saved)
    for wrong, error in (
        (saved.mean[:1], ValueError), (saved.mean.view(np.int64), TypeError),
        (saved.mean.astype(np.float32), TypeError),
    ):  # fmt: skip
        with pytest.raises(error, match=r"saved\.mean must"):
            nk.layer_norm_backward(x, saved._replace(mean=wrong))


@pytest.mark.parametrize(
    ("norm", "shape"),
    [("layer_norm", (3000, 100)), ("group_norm", (20, 16, 900)), ("batch_norm", (20, 16, 900))],
)
def test_large_arrays_have_threads_and_memory_of_the_pool(norm, shape, rng):
    """The same bits on any number of them, which may change between calls."""
    spec = NORMS[norm]
    x, dy = (rng.normal(size=shape) for _ in range(2))
    given, before, found = spec.arguments(shape, np.float64, rng), numba.get_num_threads(), []
    try:
        for threads in (2, 2, 1, 1):
            numba.set_num_threads(threads)
            own = {name: v.copy() if isinstance(v, np.ndarray) else v for name, v in given.items()}
            y, saved = spec.kernels.forward(x, **own)
            found.append((y, *spec.kernels.backward(dy, saved)))
    finally:
        numba.set_num_threads(before)
    assert len(_calls._known) == 2
    for later in found[1:]:
        for a, b in zip(found[0], later, strict=True):
            assert_same_bits(a, b)
    assert all(isinstance(y.base.base, _buffers._Lease) for y, *_ in found)


@pytest.mark.parametrize("shape", [(4, 64), (2, 8, 5)], ids=str)
def test_nothing_of_the_caller_is_kept(shape, rng):
    x = rng.normal(size=shape)
    weight, bias = np.ones(shape[-1]), np.zeros(shape[-1])
    each = np.ones(shape[1]), np.zeros(shape[1])
    for _ in range(2):
        nk.layer_norm_backward(x, nk.layer_norm_forward(x, shape[-1], weight, bias)[1])
        if x.ndim == 3:
            nk.group_norm_backward(x, nk.group_norm_forward(x, 2, *each)[1])
        nk.batch_norm_backward(x, nk.batch_norm_forward(x, None, None, *each, True)[1])
    alive = [weakref.ref(a) for a in (x, weight, bias, *each)]
    assert len(_calls._known) >= 4
    del x, weight, bias, each
    gc.collect()
    assert [ref() for ref in alive] == [None] * 5


def test_several_threads_at_once(rng):
    x = rng.normal(size=(16, 4, 32)).astype(np.float32)
    weight, bias = rng.normal(size=(2, 32)).astype(np.float32)
    expected = [nk.layer_norm(part, 32, weight, bias) for part in x]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(20):
            found = list(pool.map(lambda part: nk.layer_norm(part, 32, weight, bias), x))
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_array_equal(a, b)
