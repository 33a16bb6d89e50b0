"""local_response_norm: every element by the power of its neighbours across channels."""

import functools

import numba
import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, HALVES, LAYOUTS, WIDER, assert_same_bits, epsilon, finite_differences
from normkernels.cpu import tuning
from normkernels.results import Saved

# No inner axes, short and long ones, fewer channels than a window, several tiles and parts of channels.
SHAPES = [
    (6, 7),
    (3, 1, 5),
    (4, 2, 3, 3),
    (2, 9, 5, 4),
    (3, 40, 33),
    (2, 3, 2500),
    (2, 300, 11, 13),
    (1, 5000, 1),
]
SIZES = [1, 2, 3, 4, 5, 8]
SETTINGS = {"alpha": 0.3, "k": 1.5}


def expected_passes(x, dy, size, alpha=1e-4, beta=0.75, k=1.0):
    """y and dx, channel by channel as in the paper."""
    channels = x.shape[1]
    windows = [slice(max(0, c - size // 2), c + (size - 1) // 2 + 1) for c in range(channels)]
    d = np.stack([k + alpha / size * (x[:, w] ** 2).sum(1) for w in windows], 1)
    dx = dy / d**beta
    for c, window in enumerate(windows):
        from_c = dy[:, c] * x[:, c] / d[:, c] ** (beta + 1)
        dx[:, window] -= 2 * alpha * beta / size * x[:, window] * from_c[:, None]
    return x / d**beta, dx


def passes(x, dy, *args, **options):
    """y and dx; options such as `threads` go to both passes."""
    threads = {"threads": options.pop("threads", None)}
    y, saved = nk.local_response_norm_forward(x, *args, **options, **threads)
    return y, nk.local_response_norm_backward(dy, saved, **threads).dx


def problem(shape, rng, dtype=np.float32):
    return tuple(rng.normal(0.5, 2, shape).astype(dtype) for _ in range(2))


@pytest.mark.covering(2)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6, 0.0, -0.5])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_is_the_equation(shape, size, beta, dtype, rng):
    x, dy = problem(shape, rng, dtype)
    wide = (a.astype(WIDER[dtype]) for a in (x, dy))
    # Some thirty roundings in a row, each of a term no larger than the largest x or dy.
    largest = max(np.abs(a.astype(float)).max() for a in (x, dy))
    tolerance = (epsilon(dtype) / 2 if dtype in HALVES else 0) + 30 * min(epsilon(dtype), epsilon(np.float32))
    for name, a, b in zip(
        ("y", "dx"),
        passes(x, dy, size, beta=beta, **SETTINGS),
        expected_passes(*wide, size, beta=beta, **SETTINGS),
        strict=True,
    ):
        assert (a.shape, a.dtype) == (x.shape, x.dtype)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(largest, np.abs(b).max()), err_msg=name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) > 2], ids=str)
def test_matches_pytorch(shape, size, rng):
    torch = pytest.importorskip("torch")
    x, dy = problem(shape, rng)
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.local_response_norm(leaf, size, 0.3)
    expected.backward(torch.tensor(dy))
    y, dx = passes(x, dy, size, 0.3)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(dx, leaf.grad.numpy(), rtol=0, atol=3e-5)


def test_defaults_are_those_of_pytorch(rng):
    torch = pytest.importorskip("torch")
    x = 100 * problem((3, 8, 9), rng)[0]
    expected = torch.nn.functional.local_response_norm(torch.tensor(x), 4).numpy()
    np.testing.assert_allclose(nk.local_response_norm(x, 4), expected, rtol=1e-5)


