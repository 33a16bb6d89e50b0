"""Loops over elements in memory, several at a time, written as if they were taken one at a time.

A *step* is what a loop does at an index i: ``y[i] = (x[i] - mean) * rstd``, where x and y are pointers.
`loops.each` and `loops.sums` run it over n elements: first 64 bytes of them at a time, then 16, then one
(decision 0015). How many is part of the type of i, so a step is compiled for each width: there, ``x[i]`` is a
vector, and no lane is ever empty.
All additions have a fixed order, so that the bits of a sum depend on n alone, and never on who calls.

float16 lies in memory that kernels see as uint16, bfloat16 as int16: ``x[i]`` converts to float32,
``y[i] = value`` back, rounding to nearest even. "The dtype of the arithmetic" of a pointer is float32 for
these two and its own otherwise. Pointers instead of arrays because numba counts references to arrays inside
hot loops (measured: 33 ns instead of 4 ns for the sums of a row of 128).
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

# 128 bytes at first are no faster (rows of 24 to 1024 float32; Sapphire Rapids, with AVX-512 and as Haswell),
# and 64 leave twice the registers for sums. 32 bytes instead of 16 make rows of 12 a third slower.
WIDTHS = 64, 16
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

    def __init__(self, dtype: types.Float, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


class Lanes(types.Type):
    """The index of the first of `lanes` neighbouring elements; `streaming`: assigned to past the caches."""

    def __init__(self, lanes: int, streaming: bool = False) -> None:
        self.lanes = lanes
        self.streaming = streaming
        super().__init__(f"Lanes({lanes}, {streaming})")

    def of(self, dtype: types.Float) -> types.Type:
        """What is at such an index."""
        return dtype if self.lanes == 1 else Vector(dtype, self.lanes)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        super().__init__(dmm, fe_type, _I64)


def scalar(value: types.Type) -> types.Float:
    """The dtype of a vector or of a number."""
    return value.dtype if isinstance(value, Vector) else value


def constant(type_: ir.Type, value: Any) -> ir.Value:
    """A number, in all lanes of a vector."""
    return ir.Constant(type_, [value] * type_.count if isinstance(type_, ir.VectorType) else value)


def retyped(type_: ir.Type, element: ir.Type) -> ir.Type:
    """The same number of lanes of another element; a scalar gives a scalar."""
    return ir.VectorType(element, type_.count) if isinstance(type_, ir.VectorType) else element


def _splat(builder: Any, type_: ir.Type, value: ir.Value) -> ir.Value:
    """A value of a type: a number in all lanes where that is a vector."""
    if not isinstance(type_, ir.VectorType) or isinstance(value.type, ir.VectorType):
        return value
    undefined = ir.Constant(type_, ir.Undefined)
    first = builder.insert_element(undefined, value, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.VectorType(_I32, type_.count)([0] * type_.count))


class _VectorArithmetic(AbstractTemplate):
    """vector (+, -, *, /) vector, and with a scalar of the same dtype on either side."""

    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        vectors = [a for a in args if isinstance(a, Vector)]
        if len(args) == 2 and vectors and all(a in (vectors[0], vectors[0].dtype) for a in args):
            return signature(vectors[0], *args)
        return None


def _lower_arithmetic(operation: Any, instruction: str) -> None:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        type_ = context.get_value_type(sig.return_type)
        return getattr(builder, instruction)(*(_splat(builder, type_, a) for a in args))

    infer_global(operation)(_VectorArithmetic)
    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(operation, *kinds)(lower)


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


def multiply_add(builder: Any, a: ir.Value, b: ir.Value, c: ir.Value, exact: bool = False) -> ir.Value:
    """a * b + c of one type, vectors or numbers; with one rounding if that is `exact`, or one instruction."""
    element = {ir.FloatType(): "f32", ir.DoubleType(): "f64"}[getattr(a.type, "element", a.type)]
    lanes = f"v{a.type.count}" if isinstance(a.type, ir.VectorType) else ""
    function = ir.FunctionType(a.type, [a.type] * 3)
    name = f"llvm.{'fma' if exact else 'fmuladd'}.{lanes}{element}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), (a, b, c))


def _multiply_add(exact: bool) -> Any:
    def typed(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
        result = next((x for x in (a, b, c) if isinstance(x, Vector)), a)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            type_ = context.get_value_type(sig.return_type)
            a, b, c = (_splat(builder, type_, x) for x in args)
            return multiply_add(builder, a, b, c, exact)

        return result(*(x if isinstance(x, Vector) else scalar(result) for x in (a, b, c))), codegen

    return intrinsic(typed)


# a * b + c of vectors and numbers of one dtype, with one rounding where the processor has an instruction for
# it; where it has none, as before AVX2, fma would be a call for each element.
fma = _multiply_add(exact=False)
exact_fma = _multiply_add(exact=True)


def _widened(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    """What has been loaded, a vector or a number, in the dtype of the arithmetic."""
    if dtype not in _HALF:
        return value
    single = retyped(value.type, ir.FloatType())
    if dtype == types.uint16:
        return builder.fpext(builder.bitcast(value, retyped(value.type, ir.HalfType())), single)
    wide = retyped(value.type, _I32)
    return builder.bitcast(builder.shl(builder.zext(value, wide), constant(wide, 16)), single)


def _upper_halves(builder: Any, value: ir.Value) -> ir.Value:
    """The upper 16 of every 32 bits; one shuffle of two registers where shifts and narrowing take four."""
    if not isinstance(value.type, ir.VectorType):
        return builder.trunc(builder.lshr(value, _I32(16)), _I16)
    count = value.type.count
    halves = builder.bitcast(value, ir.VectorType(_I16, 2 * count))
    odd = ir.VectorType(_I32, count)(list(range(1, 2 * count, 2)))
    return builder.shuffle_vector(halves, ir.Constant(halves.type, ir.Undefined), odd)


def _narrowed(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    """A vector or a number of the arithmetic as it is to be stored."""
    if dtype not in _HALF:
        return value
    short = retyped(value.type, _I16)
    if dtype == types.uint16:
        return builder.bitcast(builder.fptrunc(value, retyped(value.type, ir.HalfType())), short)
    wide = retyped(value.type, _I32)
    bits = builder.bitcast(value, wide)
    tie = builder.and_(bits, constant(wide, 0x10000))
    odd = builder.icmp_unsigned("!=", tie, constant(wide, 0))
    half_step = builder.select(odd, constant(wide, 0x8000), constant(wide, 0x7FFF))
    nan = builder.or_(bits, constant(wide, 0x400000))  # rounding could turn it into infinity
    rounded = builder.select(builder.fcmp_unordered("uno", value, value), nan, builder.add(bits, half_step))
    return _upper_halves(builder, rounded)


def _address(builder: Any, pointer: ir.Value, index: ir.Value, type_: ir.Type) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [index]), type_.as_pointer())


@infer_global(operator.getitem)
class _Load(AbstractTemplate):
    """x[i]: the elements at i, in the dtype of the arithmetic."""

    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], types.CPointer) and isinstance(args[1], Lanes):
            return signature(args[1].of(arithmetic(args[0].dtype)), *args)
        return None


@lower_builtin(operator.getitem, types.CPointer, Lanes)
def _lower_load(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
    dtype = sig.args[0].dtype
    type_ = retyped(context.get_value_type(sig.return_type), context.get_value_type(dtype))
    source = _address(builder, args[0], args[1], type_)
    return _widened(builder, builder.load(source, align=dtype.bitwidth // 8), dtype)


@infer_global(operator.setitem)
class _Store(AbstractTemplate):
    """y[i] = value: a vector, or a number for all lanes."""

    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        if len(args) == 3 and isinstance(args[0], types.CPointer) and isinstance(args[1], Lanes):
            dtype = arithmetic(args[0].dtype)
            value = args[2] if isinstance(args[2], Vector) else dtype
            return signature(types.none, args[0], args[1], value)
        return None


@lower_builtin(operator.setitem, types.CPointer, Lanes, types.Any)
def _lower_store(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
    dtype, index = sig.args[0].dtype, sig.args[1]
    value = _splat(builder, context.get_value_type(index.of(arithmetic(dtype))), args[2])
    value = _narrowed(builder, value, dtype)
    target = _address(builder, args[0], args[1], value.type)
    store = builder.store(value, target, align=CACHE_LINE if index.streaming else dtype.bitwidth // 8)
    if index.streaming:
        store.set_metadata("nontemporal", builder.module.add_metadata([_I32(1)]))
    return context.get_dummy_value()


@intrinsic
def cached(typingctx: Any, i: Any) -> Any:
    """The index i for what is to stay in the caches."""
    return Lanes(i.lanes)(i), lambda context, builder, sig, args: args[0]


@intrinsic
def one(typingctx: Any, i: Any) -> Any:
    """The integer i as the index of one element."""
    return Lanes(1)(types.intp), lambda context, builder, sig, args: args[0]


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
def as_element(typingctx: Any, pointer: Any, value: Any) -> Any:
    """`value`, a number, rounded to the dtype of the pointer's arithmetic."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return context.cast(builder, args[1], sig.args[1], sig.return_type)

    return arithmetic(pointer.dtype)(pointer, value), codegen


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
