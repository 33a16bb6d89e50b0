"""Vectors of fixed width as a numba type, and pointers to load them from.

float16 lies in memory that kernels see as uint16, bfloat16 as int16: a load converts to float32, a store
back, rounding to nearest even, so that everything between is arithmetic in float32. "The dtype of
the arithmetic" of a pointer is float32 for these two and its own otherwise.

LLVM's own vectorizer chooses widths, unrolling and tails by context, so the same loop inlined into
two kernels may add in two orders. Here a vector is always `VECTOR_BYTES` long (LLVM splits it into
registers of the machine), a sum always runs over the same lanes, and the bits never depend on who
calls. Pointers instead of arrays because numba counts references to arrays inside hot loops
(measured: 33 ns instead of 4 ns for the sums of a row of 128).
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

VECTOR_BYTES = 128
CACHE_LINE = 64

_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_HALF = {types.uint16: "float16", types.int16: "bfloat16"}


def arithmetic(dtype: types.Type) -> types.Float:
    """What a number of this dtype in memory becomes in a register."""
    return types.float32 if dtype in _HALF else dtype


class Vector(types.Type):
    """`lanes` floating-point numbers of one dtype."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def _splat(builder: Any, vector: ir.VectorType, scalar: ir.Value) -> ir.Value:
    if isinstance(scalar.type, ir.VectorType):
        return scalar
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.VectorType(_I32, vector.count)([0] * vector.count))


class _VectorArithmetic(AbstractTemplate):
    """vector (+, -, *, /) vector, vector (+, -, *, /) scalar of the same dtype."""

    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Vector) and args[1] in (args[0], args[0].dtype):
            return signature(args[0], *args)
        return None


def _lower_arithmetic(operation: Any, instruction: str) -> None:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        left, right = args
        return getattr(builder, instruction)(left, _splat(builder, left.type, right))

    infer_global(operation)(_VectorArithmetic)
    lower_builtin(operation, Vector, Vector)(lower)
    lower_builtin(operation, Vector, types.Float)(lower)


_lower_arithmetic(operator.add, "fadd")
_lower_arithmetic(operator.sub, "fsub")
_lower_arithmetic(operator.mul, "fmul")
_lower_arithmetic(operator.truediv, "fdiv")


@infer_global(operator.neg)
class _VectorNegation(AbstractTemplate):
    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        return signature(args[0], *args) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _lower_negation(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
    return builder.fneg(args[0])


def _call(builder: Any, name: str, result: ir.Type, args: list[ir.Value]) -> ir.Value:
    function_type = ir.FunctionType(result, [a.type for a in args])
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), args)


def _suffix(vector: ir.VectorType) -> str:
    names = {ir.FloatType(): "f32", ir.DoubleType(): "f64", _I16: "i16"}
    return f"v{vector.count}{names[vector.element]}"


def _vector_pointer(builder: Any, pointer: ir.Value, index: ir.Value, vector: ir.VectorType) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def _first_lanes(builder: Any, vector: ir.VectorType, count: ir.Value) -> ir.Value:
    """The mask of the first `count` lanes."""
    lane = ir.VectorType(_I32, vector.count)
    limit = _splat(builder, lane, builder.trunc(count, _I32))
    return builder.icmp_unsigned("<", lane(list(range(vector.count))), limit)


def _retyped(type_: ir.Type, element: ir.Type) -> ir.Type:
    """The same number of lanes of another element; a scalar gives a scalar."""
    return ir.VectorType(element, type_.count) if isinstance(type_, ir.VectorType) else element


def _constant(type_: ir.Type, value: int) -> ir.Value:
    return ir.Constant(type_, [value] * type_.count if isinstance(type_, ir.VectorType) else value)