@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_backward_is_the_derivative_of_the_forward(size, beta, rng):
    x, dy = problem((2, 5, 3), rng, np.float64)

    def loss():
        return (dy * nk.local_response_norm(x, size, beta=beta, **SETTINGS)).sum()

    _, dx = passes(x, dy, size, beta=beta, **SETTINGS)
    np.testing.assert_allclose(dx, finite_differences(loss, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(layout, rng):
    """To the last bit: every element is summed by itself, in the order of the channels."""
    x, dy = problem((4, 6, 5, 7), rng)
    for beta in (0.75, 0.5, 1.0):
        strided = (LAYOUTS[layout](a) for a in (x, dy))
        assert_same_bits(passes(*strided, 3, beta=beta), passes(x, dy, 3, beta=beta))


def test_channels_last_stays_channels_last(rng):
    x, dy = (LAYOUTS["channels_last"](a) for a in problem((4, 6, 5, 7), rng))
    for result in passes(x, dy, 3):
        assert result.strides == x.strides


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("shape", [(300, 700), (8, 96, 30, 30), (3, 50, 3000), (1, 2, 200_000)], ids=str)
def test_any_number_of_threads(shape, beta, rng):
    x, dy = problem(shape, rng)
    one = passes(x, dy, 5, beta=beta, threads=1)
    for threads in (min(2, numba.config.NUMBA_NUM_THREADS), None):
        assert_same_bits(passes(x, dy, 5, beta=beta, threads=threads), one)


@pytest.mark.parametrize("shape", [(40, 16), (3, 7, 160), (2, 3, 3008), (2, 300, 11, 13)], ids=str)
def test_streaming_stores_and_small_parts(shape, rng, monkeypatch):
    x, dy = problem(shape, rng)
    plain = passes(x, dy, 5)
    monkeypatch.setattr(tuning, "STREAM_BYTES", 0)
    monkeypatch.setattr(tuning, "PARALLEL_BYTES", 0)
    assert_same_bits(passes(x, dy, 5), plain)
    small = {"WIDEST_PART": 16, "WINDOW_TILE": 16, "NARROWEST_PART": 1, "TERMS": 0, "SHORT_CHANNEL": 0}
    for name, value in (small | {"ROWS_PIECE": 1}).items():
        monkeypatch.setattr(tuning, name, value)
    assert_same_bits(passes(x, dy, 5), plain)
    for shift in (1, 5):
        out = np.empty(x.size + shift, x.dtype)[shift:].reshape(shape)
        assert_same_bits(nk.local_response_norm(x, 5, out=out), plain[0])


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "gaps"])
@pytest.mark.parametrize("shape", [(2, 9, 6, 8), (2, 70, 40, 50)], ids=str)
def test_in_place(shape, layout, rng):
    x, dy = (LAYOUTS[layout](a) for a in problem(shape, rng))
    y, dx = passes(x, dy, 5, 0.3)
    saved = nk.local_response_norm_forward(x, 5, 0.3)[1]
    for name in ("dy", "x"):
        a = {"x": x.copy("K"), "dy": dy.copy("K")}
        grads = nk.local_response_norm_backward(a["dy"], saved._replace(x=a["x"]), out=a[name])
        assert grads.dx is a[name]
        assert_same_bits(a[name], dx, name)
    assert nk.local_response_norm(x, 5, 0.3, out=x) is x
    assert_same_bits(x, y)


def test_what_the_backward_keeps_lives_as_long_as_the_kernel(rng, monkeypatch):
    """So much memory goes back to the system as soon as it is free: not there to live on by luck."""
    x, dy = problem((3, 9, 6, 8), rng)
    plain = passes(x, dy, 5)
    monkeypatch.setattr(tuning, "TERMS", 1 << 23)
    assert_same_bits(passes(x, dy, 5), plain)


@pytest.mark.parametrize("name", ["dy", "x"])
def test_in_place_out_of_range(name, rng):
    """What is mended afterwards reads windows that have been written by then."""
    x, dy = (1e20 * a for a in problem((2, 9, 6, 8), rng))
    _, dx = passes(x, dy, 5, 0.3)
    saved = nk.local_response_norm_forward(x, 5, 0.3)[1]
    given = {"x": x.copy(), "dy": dy.copy()}
    nk.local_response_norm_backward(given["dy"], saved._replace(x=given["x"]), out=given[name])
    assert_same_bits(given[name], dx)


def test_a_window_of_one_and_one_wider_than_all(rng):
    x, _ = problem((3, 4, 5), rng, np.float64)
    one = nk.local_response_norm(x, 1, 2.0, 1.0, 3.0)
    np.testing.assert_allclose(one, x / (3 + 2 * x * x), rtol=1e-14)
    every = nk.local_response_norm(x, 1001, 1001.0, 1.0, 3.0)
    np.testing.assert_allclose(every, x / (3 + (x * x).sum(1, keepdims=True)), rtol=1e-14)


@pytest.mark.parametrize(("dtype", "decades"), [(np.float32, 12), (np.float64, 139)])
@pytest.mark.parametrize("quarters", [1, 2, 3, 4])
def test_roots_are_good_to_some_ulp_over_the_range(quarters, dtype, decades, rng):
    """beta of whole quarters takes neither a root nor a power: y = x * (x²) ** -beta = x ** (1 - 2 * beta)"""
    x = (10.0 ** rng.uniform(-decades, decades, (4, 5000))).astype(dtype)
    y = nk.local_response_norm(x, 1, 1.0, quarters / 4, 0.0)
    expected = x.astype(np.longdouble) ** (1 - quarters / np.longdouble(2))
    np.testing.assert_allclose(y, expected.astype(dtype), rtol=6 * epsilon(dtype))


