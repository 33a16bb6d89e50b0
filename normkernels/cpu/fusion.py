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
from .jit import primitive, step
from .primitives import TILE, fetch, put, streamed_head
from .vectors import as_element, lanes


@intrinsic
def tile_on_stack(typingctx: Any, pointer: Any) -> Any:
    """Room for TILE elements of the pointer's dtype until the calling function returns; None for None."""
    if isinstance(pointer, types.NoneType):
        return pointer(pointer), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return cgutils.alloca_once(builder, context.get_value_type(pointer.dtype), TILE)

    return pointer(pointer), codegen


@intrinsic
def first_of(typingctx: Any, pointer: Any, other: Any) -> Any:
    """The pointer, or the other one where it is None."""
    chosen = int(isinstance(pointer, types.NoneType))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return args[chosen]

    return (pointer, other)[chosen](pointer, other), codegen


@step
def plus(value, addend, i, n):
    """value + addend[i : i + n]"""
    if addend is None:
        return value
    return value + fetch(addend, i, n, as_element(addend, 0.0))


@step
def _sum(x, residual, i, n, h, total, stream):
    value = plus(fetch(x, i, n, as_element(x, 0.0)), residual, i, n)
    put(h, i, n, value, False)
    if total is not None:
        put(total, i, n, value, stream)


@primitive
def add_residual(x, residual, n, h, total, stream):
    """h = x + residual of a run, and total, where there is one; x itself where there is no residual"""
    if residual is None:
        return x
    i = 0 if total is None else streamed_head(total, n, stream)
    if i > 0:
        _sum(x, residual, 0, i, h, total, stream)
    while i + lanes(x) <= n:
        _sum(x, residual, i, None, h, total, stream)
        i += lanes(x)
    if i < n:
        _sum(x, residual, i, n - i, h, total, stream)
    return h


@primitive
def copy_run(x, n, y, stream):
    """y = x"""
    zero = as_element(x, 0.0)
    i = streamed_head(y, n, stream)
    if i > 0:
        put(y, 0, i, fetch(x, 0, i, zero), stream)
    while i + lanes(x) <= n:
        put(y, i, None, fetch(x, i, None, zero), stream)
        i += lanes(x)
    if i < n:
        put(y, i, n - i, fetch(x, i, n - i, zero), stream)


@step
def activated(z, kind):
    if kind is None:
        return z
    return activation(z, kind)
