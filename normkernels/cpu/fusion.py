"""What fused passes add to the vectors of a norm, before and after; absent parts are None.

numba compiles a function anew for a None and leaves out what hangs on it: a pass that fuses nothing
is compiled as if none of this were here.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .activations import activation
from .jit import primitive, step
from .primitives import TILE, fetch
from .vectors import as_element, lanes, rounded, store, store_part


@intrinsic
def tile_on_stack(typingctx: Any, pointer: Any) -> Any:
    """Room for TILE elements of the pointer's dtype until the calling function returns; None for None."""
    if isinstance(pointer, types.NoneType):
        return pointer(pointer), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return cgutils.alloca_once(builder, context.get_value_type(pointer.dtype), TILE)

    return pointer(pointer), codegen


@step
def plus(value, addend, i, n):
    """value + addend[i : i + n]"""
    if addend is None:
        return value
    return value + fetch(addend, i, n, as_element(addend, 0.0))


@step
def summed(x, residual, i, n, fill):
    """(x + residual)[i : i + n], rounded as a sum in memory would be; `fill` in the other lanes"""
    if residual is None:
        return fetch(x, i, n, fill)
    return rounded(x, plus(fetch(x, i, n, fill), residual, i, n))


@primitive
def summed_tile(x, residual, n, scratch):
    """x + residual of a tile, in `scratch`; x itself without a residual"""
    if residual is None:
        return x
    whole = n - n % lanes(x)
    for i in range(0, whole, lanes(x)):
        store(scratch, i, summed(x, residual, i, None, None))
    if whole < n:
        n -= whole
        store_part(scratch, whole, n, summed(x, residual, whole, n, as_element(x, 0.0)))
    return scratch


@step
def activated(z, kind):
    if kind is None:
        return z
    return activation(z, kind)