def test_an_even_window_has_one_more_before():
    x = np.zeros((1, 5))
    x[0, 2] = 1.0
    x[0, [1, 3]] = 1e-3
    y = nk.local_response_norm(x, 2, 2.0, 1.0, 1.0)
    assert y[0, 3] == pytest.approx(1e-3 / (2 + 1e-6))  # channels 2 and 3
    assert y[0, 1] == pytest.approx(1e-3 / (1 + 1e-6))  # channels 0 and 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("shape", [(3, 20), (3, 20, 5), (2, 20, 1500)], ids=str)
def test_nan_and_inf_stay_in_their_windows(shape, value, rng):
    x, dy = problem(shape, rng)
    expected = passes(x, dy, 5)
    spoilt = x.copy()
    spoilt[(1, 10, *(n // 2 for n in shape[2:]))] = value
    reached = np.zeros(shape, bool)
    reached[(1, slice(6, 15), *(n // 2 for n in shape[2:]))] = True  # the windows of its windows
    for result, want in zip(passes(spoilt, dy, 5), expected, strict=True):
        assert np.isnan(result[spoilt != x]).all()
        assert_same_bits(np.where(reached, 0, result), np.where(reached, 0, want))


def test_what_the_docstring_says_of_the_ends_of_the_range():
    x = np.zeros((1, 6), np.float32)
    x[0, 0] = 1e25
    y = nk.local_response_norm(x, 3, 1.0, 0.75, 0.0)
    np.testing.assert_array_equal(y[0, 1:], [0, np.nan, np.nan, np.nan, np.nan])
    assert y[0, 0] == np.float32(1e25 / (1e25**2 / 3) ** 0.75)
    assert nk.local_response_norm(np.zeros((1, 6)), 3).any() == False  # noqa: E712


@pytest.mark.parametrize("shape", [(0, 3), (4, 0), (2, 3, 0)], ids=str)
def test_empty(shape):
    x = np.empty(shape, np.float32)
    y, dx = passes(x, x, 3)
    assert y.shape == dx.shape == shape


def test_grads_and_saved(rng):
    x, dy = problem((2, 3, 4), rng)
    x.flags.writeable = dy.flags.writeable = False
    _, saved = nk.local_response_norm_forward(x, 3)
    assert saved.x is x
    grads = nk.local_response_norm_backward(dy, saved)
    assert grads.dweight is grads.dbias is None


X = np.ones((2, 3, 4), np.float32)
NORM = functools.partial(nk.local_response_norm, X)


@functools.cache
def saved():
    return nk.local_response_norm_forward(X, 3)[1]


def backward(dy):
    return nk.local_response_norm_backward(dy, saved())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nk.local_response_norm(X[0, 0], 3), ValueError, "at least 2 dimensions.*got 1"),
        (lambda: nk.local_response_norm(X.astype(int), 3), TypeError, "x must be float32.*int64"),
        (lambda: NORM(0), ValueError, "size must be at least 1, got 0"),
        (lambda: NORM(3.0), TypeError, "size must be an integer, got 3.0"),
        (lambda: NORM(3, "1"), TypeError, "alpha must be a number, got '1'"),
        (lambda: NORM(3, beta=np.nan), ValueError, "beta must be finite, got nan"),
        (lambda: NORM(3, k=np.inf), ValueError, "k must be finite, got inf"),
        (lambda: NORM(3, threads=0), ValueError, "threads must be in .*, got 0"),
        (lambda: NORM(3, out=X[:1]), ValueError, r"out must have shape \(2, 3, 4\), got \(1, 3, 4\)"),
        (lambda: nk.local_response_norm_forward(X, 3, out=X), ValueError, "out must not overlap"),
        (lambda: backward(X[:1]), ValueError, r"dy must have shape \(2, 3, 4\), got \(1, 3, 4\)"),
        (lambda: backward(X.astype(float)), TypeError, "dy must have the dtype of y, float32, got float64"),
        (
            lambda: nk.local_response_norm_backward(X, saved()._replace(norm="layer_norm")),
            TypeError,
            "local_response_norm_forward, got layer_norm",
        ),
    ],
)
def test_bad_input(call, error, message):
    before = X.copy()
    with pytest.raises(error, match=message):
        call()
    assert_same_bits(X, before)
    assert isinstance(saved(), Saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e19])
def test_a_large_array_with_one_element_out_of_range(value):
    """What is kept to mend it is too large for memory that is free to live on by luck."""
    x = np.ones((2, 96, 55, 55), np.float32)
    x[1, 50, 20, 20] = value
    _, saved = nk.local_response_norm_forward(x, 5)
    dx = nk.local_response_norm_backward(x, saved).dx
    ordinary = np.isfinite(value)
    assert np.isfinite(dx[0]).all()
    assert np.isnan(dx[1, 50, 20, 20]) != ordinary