def _widened(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    """What has been loaded, a vector or a number, in the dtype of the arithmetic."""
    if dtype not in _HALF:
        return value
    single = _retyped(value.type, ir.FloatType())
    if dtype == types.uint16:
        return builder.fpext(builder.bitcast(value, _retyped(value.type, ir.HalfType())), single)
    wide = _retyped(value.type, _I32)
    return builder.bitcast(builder.shl(builder.zext(value, wide), _constant(wide, 16)), single)


def _upper_halves(builder: Any, value: ir.Value) -> ir.Value:
    """The upper 16 of every 32 bits; one shuffle of two registers where shifts and narrowing take four."""
    if not isinstance(value.type, ir.VectorType):
        return builder.trunc(builder.lshr(value, _I32(16)), _I16)
    count = value.type.count
    halves = builder.bitcast(value, ir.VectorType(_I16, 2 * count))
    odd = ir.VectorType(_I32, count)(list(range(1, 2 * count, 2)))
    return builder.shuffle_vector(halves, ir.Constant(halves.type, ir.Undefined), odd)


def _narrowed(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    """A vector of the arithmetic as it is to be stored."""
    if dtype not in _HALF:
        return value
    short = _retyped(value.type, _I16)
    if dtype == types.uint16:
        return builder.bitcast(builder.fptrunc(value, _retyped(value.type, ir.HalfType())), short)
    wide = _retyped(value.type, _I32)
    bits = builder.bitcast(value, wide)
    tie = builder.and_(bits, _constant(wide, 0x10000))
    odd = builder.icmp_unsigned("!=", tie, _constant(wide, 0))
    half_step = builder.select(odd, _constant(wide, 0x8000), _constant(wide, 0x7FFF))
    nan = builder.or_(bits, _constant(wide, 0x400000))  # rounding could turn it into infinity
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), nan, builder.add(bits, half_step))
    return _upper_halves(builder, rounded)


@intrinsic
def pointer(typingctx: Any, array: Any) -> Any:
    """Where `array` begins, which does not keep it alive: whoever calls the kernel does. None for None."""
    if isinstance(array, types.NoneType):
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


@intrinsic
def lanes(typingctx: Any, pointer: Any) -> Any:
    """How many elements a vector of the pointer's dtype holds."""
    count = Vector(arithmetic(pointer.dtype)).lanes

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _I64(count)

    return types.intp(pointer), codegen


@intrinsic
def as_element(typingctx: Any, pointer: Any, value: Any) -> Any:
    """`value`, a scalar, rounded to the dtype of the pointer's arithmetic."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return context.cast(builder, args[1], sig.args[1], sig.return_type)

    return arithmetic(pointer.dtype)(pointer, value), codegen


@intrinsic
def element(typingctx: Any, pointer: Any, index: Any) -> Any:
    """pointer[index] in the dtype of the pointer's arithmetic."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _widened(builder, builder.load(builder.gep(args[0], [args[1]])), pointer.dtype)

    return arithmetic(pointer.dtype)(pointer, types.intp), codegen


@intrinsic
def largest(typingctx: Any, pointer: Any) -> Any:
    """The largest finite number of the pointer's arithmetic, as float64."""
    value = float(np.finfo(f"f{arithmetic(pointer.dtype).bitwidth // 8}").max)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.DoubleType()(value)

    return types.float64(pointer), codegen


@intrinsic
def elements_to_cache_line(typingctx: Any, pointer: Any) -> Any:
    """How many elements lie between the pointer and the next cache line."""
    itemsize = pointer.dtype.bitwidth // 8

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        rest = builder.and_(builder.neg(builder.ptrtoint(args[0], _I64)), _I64(CACHE_LINE - 1))
        return builder.udiv(rest, _I64(itemsize))

    return types.intp(pointer), codegen


@intrinsic
def zeros(typingctx: Any, pointer: Any) -> Any:
    """The vector of zeros of the pointer's dtype."""
    vector = Vector(arithmetic(pointer.dtype))

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.Constant(context.get_value_type(vector), None)

    return vector(pointer), codegen


def _stored(context: Any, pointer: Any) -> ir.VectorType:
    """The type of a vector in memory."""
    return ir.VectorType(context.get_value_type(pointer.dtype), Vector(arithmetic(pointer.dtype)).lanes)


