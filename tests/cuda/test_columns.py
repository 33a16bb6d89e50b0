"""Batch norm over columns of the CUDA backend."""

from dataclasses import replace
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
from on_device import flat

from normkernels._plan import channel_plan
from normkernels.cuda import config, launch_columns, launch_strips, strip_rules, strips
from normkernels.cuda.devices import properties
from normkernels.cuda.strip_rules import StripRule
from normkernels.reference import fused
from normkernels.reference.batch_norm import batch_norm_backward, batch_norm_forward
from normkernels.reference.batch_renorm import batch_renorm_backward, batch_renorm_forward

EPS, FACTOR = 1e-5, 0.1
NEVER = (1.0, 0.0)  # r_max and d_max of what is no batch renormalization
PLAIN = fused.Steps(batch_norm_forward, batch_norm_backward, False)
RENORM = fused.Steps(batch_renorm_forward, batch_renorm_backward, False)
# How strips of columns are taken: streamed, held by teams of one block, by teams of several.
STREAMED = ()
ONE = (StripRule(elements=64, resident=1, blocks=1, threads=32),)
SEVERAL = (StripRule(elements=8, resident=1, blocks=7, threads=32),)
OF_STRIPS = replace(properties(0), multiprocessors=14)
SHAPES = [(50, 8), (300, 3), (7, 3), (2, 1), (2, 60), (33, 16), (90, 5), (40, 20)]
PRECISION = {np.float64: 1e-12, np.float32: 3e-6, np.float16: 2e-3, ml_dtypes.bfloat16: 1.5e-2}


# The simulator's threads know nothing of numpy.errstate; what overflows lies beyond the array, or is meant.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


class Example(NamedTuple):
    x: np.ndarray
    dy: np.ndarray
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    activation: str | None = None
    limits: tuple[float, float] = NEVER
    training: bool = True


@pytest.fixture(autouse=True)
def few_threads(monkeypatch):
    few = replace(properties(0), multiprocessors=2)
    monkeypatch.setattr(launch_columns, "properties", lambda device: few)
    for name in ("MOMENTS", "PAIRS", "ACTIVATED", "FINISH"):
        rule = getattr(config, name)
        monkeypatch.setattr(config, name, replace(rule, threads=16, elements=min(rule.elements, 8)))
    monkeypatch.setattr(strip_rules, "WIDTHS", (2,))
    monkeypatch.setattr(launch_strips, "properties", lambda device: OF_STRIPS)


def example(shape, dtype=np.float32, mean=0.0, parameters=None, residual=False, seed=0, **options):
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=shape) + mean).astype(dtype)
    dy = rng.normal(size=shape).astype(dtype)
    if parameters is not None:
        options["weight"], options["bias"] = rng.normal(size=(2, shape[1])).astype(parameters)
    if residual:
        options["residual"] = rng.normal(size=shape).astype(dtype)
    return Example(x, dy, **options)


def running_statistics(e, dtype=np.float64):
    rng = np.random.default_rng(1)
    c = e.x.shape[1]
    return rng.normal(size=c).astype(dtype), (rng.random(size=c) + 0.5).astype(dtype)


def held(e, rules):
    """The form and the cut of teams that hold strips of x; None where it is streamed."""
    return strip_rules.strip_form(*e.x.shape, e.x.itemsize, (), rules, OF_STRIPS)


def ways(e):
    """The rules that take x in different ways."""
    one, several = held(e, ONE), held(e, SEVERAL)
    found = [STREAMED]
    if e.training:
        found += [ONE] * (one is not None)
        found += [SEVERAL] * (several is not None and several[0].blocks > 1)
    return found


