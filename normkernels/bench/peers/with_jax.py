"""JAX on the CPU: the norms as its libraries write them in jax.numpy, compiled by XLA.

A backward is the pullback of jax.vjp, compiled: what the forward keeps is computed before, as in training.
"""

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ...norms import NORMS
from ..cases import Case
from ..check import Tensors
from ..inputs import Array, Inputs
from ..timing import Contender
from .peer import Peer, gradients

EPS = 1e-5


class Jax(Peer):
    """Every norm but batch renorm, both passes and evaluation; float32 and float64, both layouts."""

    def __init__(self, threads: int) -> None:
        os.environ |= {"NPROC": str(threads), "JAX_PLATFORMS": "cpu"}  # read when XLA makes its pools
        import jax

        jax.config.update("jax_enable_x64", True)
        self._jax = jax
        self._functions = _functions(jax.numpy, jax.lax)

    def has(self, case: Case) -> bool:
        return case.op in self._functions and not case.fuse and case.dtype in ("float32", "float64")

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        jax, a = self._jax, inputs.arguments
        names = list(NORMS[case.op].parameters)
        parameters = [jax.numpy.array(a[name]) for name in names]
        function = jax.jit(partial(self._functions[case.op], case.channel_axis, a))
        xs = [jax.numpy.array(inputs.x) for _ in range(slots)]

        if case.pass_ == "forward":
            running = [jax.numpy.array(a[name]) for name in a if name.startswith("running")]
            calls = [(x, *parameters, *running) for x in xs]
            made = Contender(_waiting(function), calls, {}, lambda result: _memory(result[0]))
            made.reads = [_memory(x) for x in xs]
            return made
        pullbacks = [jax.vjp(lambda *given: function(*given)[0], x, *parameters)[1] for x in xs]
        dys = [jax.numpy.array(inputs.dy) for _ in range(slots)]
        backward = _waiting(jax.jit(lambda pullback, dy: pullback(dy)))
        calls = list(zip(pullbacks, dys, strict=True))
        made = Contender(backward, calls, {}, lambda result: _memory(result[0]))
        made.reads = [_memory(dy) for dy in dys]
        return made

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        arrays = [np.asarray(each) for each in result]
        if case.pass_ == "backward":
            return gradients(case, arrays)
        running = (name for name in inputs.arguments if name.startswith("running"))
        return dict(zip(("y", *running), arrays, strict=not case.evaluation))


def _memory(array: Any) -> Array:
    """The memory of an array, for the layer before to write to: JAX itself never would."""
    memory = (ctypes.c_char * array.nbytes).from_address(array.unsafe_buffer_pointer())
    return np.ndarray(array.shape, array.dtype, memory)


def _waiting(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns when its results are there."""

    def waiting(*arguments: Any) -> Any:
        results = function(*arguments)
        for each in results:
            each.block_until_ready()
        return results

    return waiting


Function = Callable[..., tuple[Any, ...]]
"""(channel axis, arguments, x, *parameters, *running statistics) -> (y, *new running statistics)"""


def _functions(jnp: Any, lax: Any) -> dict[str, Function]:
    def standardized(x: Any, axes: Any) -> tuple[Any, Any, Any]:
        mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
        return (x - mean) * lax.rsqrt(var + EPS), mean, var

    def of_channels(axis: int, x: Any, a: Any) -> Any:
        return a.reshape([-1 if i == axis else 1 for i in range(x.ndim)])

    def layer_norm(axis: int, a: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
        return (standardized(x, axis)[0] * of_channels(axis, x, weight) + of_channels(axis, x, bias),)

    def rms_norm(axis: int, a: Any, x: Any, weight: Any) -> tuple[Any, ...]:
        rstd = lax.rsqrt((x * x).mean(axis, keepdims=True) + a["eps"])
        return (x * rstd * of_channels(axis, x, weight),)

    def group_norm(axis: int, a: Any, x: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
        groups = (*x.shape[:axis], a["num_groups"], -1, *x.shape[axis + 1 :])
        grouped = x.reshape(groups)
        axes = tuple(i for i in range(1, grouped.ndim) if i != axis)
        x_hat = standardized(grouped, axes)[0].reshape(x.shape)
        return (x_hat * of_channels(axis, x, weight) + of_channels(axis, x, bias),)

    def over(axes: Sequence[int], axis: int, x: Any, weight: Any, bias: Any, running: Any) -> tuple[Any, ...]:
        """Statistics over some axes; those of instances are averaged into the running ones."""
        x_hat, mean, var = standardized(x, tuple(axes))
        y = x_hat * of_channels(axis, x, weight) + of_channels(axis, x, bias)
        count = x.size // mean.size
        others = tuple(i for i in range(x.ndim) if i != axis)
        now = (mean.mean(others), var.mean(others) * count / (count - 1))
        return y, *(0.9 * before + 0.1 * new for before, new in zip(running, now, strict=False))

    def batch_norm(axis: int, a: Any, x: Any, weight: Any, bias: Any, *running: Any) -> tuple[Any, ...]:
        if not a["training"]:
            mean, var = (of_channels(axis, x, each) for each in running)
            scale = of_channels(axis, x, weight) * lax.rsqrt(var + EPS)
            return ((x - mean) * scale + of_channels(axis, x, bias),)
        return over([i for i in range(x.ndim) if i != axis], axis, x, weight, bias, running)

    def instance_norm(axis: int, a: Any, x: Any, weight: Any, bias: Any, *running: Any) -> tuple[Any, ...]:
        return over([i for i in range(1, x.ndim) if i != axis], axis, x, weight, bias, running)

    def weight_norm(axis: int, a: Any, v: Any, g: Any) -> tuple[Any, ...]:
        squares = (v * v).sum(tuple(range(1, v.ndim)), keepdims=True)
        return (v * (of_channels(0, v, g) * lax.rsqrt(squares)),)

    def local_response_norm(axis: int, a: Any, x: Any) -> tuple[Any, ...]:
        window = [a["size"] if i == axis else 1 for i in range(x.ndim)]
        padding = [(n // 2, (n - 1) // 2) for n in window]
        sums = lax.reduce_window(x * x, x.dtype.type(0), lax.add, window, [1] * x.ndim, padding)
        return (x * (1 + 1e-4 / a["size"] * sums) ** -0.75,)

    return {
        "layer_norm": layer_norm,
        "rms_norm": rms_norm,
        "group_norm": group_norm,
        "instance_norm": instance_norm,
        "batch_norm": batch_norm,
        "weight_norm": weight_norm,
        "local_response_norm": local_response_norm,
    }
