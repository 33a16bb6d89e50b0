"""What the tests share: running a norm, layouts, and how large a rounding error may be."""

import copy
import inspect
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

from normkernels import Grads, release_buffers
from normkernels.norms import NormSpec, Passes
from normkernels.reference.group_norm import group_mean

HALVES = (np.float16, ml_dtypes.bfloat16)
DTYPES = (np.float32, np.float64, *HALVES)
# For kernels that take long to compile: large ones, or with things fused.
FLOAT32_FIRST = [np.float32, *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in DTYPES[1:])]

# The precision of the oracle: exact beside the type tested, float64 being enough for float32.
WIDER = {np.float64: np.longdouble} | dict.fromkeys((np.float32, *HALVES), np.float64)


def epsilon(dtype: Any) -> float:
    return float(ml_dtypes.finfo(dtype).eps)


def storage(a: np.ndarray) -> float:
    """The relative error of rounding a result to a half type; that of other types is one of arithmetic."""
    return epsilon(a.dtype) / 2 if a.dtype.itemsize == 2 else 0.0


class Run(NamedTuple):
    y: np.ndarray
    grads: Grads
    saved: Any
    arguments: dict[str, Any]  # as the call left them: running statistics move


def run(passes: Passes, x: np.ndarray, dy: np.ndarray, arguments: dict[str, Any], **options: Any) -> Run:
    """Forward and backward on copies of the arguments; options such as `threads` go to both."""
    arguments = copy.deepcopy(arguments)
    y, saved = passes.forward(x, **arguments, **options)
    return Run(y, passes.backward(dy, saved, **options), saved, arguments)