def device(e, rules=STREAMED, leads=(0, 0, 0, 0), statistics=np.float64, in_place=False):
    """y, dx, dweight, dbias, dresidual, and the running statistics, as float64."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strip_rules, "strip_rules", lambda backward, fused: rules)
        return _device(e, leads, statistics, in_place)


def _device(e, leads, statistics, in_place):
    plan = channel_plan(e.x.shape, e.x.strides, e.x.dtype, 1)
    assert plan.inner == 1 or plan.channels == 1
    plan = replace(plan, outer=e.x.shape[0], inner=1)
    poison = np.full_like(e.x, np.nan)
    x, y, dx = flat(e.x, leads[0]), flat(poison, leads[1]), flat(poison, leads[2])
    dy, weight, bias, residual = flat(e.dy, leads[3]), flat(e.weight), flat(e.bias), flat(e.residual)
    running = tuple(flat(s) for s in running_statistics(e, statistics))
    r = d = None
    if e.training:
        mean, rstd, r, d = launch_columns.channel_forward(
            plan, x, weight, bias, (EPS, FACTOR, *e.limits), running, y, None, e.activation, residual
        )
    else:
        given_mean, var = (s.copy_to_host() for s in running)
        mean, rstd = flat(given_mean), flat(1 / np.sqrt(var + EPS))
        launch_columns.channel_normalize(plan, x, mean, rstd, weight, bias, y, None, e.activation, residual)
    dresidual = None if residual is None else flat(poison, leads[2])
    if in_place:
        dx = dy
    sums = launch_columns.channel_backward(
        plan, dy, x, mean, rstd, weight, bias, e.training, dx, None, e.activation, residual, dresidual, (r, d)
    )
    found = (y, dx, *sums, dresidual, *running)
    return [None if a is None else a.copy_to_host().astype(np.float64) for a in found]


def oracle(e, statistics=np.float64):
    def exact(a):
        return None if a is None else np.asarray(a).astype(np.float64)

    running = [exact(s) for s in running_statistics(e, statistics)]
    c = e.x.shape[1]
    weight = np.ones(c) if e.weight is None else exact(e.weight)
    bias = np.zeros(c) if e.bias is None else exact(e.bias)
    steps, limits = (PLAIN, ()) if e.limits == NEVER else (RENORM, e.limits)
    y, saved = steps.forward(
        exact(e.x), *running, weight, bias, e.training, FACTOR, EPS, *limits,
        residual=exact(e.residual), activation=e.activation,
    )  # fmt: skip
    grads = steps.backward(exact(e.dy), saved)
    dresidual = grads.dresidual if e.residual is not None else None
    dweight = None if e.weight is None else grads.dweight
    dbias = None if e.bias is None else grads.dbias
    return [y, grads.dx, dweight, dbias, dresidual, *running]


def agree(e, tolerance=None, **options):
    tolerance = tolerance or PRECISION[e.x.dtype.type]
    scale = 1.0 + np.sqrt(len(e.x))
    expected = oracle(e, options.get("statistics", np.float64))
    names = "y", "dx", "dweight", "dbias", "dresidual", "running_mean", "running_var"
    for rules in ways(e):
        for name, found, wanted in zip(names, device(e, rules, **options), expected, strict=True):
            assert (found is None) == (wanted is None), name
            if wanted is not None:
                atol = tolerance * (scale if name in ("dweight", "dbias") else 1.0)
                found = found.reshape(wanted.shape)
                np.testing.assert_allclose(
                    found, wanted, rtol=tolerance, atol=atol, err_msg=f"{name}, {rules}"
                )


@pytest.mark.parametrize(
    ("shape", "dtype", "number"),
    [
        ((50, 8), np.float32, 3),
        ((45, 8), np.float32, 3),
        ((40, 16), np.float16, 3),
        ((40, 16), np.float64, 3),
        ((200, 24), np.float32, 3),
        ((220, 8), np.float32, 3),
        ((40, 20), np.float32, 3),
        ((2, 60), np.float32, 2),
        ((33, 3), np.float32, 1),
    ],
)
def test_the_ways_that_are_tried(shape, dtype, number):
    assert len(ways(example(shape, dtype))) == number


def test_what_is_held_is_read_by_one_kernel(monkeypatch):
    """And what does not begin with a vector goes the other way."""
    kernels = []

    def launched(module):
        launch = module.launch

        def noted(kernel, *args):
            kernels.append(kernel)
            launch(kernel, *args)

        return noted

    for module in (launch_columns, launch_strips):
        monkeypatch.setattr(module, "launch", launched(module))
    device(example((50, 8)), SEVERAL)
    assert kernels == [strips.forward, strips.backward]
    kernels.clear()
    device(example((50, 8)), SEVERAL, leads=(1, 1, 1, 1))
    assert len(kernels) == 6
    assert not {strips.forward, strips.backward} & set(kernels)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("training", [True, False])
def test_as_the_equations(shape, training):
    agree(example(shape, parameters=np.float32, training=training))


@pytest.mark.parametrize("shape", [(50, 8), (61, 5)])
def test_without_parameters(shape):
    agree(example(shape))


@pytest.mark.parametrize("shape", [(33, 16), (50, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"parameters": np.float32},
        {"parameters": np.float32, "residual": True, "activation": "gelu"},
        {"residual": True},
        {},
    ],
    ids=["parameters", "fused", "residual", "nothing"],
)
def test_evaluation(shape, options):
    """The statistics are constants: one sweep has dx and all sums."""
    agree(example(shape, training=False, **options))


@pytest.mark.parametrize("dtype", PRECISION)
@pytest.mark.parametrize("shape", [(40, 16), (31, 5)])
def test_dtypes(dtype, shape):
    agree(example(shape, dtype, parameters=dtype))
    if np.dtype(dtype).itemsize == 2:
        agree(example(shape, dtype, parameters=np.float32, residual=True, activation="silu"))


@pytest.mark.parametrize("activation", [None, "relu", "sigmoid", "silu", "gelu"])
@pytest.mark.parametrize("residual", [True, False])
def test_fused(activation, residual):
    for training in (True, False):
        agree(
            example(
                (45, 8), parameters=np.float32, residual=residual, activation=activation, training=training
            )
        )


@pytest.mark.parametrize("leads", [(3, 3, 3, 3), (1, 1, 1, 1), (0, 1, 2, 3), (2, 0, 2, 0)])
@pytest.mark.parametrize("shape", [(50, 8), (33, 3), (3, 1), (101, 2)])
def test_where_arrays_begin(leads, shape):
    agree(example(shape, parameters=np.float32, residual=True, activation="relu"), leads=leads)


def test_in_place():
    agree(example((50, 8), parameters=np.float32), in_place=True)


@pytest.mark.parametrize("statistics", [np.float32, np.float16])
def test_dtypes_of_running_statistics(statistics):
    agree(example((50, 8)), tolerance=4e-6 if statistics == np.float32 else 2e-3, statistics=statistics)


@pytest.mark.parametrize("parameters", [None, np.float32])
def test_batch_renormalization(parameters):
    for activation in (None, "gelu"):
        agree(
            example((50, 8), mean=0.3, parameters=parameters, activation=activation, limits=(1.5, 0.5)), 1e-5
        )


@pytest.mark.parametrize("shape", [(220, 8), (201, 5)])
def test_a_mean_far_from_zero(shape):
    agree(example(shape, mean=1e4), tolerance=1e-5)


@pytest.mark.parametrize("limits", [NEVER, (1.5, 0.5)])
def test_a_team_that_takes_several_strips(limits):
    """Blocks meet for each of them, through the two halves of one buffer."""
    e = example((200, 24), mean=1e4, parameters=np.float32, limits=limits)
    form, cut = held(e, SEVERAL)
    assert cut.strips > OF_STRIPS.multiprocessors // form.blocks
    agree(e, 1e-5)


def test_far_first_rows():
    """The pivot of a thread is then far from the mean of what it sums."""
    e = example((220, 8), mean=1e4)
    e.x[:40] = 0
    for rules in ways(e):
        y, *_ = device(e, rules)
        np.testing.assert_allclose(y, oracle(e)[0].reshape(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_outside_of_float32(scale):
    e = example((100, 4))
    plan = channel_plan(e.x.shape, e.x.strides, e.x.dtype, 1)
    x = (e.x * np.array([scale, 1, scale, 0])).astype(np.float32)
    mean, var = (a.copy_to_host() for a in launch_columns.channel_moments(plan, flat(x), None))
    np.testing.assert_allclose(var, x.astype(np.float64).var(0), rtol=1e-6)
    np.testing.assert_allclose(mean, x.astype(np.float64).mean(0), atol=1e-7 * scale, rtol=1e-6)


@pytest.mark.parametrize("rules", [ONE, SEVERAL])
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_squares_outside_of_float32_where_strips_are_held(scale, rules, monkeypatch):
    """Beside columns of usual squares, one far from 0 that is constant, and one of zeros."""
    e = example((100, 8))
    x = (e.x * np.array([scale, 1, scale, 0, scale, 0, 1, 1])).astype(np.float32)
    x[:, 5] = 3e38
    monkeypatch.setattr(strip_rules, "strip_rules", lambda backward, fused: rules)
    plan = channel_plan(x.shape, x.strides, x.dtype, 1)
    y = flat(np.full_like(x, np.nan))
    mean, rstd, *_ = launch_columns.channel_forward(
        plan, flat(x), None, None, (0.0, FACTOR, *NEVER), (), y, None
    )
    exact = x.astype(np.float64)
    sd = exact.std(0)
    np.testing.assert_allclose(mean.copy_to_host(), exact.mean(0), atol=1e-7 * scale, rtol=1e-6)
    np.testing.assert_allclose(rstd.copy_to_host() * sd, sd > 0, rtol=1e-6)
    x_hat = (exact - exact.mean(0)) / np.where(sd > 0, sd, 1)
    np.testing.assert_allclose(y.copy_to_host().reshape(x.shape), x_hat, atol=3e-6)


def test_constant_columns_give_the_bias():
    e = example((200, 8), parameters=np.float32)
    e.x[:, ::2] = np.float32([1e4, 0.1, -3e38, 0])
    for rules in ways(e):
        y, dx, *_ = device(e, rules)
        np.testing.assert_array_equal(
            y.reshape(200, 8)[:, ::2], np.tile(e.bias[::2].astype(np.float64), (200, 1))
        )
        assert np.isfinite(dx).all()


@pytest.mark.parametrize("rules", [STREAMED, ONE, SEVERAL])
def test_nan_stays_in_its_column(rules):
    e = example((100, 8), parameters=np.float32)
    clean = device(e, rules)
    e.x[17, 3] = np.nan
    dirty = device(e, rules)
    for found, expected in zip(dirty, clean, strict=True):
        if expected is not None:
            found, expected = found.reshape(-1, 8), expected.reshape(-1, 8)
            np.testing.assert_array_equal(np.delete(found, 3, 1), np.delete(expected, 3, 1))
    assert np.isnan(dirty[0].reshape(100, 8)[:, 3]).all()


def test_many_equal_terms_do_not_drift():
    e = example((4000, 4), parameters=np.float32)
    e.dy[:] = 0.1
    found = device(e)
    np.testing.assert_allclose(found[3], np.float64(np.float32(0.1)) * 4000, rtol=1e-6)


@pytest.mark.parametrize("shape", [(200, 8), (203, 3)])
def test_the_same_bits_again(shape):
    e = example(shape, parameters=np.float32, activation="silu")
    for rules in ways(e):
        for first, second in zip(device(e, rules), device(e, rules), strict=True):
            assert first is None or first.tobytes() == second.tobytes()


def test_float64_moments():
    e = example((333, 3), np.float64, mean=1e6)
    plan = channel_plan(e.x.shape, e.x.strides, e.x.dtype, 1)
    mean, var = (a.copy_to_host() for a in launch_columns.channel_moments(plan, flat(e.x, 1), None))
    np.testing.assert_allclose(mean, e.x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(var, e.x.var(0), rtol=1e-10)


@pytest.mark.parametrize(("teams", "cols"), [(1, 5), (7, 70), (40, 3), (3, 1)])
def test_column_sums(teams, cols):
    partials = np.random.default_rng(0).normal(size=(2, teams, cols))
    a, b = flat(np.full(cols, np.nan)), flat(np.full(cols, np.nan, np.float32))
    launch_columns.column_sums(flat(partials), teams, cols, a, b)
    np.testing.assert_allclose(a.copy_to_host(), partials[0].sum(0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(b.copy_to_host(), partials[1].sum(0), rtol=1e-6, atol=1e-6)
    only = flat(np.full(cols, np.nan))
    launch_columns.column_sums(flat(partials[0]), teams, cols, only, None)
    assert only.copy_to_host().tobytes() == a.copy_to_host().tobytes()


@pytest.mark.parametrize("channels", [2, 3, 64, 100, 257, 1000, 4096, 100_003])
@pytest.mark.parametrize("outer", [2, 1000, 3_000_000])
@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_launch_rules(channels, outer, itemsize):
    """All rows are taken, no thread sums more than it may, and few threads have nothing to do."""
    rule = config.ColumnRule(elements=32)
    form, lead = config.column_form(itemsize, outer * channels, (256,), rule)
    cut = config.split_columns(-lead, outer * channels, channels, form, rule, 132)
    assert cut.width % channels == 0 == cut.width % form.lanes
    assert cut.strips * cut.across * form.lanes >= cut.width
    assert cut.pieces * cut.length * cut.width >= outer * channels > (cut.pieces - 1) * cut.length * cut.width
    assert cut.length <= config.FLUSH * cut.slots
    assert cut.slots * cut.across <= form.block
    used = cut.width / form.lanes / (cut.strips * cut.across) * cut.slots * cut.across / form.block
    assert used > 0.65 or cut.width < 16 * form.lanes
