"""A thread's share of a row as one vector value, and its arithmetic.

All elements that a thread holds are lanes of one LLVM vector: values of a program have no addresses, so
they live in registers whatever the compiler thinks of loops and arrays. float16 lies in memory that
kernels see as uint16, bfloat16 as int16; arithmetic is in float32.

`emulated` has the same names in NumPy.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.cudadecl import registry as typing_registry
from numba.cuda.cudaimpl import registry as lowering_registry
from numba.cuda.extending import core_models, intrinsic, register_model
from numba.cuda.typing.templates import AbstractTemplate, AttributeTemplate, signature

from .form import Form

I1, I16, I32, I64 = (ir.IntType(n) for n in (1, 16, 32, 64))
F32 = ir.FloatType()
HALF = {types.uint16: "float16", types.int16: "bfloat16"}


def arithmetic(dtype: types.Type) -> types.Float:
    """What a number of this dtype in memory becomes in a register."""
    return types.float32 if dtype in HALF else dtype


class Vector(types.Type):
    """`count` floating-point numbers of one dtype."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(f"Vector({dtype}, {count})")


@register_model(Vector)
class _VectorModel(core_models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        super().__init__(dmm, fe_type, ir.VectorType(llvm_type(fe_type.dtype), fe_type.count))


class FormType(types.Type):
    """A `Form`: known to the compiler, nothing at run time."""

    def __init__(self, form: Form) -> None:
        self.form = form
        super().__init__(repr(form))


@register_model(FormType)
class _FormModel(core_models.OpaqueModel):
    pass


@typing_registry.register_attr
class _FormAttributes(AttributeTemplate):
    key = FormType

    def generic_resolve(self, form: FormType, name: str) -> types.Type:
        return types.boolean if isinstance(getattr(form.form, name), bool) else types.int64


@lowering_registry.lower_getattr_generic(FormType)
def _lower_form_attribute(context: Any, builder: Any, form: FormType, value: ir.Value, name: str) -> ir.Value:
    constant = getattr(form.form, name)
    return (I1 if isinstance(constant, bool) else I64)(int(constant))


def llvm_type(dtype: types.Type) -> ir.Type:
    if isinstance(dtype, types.Float):
        return F32 if dtype == types.float32 else ir.DoubleType()
    return ir.IntType(dtype.bitwidth)


def bytes_of(dtype: types.Type) -> int:
    return int(dtype.bitwidth) // 8


def _splat(builder: Any, vector: ir.VectorType, value: ir.Value) -> ir.Value:
    if isinstance(value.type, ir.VectorType):
        return value
    return gathered(builder, [value] * vector.count)


def lanes_of(builder: Any, vector: ir.Value) -> list[ir.Value]:
    return [builder.extract_element(vector, I32(k)) for k in range(vector.type.count)]


def gathered(builder: Any, values: list[ir.Value]) -> ir.Value:
    vector = ir.Constant(ir.VectorType(values[0].type, len(values)), ir.Undefined)
    for k, value in enumerate(values):
        vector = builder.insert_element(vector, value, I32(k))
    return vector


class _Arithmetic(AbstractTemplate):
    """Vectors of one kind, and numbers, which take the dtype of the vectors."""

    def generic(self, args: tuple[types.Type, ...], kws: Any) -> Any:
        vector = next((a for a in args if isinstance(a, Vector)), None)
        if vector is None or not all(a == vector or isinstance(a, types.Number) for a in args):
            return None
        return signature(vector, *args)


def _lower_arithmetic(operation: Any, instruction: str) -> None:
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        vector, operands = sig.return_type, []
        for type_, value in zip(sig.args, args, strict=True):
            number = value if type_ == vector else context.cast(builder, value, type_, vector.dtype)
            operands.append(_splat(builder, context.get_value_type(vector), number))
        return getattr(builder, instruction)(*operands)

    template = type(f"_{instruction}", (_Arithmetic,), {"key": operation})
    typing_registry.register_global(operation)(template)
    for operands in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lowering_registry.lower(operation, *operands)(lower)


_lower_arithmetic(operator.add, "fadd")
_lower_arithmetic(operator.sub, "fsub")
_lower_arithmetic(operator.mul, "fmul")
_lower_arithmetic(operator.truediv, "fdiv")


@intrinsic
def filled(typingctx: Any, like: Any, value: Any) -> Any:
    """A vector of the same kind, all lanes one number."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        number = context.cast(builder, args[1], value, like.dtype)
        return _splat(builder, context.get_value_type(like), number)

    return like(like, value), codegen


def _where(comparison: str, ordered: bool) -> Any:
    """A function (x, a, b) of vectors: a where x compares so with 0, else b."""

    @intrinsic
    def value(typingctx: Any, x: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
            return builder.select(compare(comparison, args[0], args[0].type(None)), *args[1:])

        return x(x, x, x), codegen

    return value


where_negative = _where("<", ordered=True)
where_positive_or_nan = _where(">", ordered=False)


def _libdevice(name: str) -> Any:
    """A function of NVIDIA's library of mathematics, lane by lane."""

    @intrinsic
    def value(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            element = llvm_type(x.dtype)
            symbol = f"__nv_{name}" + ("f" if element == F32 else "")
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(element, [element]), symbol
            )
            return gathered(builder, [builder.call(function, [v]) for v in lanes_of(builder, args[0])])

        return x(x), codegen

    return value


exp = _libdevice("exp")
normal = _libdevice("normcdf")


@intrinsic
def as_element(typingctx: Any, pointer: Any, value: Any) -> Any:
    """A number in the dtype of the arithmetic of what lies at the pointer."""
    dtype = arithmetic(pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return context.cast(builder, args[1], value, dtype)

    return dtype(pointer, value), codegen


@intrinsic
def as_elements(typingctx: Any, pointer: Any, value: Any) -> Any:
    """A vector in the dtype of the arithmetic of what lies at the pointer; for None as it is."""
    dtype = value.dtype if isinstance(pointer, types.NoneType) else arithmetic(pointer.dtype)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        values = lanes_of(builder, args[1])
        return gathered(builder, [context.cast(builder, v, value.dtype, dtype) for v in values])

    return Vector(dtype, value.count)(pointer, value), codegen


@intrinsic
def as_type_of(typingctx: Any, like: Any, value: Any) -> Any:
    """A number in the dtype of another one."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return context.cast(builder, args[1], value, like)

    return like(like, value), codegen


@intrinsic
def largest(typingctx: Any, pointer: Any) -> Any:
    """The largest finite number of the arithmetic, in float64."""
    value = float(np.finfo(str(arithmetic(pointer.dtype))).max)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return ir.DoubleType()(value)

    return types.float64(pointer), codegen


@intrinsic
def lane(typingctx: Any, value: Any, k: Any) -> Any:
    """One lane of a vector."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.extract_element(args[0], builder.trunc(args[1], I32))

    return value.dtype(value, types.int64), codegen


def widened(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    if dtype not in HALF:
        return value
    if dtype == types.uint16:
        return builder.fpext(builder.bitcast(value, ir.HalfType()), F32)
    return builder.bitcast(builder.shl(builder.zext(value, I32), I32(16)), F32)


def narrowed(builder: Any, value: ir.Value, dtype: types.Type) -> ir.Value:
    """Rounded to nearest even; NaN stays NaN."""
    if dtype not in HALF:
        return value
    if dtype == types.uint16:
        return builder.bitcast(builder.fptrunc(value, ir.HalfType()), I16)
    convert = ir.InlineAsm(ir.FunctionType(I16, [F32]), "cvt.rn.bf16.f32 $0, $1;", "=h,f")
    return builder.call(convert, [value])


def pairwise(builder: Any, terms: list[ir.Value]) -> ir.Value:
    """The sum of numbers, in pairs."""
    while len(terms) > 1:
        pairs = [builder.fadd(*terms[i : i + 2]) for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]


@intrinsic
def total(typingctx: Any, value: Any) -> Any:
    """The sum of all lanes, in pairs."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return pairwise(builder, lanes_of(builder, args[0]))

    return value.dtype(value), codegen


@intrinsic
def rounded(typingctx: Any, x: Any, value: Any) -> Any:
    """What is left of a vector that has been stored at x."""
    dtype = x.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        lanes = (narrowed(builder, v, dtype) for v in lanes_of(builder, args[1]))
        return gathered(builder, [widened(builder, v, dtype) for v in lanes])

    return value(x, value), codegen
