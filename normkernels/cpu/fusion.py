"""What fused passes add to the vectors of a norm, before and after; absent parts are None.

numba compiles a function anew for a None and leaves out what hangs on it: a pass that fuses nothing
is compiled as if none of this were here. (It does not leave out what hangs on something not being None: both
sides of an `if` must then have one type.)
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .activations import activation
from .jit import primitive
from .loops import each
from .tracing import step
from .tuning import TILE
from .vectors import Index, Pointer, Value


@intrinsic
def tile_on_stack(typingctx: Any, pointer: Any) -> Any:
    """Room for TILE elements of the pointer's dtype until the calling function returns; None for None."""
    if isinstance(pointer, types.NoneType):
        return pointer(pointer), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return cgutils.alloca_once(builder, context.get_value_type(pointer.dtype), TILE)

    return pointer(pointer), codegen


def _one_of(given: tuple[types.Type, types.Type], k: int) -> Any:
    """What an intrinsic of two arguments gives that is one of them."""
    return given[k](*given), lambda context, builder, sig, args: args[k]


@intrinsic
def first_of(typingctx: Any, pointer: Any, other: Any) -> Any:
    """The pointer, or the other one where it is None."""
    return _one_of((pointer, other), int(isinstance(pointer, types.NoneType)))


@intrinsic
def where_given(typingctx: Any, value: Any, other: Any) -> Any:
    """The value; None where the other is None."""
    return _one_of((value, other), int(isinstance(other, types.NoneType)))


@intrinsic
def where_absent(typingctx: Any, value: Any, other: Any) -> Any:
    """The value where the other is None; None where that is given."""
    if isinstance(other, types.NoneType):
        return _one_of((value, other), 0)
    return types.none(value, other), lambda context, builder, sig, args: context.get_dummy_value()


def plus(value: Value, addend: Pointer | None, i: Index) -> Value:
    """value + addend[i]"""
    return value if addend is None else value + addend[i]


def activated(z: Value, kind: Value | None) -> Value:
    """The activation at z; z where there is none"""
    return z if kind is None else activation(z, kind)


@step
def _keep_sum(i, h, x, residual):
    h[i] = x[i] + residual[i]


@step
def _write_sum(i, total, x, residual, h):
    h[i.cached] = total[i] = x[i] + residual[i]


@primitive
def add_residual(x, residual, n, h, total, stream):
    """h = x + residual of a run, and total, where there is one; x itself where there is no residual"""
    if residual is None:
        return x
    if total is None:
        each(n, None, _keep_sum, h, x, residual)
    else:
        each(n, stream, _write_sum, total, x, residual, h)
    return h


@step
def _copy(i, y, x):
    y[i] = x[i]


@primitive
def copy_run(x, n, y, stream):
    """y = x, where there is a y"""
    if y is not None:
        each(n, stream, _copy, y, x)
