"""Where arrays begin, as kernels go on with them.

float16 lies in memory that kernels see as uint16, bfloat16 as int16. "The dtype of the arithmetic" of a
pointer is float32 for these two and its own otherwise. Pointers instead of arrays because numba counts
references to arrays inside hot loops (measured: 33 ns instead of 4 ns for the sums of a row of 128).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .tracing import formula
from .vectors import arithmetic


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """Where `array` begins, which does not keep it alive: whoever calls the kernel does. None for None."""
    if isinstance(array, types.NoneType | types.CPointer):
        return array(array), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return context.make_array(sig.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), codegen


@intrinsic
def offset(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The pointer `index` elements further on; None for None."""
    if isinstance(pointer, types.NoneType):
        return pointer(pointer, types.intp), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


@formula
def element(pointer: Any, i: Any) -> Any:
    """Element i in the dtype of the arithmetic."""
    return pointer.at(i)


@formula
def as_element(pointer: Any, value: Any) -> Any:
    """`value`, a number, rounded to the dtype of the pointer's arithmetic."""
    return pointer.rounded(value)


@intrinsic
def dtype_of(typingctx: Any, pointer: Any) -> Any:
    """The dtype of what it points to, as NumPy's functions take it."""
    return types.DType(pointer.dtype)(pointer), lambda context, builder, sig, args: context.get_dummy_value()


@intrinsic
def largest(typingctx: Any, pointer: Any) -> Any:
    """The largest finite number of the pointer's arithmetic, as float64."""
    value = float(np.finfo(f"f{arithmetic(pointer.dtype).bitwidth // 8}").max)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.DoubleType()(value)

    return types.float64(pointer), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """Make streaming stores visible to the other threads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
