"""Python functions that run while a kernel is compiled, and add instructions to it (decision 0016).

A *step* is what a loop does at an index (`loops`). A *formula* is a function of numbers, called from kernels,
from steps and from formulas. Neither has branches but those on None, nor loops but those whose number of
rounds is known.
"""

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import lower_constant
from numba.core.registry import cpu_target
from numba.extending import lower_builtin, models, register_model, type_callable, typeof_impl

from .vectors import Pointer, Value


class Step:
    """A function that a loop runs at every index: Python runs it while a kernel is compiled (`vectors`)."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function


def step(function: Callable[..., Any]) -> Step:
    """A function (i, pointer, *args) as a step of loops."""
    return Step(function)


class _StepType(types.Opaque):
    """What numba sees of a step."""

    def __init__(self, step: Step) -> None:
        self.function = step.function
        super().__init__(f"step {step.function.__module__}.{step.function.__qualname__} {id(step.function)}")


register_model(_StepType)(models.OpaqueModel)


@typeof_impl.register(Step)
def _type_of_step(step: Step, _: Any) -> _StepType:
    return _StepType(step)


@lower_constant(_StepType)
def _nothing(context: Any, builder: Any, type_: Any, value: Any) -> ir.Value:
    return context.get_dummy_value()


def seen(builder: Any, type_: types.Type, value: ir.Value) -> Any:
    """An argument of a loop as a step sees it."""
    if isinstance(type_, types.NoneType):
        return None
    if isinstance(type_, types.CPointer):
        return Pointer(builder, value, type_.dtype)
    if isinstance(type_, types.BaseTuple):
        parts = cgutils.unpack_tuple(builder, value)
        given = [seen(builder, t, v) for t, v in zip(type_, parts, strict=True)]
        return type_.instance_class(*given) if isinstance(type_, types.BaseNamedTuple) else tuple(given)
    return Value(builder, value)


_NUMBERS = {
    ir.FloatType(): types.float32,
    ir.DoubleType(): types.float64,
    ir.IntType(64): types.int64,
    ir.IntType(1): types.boolean,
}


def _result_type(function: Callable[..., Any], args: tuple[types.Type, ...]) -> types.Type:
    """What a formula gives: found in a function that is thrown away."""
    own = [cpu_target.target_context.get_value_type(a) for a in args]
    scratch = ir.Function(ir.Module(), ir.FunctionType(ir.VoidType(), own), "scratch")
    builder = ir.IRBuilder(scratch.append_basic_block())
    given = function(*(seen(builder, t, v) for t, v in zip(args, scratch.args, strict=True)))
    if isinstance(given, tuple):
        return types.Tuple([_NUMBERS[v.ir.type] for v in given])
    return _NUMBERS[given.ir.type]


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers and pointers: always a part of the kernel, step or formula that calls it."""

    @type_callable(function)
    def typed(context: Any) -> Any:
        def result(*args: types.Type) -> types.Type:
            return _result_type(function, args)

        result.pysig = inspect.signature(function)  # type: ignore[attr-defined]
        return result

    @lower_builtin(function, types.VarArg(types.Any))
    def lowered(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        result = function(*(seen(builder, t, v) for t, v in zip(sig.args, args, strict=True)))
        if isinstance(result, tuple):
            return cgutils.pack_array(builder, [v.ir for v in result])
        return result.ir

    return function