def fitted(spec: NormSpec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, with axes of two elements added where the norm needs more axes."""
    return (*shape, *[2] * (spec.min_ndim - len(shape)))


def accepted(spec: NormSpec, **options: Any) -> dict[str, Any]:
    """Those of the options that the norm has."""
    return {k: v for k, v in options.items() if k in inspect.signature(spec.kernels.call).parameters}


def widened(value: Any) -> Any:
    """Floating-point arrays, and those in a dict, in the precision of the oracle."""
    if isinstance(value, dict):
        return {key: widened(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.type in WIDER:
        return value.astype(WIDER[value.dtype.type])
    return value


def oracle(spec: NormSpec, x: np.ndarray, dy: np.ndarray, arguments: dict[str, Any]) -> Run:
    """What a norm gives without rounding, as far as this can tell."""
    return run(spec.reference, widened(x), widened(dy), widened(arguments))


def rounding(dtype: Any, run: int) -> float:
    """A bound on the relative error of a statistic: mean in sd, rstd, c1 and c2 in means of absolute values.

    n additions in one lane err by 4 sqrt(n) u at most (Higham & Mary 2019, with a failure probability of
    2 exp(-8)), and a pivot up to two standard deviations from the mean makes the terms three times as
    large. A tile has 4096 elements, of which runs shorter than a vector fill only the first lanes; sums
    over rows have 128 terms. float64 takes over after that.
    """
    dtype = max(np.dtype(np.float32), np.dtype(dtype), key=lambda d: d.itemsize)
    lanes = 128 // dtype.itemsize
    additions = max(128, 4096 / min(lanes, run)) + np.log2(lanes)
    return float(3 * 4 * np.sqrt(additions) * np.finfo(dtype).eps / 2)


def bounds(spec: NormSpec, x: np.ndarray, dy: np.ndarray, saved: Any) -> tuple[np.ndarray, Grads]:
    """How far y and the gradients may be from the oracle, whose `saved` this is.

    To first order: an error of `rounding` in mean and rstd moves x_hat by rounding * (|x_hat| + 1), the mean
    being a float64 adds half a unit of its last place, and every product and sum that follows errs in
    proportion to its absolute terms. dx has four factors that err: x_hat, c1, rstd and the product itself.
    """
    e = rounding(x.dtype, min((n for n in x.shape if n > 1), default=1))
    last_place = np.finfo(np.float64).eps * np.max(np.abs(x), initial=0) / 2
    x_hat = np.abs(saved.x_hat) + spec.centred * (1 + saved.rstd * (last_place / e))
    weight = 1 if saved.weight is None else np.abs(saved.weight)
    bias = 0 if saved.bias is None else np.abs(saved.bias)
    r, d = (np.abs(getattr(saved, "r", 1)), np.abs(getattr(saved, "d", 0)))  # of batch renormalization
    wdy = np.abs(dy) * weight * r

    def mean(a: np.ndarray) -> np.ndarray:
        if hasattr(saved, "num_groups"):
            return group_mean(a, saved.num_groups, saved.channel_axis)
        reduce = np.sum if spec.name == "weight_norm" else np.mean
        return reduce(a, axis=saved.axes, keepdims=True)

    positive = {"x_hat": x_hat} | ({"d": d} if hasattr(saved, "d") else {})
    sums = spec.reference.backward(np.abs(dy), saved._replace(**positive))
    dx = saved.rstd * (wdy + x_hat * mean(x_hat * wdy) + spec.centred * mean(wdy))
    half = storage(x)
    y = (e + half) * ((x_hat * r + d) * weight + bias)
    return y, Grads((4 * e + half) * dx, *(s if s is None else (2 * e + half) * np.abs(s) for s in sums[1:]))


def assert_within(actual: np.ndarray, expected: np.ndarray, bound: Any, name: str) -> None:
    assert actual.shape == expected.shape, f"{name} has shape {actual.shape}, not {expected.shape}"
    error = np.abs(actual - expected)
    if actual.dtype.itemsize == 2:
        bound = bound + float(ml_dtypes.finfo(actual.dtype).smallest_subnormal) / 2
    assert (error <= bound).all(), f"{name} errs by {float(np.max(error / bound)):.3g} times its bound"


def assert_matches(
    spec: NormSpec, actual: Run, x: np.ndarray, dy: np.ndarray, arguments: dict[str, Any]
) -> None:
    """y, gradients and running statistics are those of the oracle, within the bounds of rounding."""
    expected = oracle(spec, x, dy, arguments)
    y_bound, grad_bounds = bounds(spec, x, dy, expected.saved)
    assert_within(actual.y, expected.y, y_bound, "y")
    for name, a, b, bound in zip(Grads._fields, actual.grads, expected.grads, grad_bounds, strict=True):
        assert (a is None) == (b is None), f"{name} is {a}"
        if a is not None:
            assert_within(a, b, bound, name)
    for name in ("running_mean", "running_var"):
        a, b = actual.arguments.get(name), expected.arguments.get(name)
        if a is not None:
            sd = np.sqrt(np.max(expected.arguments["running_var"]))
            coarser = min(a.dtype, x.dtype, key=lambda dtype: dtype.itemsize)
            assert_within(a, b, (rounding(coarser, 1) + storage(a)) * (np.abs(b) + sd), name)


def assert_same_bits(a: Any, b: Any, name: str = "result") -> None:
    """Equal to the last bit, in tuples and dicts too; NaN equals NaN."""
    if isinstance(a, dict):
        a, b = tuple(a.values()), tuple(b.values())
    if isinstance(a, tuple):
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same_bits(left, right, f"{name}.{getattr(a, '_fields', range(len(a)))[i]}")
    elif a is not None:
        np.testing.assert_array_equal(a, b, err_msg=f"{name} differs", strict=isinstance(a, np.ndarray))


def finite_differences(f: Callable[[], Any], variable: np.ndarray) -> np.ndarray:
    """Central differences of the scalar f() by every element of `variable`, which f reads.

    With a step of eps^(1/3) truncation and rounding both cost about eps^(2/3).
    """
    step = np.finfo(variable.dtype).eps ** (variable.dtype.type(1) / 3)
    gradient = np.empty_like(variable)
    for i in np.ndindex(variable.shape):
        there = variable[i]
        variable[i] = there + step
        above, upper = f(), variable[i]
        variable[i] = there - step
        gradient[i] = (above - f()) / (upper - variable[i])
        variable[i] = there
    return gradient


def assert_gradients(
    passes: Passes,
    x: np.ndarray,
    dy: np.ndarray,
    arguments: dict[str, Any],
    parameters: dict[str, str] | None = None,
) -> None:
    """The backward is the derivative of the forward, element by element."""
    parameters = parameters or {"weight": "dweight", "bias": "dbias"}
    grads = run(passes, x, dy, arguments).grads
    variables = {"dx": x, **{parameters[k]: arguments[k] for k in parameters if arguments.get(k) is not None}}

    def loss() -> Any:
        return (dy * passes.call(x, **copy.deepcopy(arguments))).sum()

    tolerance = 1e3 * np.finfo(x.dtype).eps ** (2 / 3)
    for name, variable in variables.items():
        expected = finite_differences(loss, variable)
        np.testing.assert_allclose(getattr(grads, name), expected, rtol=0, atol=tolerance, err_msg=name)


def needed_besides(function: Callable[[], Any]) -> int:
    """Bytes that were held at once, besides what is returned; that is also what Moments carry unseen."""
    release_buffers()
    tracemalloc.start()
    try:
        result = function()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    unseen = getattr(result, "__dict__", {}).values()
    returned = [*(result if isinstance(result, tuple) else (result,)), *unseen]
    return peak - sum(a.nbytes for a in returned if np.ndim(a))


def misaligned(a: np.ndarray) -> np.ndarray:
    """Equal to a, its data beginning one byte past an address that its type wants."""
    raw = np.empty(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
    raw[...] = a
    return raw


def gaps(a: np.ndarray) -> np.ndarray:
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), np.nan, a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2]


# The same values in other strides.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.ascontiguousarray,
    "fortran": np.asfortranarray,
    "channels_last": lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1),
    "reversed": lambda a: np.ascontiguousarray(a[::-1, ..., ::-1])[::-1, ..., ::-1],
    "gaps": gaps,
    "rows_of_a_wider_array": lambda a: np.concatenate([a, a], axis=-1)[..., : a.shape[-1]],
    "misaligned": misaligned,
}