@intrinsic
def load(typingctx: Any, pointer: Any, index: Any) -> Any:
    """pointer[index : index + lanes]"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        source = _vector_pointer(builder, args[0], args[1], _stored(context, pointer))
        return _widened(builder, builder.load(source, align=pointer.dtype.bitwidth // 8), pointer.dtype)

    return Vector(arithmetic(pointer.dtype))(pointer, types.intp), codegen


@intrinsic
def load_part(typingctx: Any, pointer: Any, index: Any, count: Any, fill: Any) -> Any:
    """pointer[index : index + count] in the first lanes, `fill` in the others; count <= lanes."""
    dtype = arithmetic(pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        base, index, count, fill = args
        type_ = _stored(context, pointer)
        source, mask = _vector_pointer(builder, base, index, type_), _first_lanes(builder, type_, count)
        arguments = [source, _I32(pointer.dtype.bitwidth // 8), mask, ir.Constant(type_, None)]
        loaded = _call(builder, f"llvm.masked.load.{_suffix(type_)}.p0", type_, arguments)
        value = _widened(builder, loaded, pointer.dtype)
        return builder.select(mask, value, _splat(builder, value.type, fill))

    return Vector(dtype)(pointer, types.intp, types.intp, dtype), codegen


@intrinsic
def store(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
    """pointer[index : index + lanes] = value"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        vector = _narrowed(builder, args[2], pointer.dtype)
        target = _vector_pointer(builder, args[0], args[1], vector.type)
        builder.store(vector, target, align=pointer.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@intrinsic
def store_streaming(typingctx: Any, pointer: Any, index: Any, value: Any) -> Any:
    """As `store`, past the caches; pointer[index] must begin a cache line."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        vector = _narrowed(builder, args[2], pointer.dtype)
        target = _vector_pointer(builder, args[0], args[1], vector.type)
        instruction = builder.store(vector, target, align=CACHE_LINE)
        instruction.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, value), codegen


@intrinsic
def store_part(typingctx: Any, pointer: Any, index: Any, count: Any, value: Any) -> Any:
    """pointer[index : index + count] = the first lanes of value; count <= lanes"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        base, index, count, vector = args
        vector = _narrowed(builder, vector, pointer.dtype)
        target = _vector_pointer(builder, base, index, vector.type)
        mask = _first_lanes(builder, vector.type, count)
        arguments = [vector, target, _I32(pointer.dtype.bitwidth // 8), mask]
        _call(builder, f"llvm.masked.store.{_suffix(vector.type)}.p0", ir.VoidType(), arguments)
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), codegen


@intrinsic
def store_part_streaming(typingctx: Any, pointer: Any, index: Any, count: Any, value: Any) -> Any:
    """As `store_part`, element by element past the caches: the processor joins neighbours to lines."""
    bits = pointer.dtype.bitwidth

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        base, index, count, vector = args
        vector = _narrowed(builder, vector, pointer.dtype)
        integer = ir.IntType(bits)
        lanes_in_memory = cgutils.alloca_once_value(builder, vector)
        source = builder.bitcast(lanes_in_memory, integer.as_pointer())
        target = builder.bitcast(builder.gep(base, [index]), integer.as_pointer())
        with cgutils.for_range(builder, count) as loop:
            element = builder.load(builder.gep(source, [loop.index]))
            instruction = builder.store(element, builder.gep(target, [loop.index]), align=bits // 8)
            instruction.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, types.intp, value), codegen


def multiply_add(builder: Any, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    operands = [_splat(builder, a.type, x) for x in (a, b, c)]
    return _call(builder, f"llvm.fma.{_suffix(a.type)}", a.type, operands)


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c with one rounding; `a` is a vector, `b` and `c` vectors or scalars of its dtype"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return multiply_add(builder, *args)

    b, c = (x if isinstance(x, Vector) else a.dtype for x in (b, c))
    return a(a, b, c), codegen


@intrinsic
def total(typingctx: Any, value: Any) -> Any:
    """The sum over the lanes, by halves: always in the same order."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        vector, count = args[0], value.lanes
        while count > 1:
            count //= 2
            half = ir.VectorType(_I32, count)
            undefined = ir.Constant(vector.type, ir.Undefined)
            low = builder.shuffle_vector(vector, undefined, half(list(range(count))))
            high = builder.shuffle_vector(vector, undefined, half(list(range(count, 2 * count))))
            vector = builder.fadd(low, high)
        return builder.extract_element(vector, _I32(0))

    return value.dtype(value), codegen


@intrinsic
def fence(typingctx: Any) -> Any:
    """Make streaming stores visible to the other threads."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen
