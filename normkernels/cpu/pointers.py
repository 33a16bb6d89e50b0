"""Where arrays begin, as kernels go on with them.

float16 lies in memory that kernels see as uint16, bfloat16 as int16. "The dtype of the arithmetic" of a
pointer is float32 for these two and its own otherwise. Pointers instead of arrays because numba counts
references to arrays inside hot loops (measured: 33 ns instead of 4 ns for the sums of a row of 128).
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

from .tracing import formula
from .vectors import arithmetic


def as_pointers(type_: types.Type) -> types.Type:
    """The type with pointers for arrays, in tuples and records too."""
    if isinstance(type_, types.Array):
        return types.CPointer(type_.dtype)
    return with_parts(type_, [as_pointers(t) for t in type_]) if isinstance(type_, types.BaseTuple) else type_


def with_parts(type_: types.BaseTuple, parts: list[types.Type]) -> types.BaseTuple:
    """A tuple or record of these parts."""
    return types.BaseTuple.from_types(parts, getattr(type_, "instance_class", None))


def begin(context: Any, builder: Any, type_: types.Type, value: ir.Value) -> ir.Value:
    """The value with pointers for arrays."""
    if isinstance(type_, types.Array):
        return context.make_array(type_)(context, builder, value).data
    if not isinstance(type_, types.BaseTuple):
        return value
    parts = zip(type_, cgutils.unpack_tuple(builder, value), strict=True)
    return context.make_tuple(builder, as_pointers(type_), [begin(context, builder, t, v) for t, v in parts])


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """Where `array` begins, which does not keep it alive: what a kernel was given lives until it ends.

    An array that a kernel makes is freed after its last use, of which a pointer is none: hand it to `share`,
    or to a function that takes the array. Of a tuple or a record the same with pointers for its arrays; None
    and numbers stay what they are.
    """

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return begin(context, builder, sig.args[0], args[0])

    return as_pointers(array)(array), codegen


def _moved(context: Any, builder: Any, type_: types.Type, value: ir.Value, index: ir.Value) -> ir.Value:
    if isinstance(type_, types.CPointer):
        return builder.gep(value, [index])
    if not isinstance(type_, types.BaseTuple):
        return value
    parts = zip(type_, cgutils.unpack_tuple(builder, value), strict=True)
    return context.make_tuple(builder, type_, [_moved(context, builder, t, v, index) for t, v in parts])


@intrinsic
def offset(typingctx: Any, pointer: Any, index: Any) -> Any:
    """The pointer `index` elements further on; of a tuple or a record, all its pointers. None for None."""
    if as_pointers(pointer) != pointer:
        raise TypingError(f"pointers move, arrays do not, got {pointer}")

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _moved(context, builder, sig.args[0], *args)

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
