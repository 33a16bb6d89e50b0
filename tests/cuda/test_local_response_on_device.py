"""Local response normalization of the CUDA backend."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from on_device import flat

from normkernels._plan import channel_plan
from normkernels.cuda import launch_local_response, walks
from normkernels.cuda.devices import properties
from normkernels.reference.local_response_norm import (
    local_response_norm_backward,
    local_response_norm_forward,
)

SIZES = [
    pytest.param((2, 7, 4, 32), 5, id="channel-to-channel"),
    pytest.param((2, 7, 4, 32), 4, id="even"),
    pytest.param((2, 3, 160), 9, id="longer-than-the-channels"),
    pytest.param((3, 5, 7), 3, id="odd-inner"),
    pytest.param((40, 6), 3, id="inner-1"),
    pytest.param((2, 1, 3), 1, id="one-channel"),
    pytest.param((1, 40, 256), 2, id="pieces-of-channels"),
]


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    monkeypatch.setattr(walks, "WALK", replace(walks.WALK, threads=8))


def both(x, dy, arguments, in_place=None):
    """y and dx; `in_place`: which of dy and x receives dx."""
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    flat_dy, flat_x = flat(dy), flat(x)
    y, dx = (flat(np.full(x.size, np.nan, x.dtype)) for _ in range(2))
    launch_local_response.local_response_forward(plan, flat_x, *arguments, y, None)
    dx = {"dy": flat_dy, "x": flat_x, None: dx}[in_place]
    launch_local_response.local_response_backward(plan, flat_dy, flat_x, *arguments, dx, None)
    return y.copy_to_host().reshape(x.shape), dx.copy_to_host().reshape(x.shape)


def agree(x, dy, arguments, results, tolerance):
    y, saved = local_response_norm_forward(x.astype(np.float64), *arguments)
    dx = local_response_norm_backward(dy.astype(np.float64), saved).dx
    for found, expected in zip(results, (y, dx), strict=True):
        np.testing.assert_allclose(found.astype(np.float64), expected, rtol=tolerance, atol=tolerance)


def inputs(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape).astype(dtype) for _ in range(2))


@pytest.mark.parametrize(("shape", "size"), SIZES)
@pytest.mark.parametrize("beta", [0.75, 0.5, 1.0, 0.6])
def test_as_the_equations(shape, size, beta):
    x, dy = inputs(shape, np.float32)
    arguments = size, 0.5, beta, 1.0
    agree(x, dy, arguments, both(x, dy, arguments), 2e-6)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-13), (np.float16, 1e-3), (ml_dtypes.bfloat16, 1e-2)]
)
def test_dtypes(dtype, tolerance):
    for shape, size in (((2, 5, 64), 3), ((2, 5, 9), 3)):
        x, dy = inputs(shape, dtype)
        agree(x, dy, (size, 0.5, 0.75, 1.0), both(x, dy, (size, 0.5, 0.75, 1.0)), tolerance)


@pytest.mark.parametrize("in_place", ["dy", "x"])
def test_in_place_and_in_parts(in_place, monkeypatch):
    x, dy = inputs((5, 6, 32), np.float32)
    arguments = 3, 0.5, 0.75, 2.0
    whole = both(x, dy, arguments)
    sample = x[0].size * 2 * 8
    monkeypatch.setattr(walks, "KEPT", 2.5 * sample / properties(0).l2_bytes)
    parts = both(x, dy, arguments, in_place)
    agree(x, dy, arguments, parts, 2e-6)
    assert parts[1].tobytes() == whole[1].tobytes()


def test_a_window_ends_at_its_sample():
    x, dy = inputs((3, 4, 5), np.float32)
    arguments = 3, 0.5, 0.75, 1.0
    alone = both(x[1:2], dy[1:2], arguments)
    x[0] = x[2] = np.nan
    for found, expected in zip(both(x, dy, arguments), alone, strict=True):
        np.testing.assert_array_equal(found[1:2], expected)


def test_vectors_where_all_arrays_have_them():
    form = walks.walk_form(4, 96, (256, 512), walks.WALK)
    assert form.lanes == 4
    assert walks.walk_form(2, 96, (256, 512), walks.WALK).lanes == 8
    assert walks.walk_form(4, 98, (256, 512), walks.WALK).lanes == 2
    assert walks.walk_form(4, 96, (256, 516), walks.WALK).lanes == 1


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (64, 192, 3025), (2, 96, 12321), (1 << 20, 7, 1), (1, 3, 1 << 30)]
)
def test_every_element_is_taken(shape):
    outer, channels, inner = shape
    form = walks.walk_form(4, inner, (256,), replace(walks.WALK, threads=256))
    walk = walks.walk(*shape, form, walks.WALK, 132)
    vectors = walk.blocks // walk.pieces * form.block * walk.rows
    assert vectors * form.lanes >= outer * channels * inner
    assert walk.pieces * walk.length >= walk.rows
    assert (walk.pieces - 1) * walk.length < walk.rows
    assert walk.across + walk.over * inner in (walk.width, walk.width % (channels * inner))
