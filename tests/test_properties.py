"""Hypothesis: any shape, strides, dtype and scale."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

import normkernels as nk
from helpers import DTYPES, accepted, assert_matches, assert_same_bits, epsilon, fitted, run
from normkernels.norms import NORMS

every_norm = pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def strided(draw, shape, values):
    """An array of a shape, over a larger one: axes in any order, any steps, reversed or not."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.sampled_from([1, 1, 1, -1, 2, -2])) for _ in shape]
    offsets = [draw(st.integers(0, 2)) for _ in shape]
    extent = [o + n * abs(s) for o, n, s in zip(offsets, shape, steps, strict=True)]
    view = np.full([extent[i] for i in order], np.nan, values.dtype).transpose(np.argsort(order))
    view = view[tuple(slice(o, None, abs(s)) for o, s in zip(offsets, steps, strict=True))]
    view = view[tuple(slice(None, None, np.sign(s)) for s in steps)]
    view[...] = values
    return view


@every_norm
@given(data=st.data())
def test_matches_the_reference(spec, data):
    shape = fitted(spec, data.draw(array_shapes(min_dims=2, max_dims=5, max_side=9), "shape"))
    axis = 1
    if spec.family == "channels":
        axis = data.draw(st.integers(-len(shape), len(shape) - 1), "axis")
    elif spec.family == "rows":
        axis = data.draw(st.integers(-len(shape), len(shape) - 1), "axis")
    elif spec.family == "groups":
        axis = data.draw(st.integers(1, len(shape) - 1), "axis")
        shape = tuple(n + 1 for n in shape)  # one value per group is an error, or has its own test
    if spec.family == "channels" and np.prod(shape) == shape[axis]:
        shape = tuple(2 * n if i != axis % len(shape) else n for i, n in enumerate(shape))
    dtype = data.draw(st.sampled_from(DTYPES), "dtype")
    mean, sd = data.draw(st.sampled_from([(0, 1), (1000, 1), (-5, 1e-3), (0, 1e4)]), "mean, sd")
    rng = np.random.default_rng(data.draw(seeds, "seed"))

    arguments = spec.arguments(shape, dtype, rng, channel_axis=axis)
    for name in data.draw(st.sets(st.sampled_from(["weight", "bias"])), "absent"):
        arguments |= accepted(spec, **{name: None})
    x, dy = rng.normal(mean, sd, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    x, dy = (data.draw(strided(shape, a)) for a in (x, dy))
    assert_matches(spec, run(spec.kernels, x, dy, arguments), x, dy, arguments)


@pytest.mark.parametrize("spec", [s for s in NORMS.values() if s.family != "windows"], ids=lambda s: s.name)
@given(
    shape=array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=40), exponent=st.integers(-20, 20),
    negative=st.booleans(), seed=seeds,
)  # fmt: skip
def test_scale_is_normalized_away_to_the_bit(spec, shape, exponent, negative, seed):
    """y(kx) = y(x) and dx(kx) = dx(x)/k for k a power of two and eps = 0; y(-x) = -y(x)."""
    rng = np.random.default_rng(seed)
    shape = fitted(spec, shape)
    x, dy = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    arguments = spec.arguments(shape, np.float32, rng) | accepted(spec, bias=None, eps=0, r_max=1, d_max=0)
    k = np.float32(2.0**exponent)
    sign = np.float32(-1 if negative else 1)
    one, scaled = run(spec.kernels, x, dy, arguments), run(spec.kernels, sign * k * x, dy, arguments)
    assert_same_bits(scaled.y, sign * one.y)
    assert_same_bits(scaled.grads.dx, one.grads.dx / k)


@given(
    n=st.integers(1, 10_000),
    cut=st.floats(0, 1),
    log_mean=st.floats(-2, 6),
    dtype=st.sampled_from((np.float32, np.float64)),
    seed=seeds,
)
def test_moments_of_two_parts_merge_to_the_whole(n, cut, log_mean, dtype, seed):
    x = np.random.default_rng(seed).normal(10**log_mean, 1, n).astype(dtype)
    cut = int(cut * n)
    parts = [nk.moments(part) for part in (x[:cut], x[cut:]) if len(part)]
    merged = parts[0].merge(parts[1]) if len(parts) == 2 else parts[0]
    exact = x.astype(np.longdouble)
    assert merged.count == n
    eps = epsilon(dtype)
    assert merged.mean == pytest.approx(float(exact.mean()), rel=1e-15, abs=50 * eps * float(exact.std()))
    assert merged.var == pytest.approx(float(exact.var()), rel=1e3 * eps if dtype is np.float32 else 1e-9)
