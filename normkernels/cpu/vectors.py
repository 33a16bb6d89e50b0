"""What a step sees: numbers, vectors and pointers, whose operations become instructions of a kernel.

Python runs a step while a kernel is compiled, once for each width of `loops.WIDTHS`: there, ``x[i]`` loads a
vector, ``a + b`` adds two, and a number stands for all lanes (decision 0016). Nothing is added, moved or
rounded that a step does not say: the bits of a result depend on no choice of the compiler.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

CACHE_LINE = 64

_I16 = ir.IntType(16)
_I32 = ir.IntType(32)
_HALF = {types.uint16: "float16", types.int16: "bfloat16"}
_STORED = {16: _I16, 32: ir.FloatType(), 64: ir.DoubleType()}


def arithmetic(dtype: types.Type) -> types.Float:
    """What a number of this dtype in memory becomes in a register."""
    return types.float32 if dtype in _HALF else dtype


def element_of(type_: ir.Type) -> ir.Type:
    """The type of a number, or of those in a vector."""
    return type_.element if isinstance(type_, ir.VectorType) else type_


def retyped(type_: ir.Type, element: ir.Type) -> ir.Type:
    """As many lanes of another element; a number gives a number."""
    return ir.VectorType(element, type_.count) if isinstance(type_, ir.VectorType) else element


def constant(type_: ir.Type, value: Any) -> ir.Value:
    """A number, in all lanes of a vector."""
    return ir.Constant(type_, [value] * type_.count if isinstance(type_, ir.VectorType) else value)


class Value:
    """A number or a vector in a register."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self.builder = builder
        self.ir = value

    @property
    def bits(self) -> int:
        """How many of them a floating-point number has."""
        return 32 if element_of(self.ir.type) == ir.FloatType() else 64

    def _with(self, other: Any, instruction: str, swapped: bool = False) -> "Value":
        a, b = alike(other, self) if swapped else alike(self, other)
        whole = isinstance(element_of(a.type), ir.IntType)
        return Value(self.builder, getattr(self.builder, instruction if whole else f"f{instruction}")(a, b))

    def __add__(self, other: Any) -> "Value":
        return self._with(other, "add")

    def __sub__(self, other: Any) -> "Value":
        return self._with(other, "sub")

    def __mul__(self, other: Any) -> "Value":
        return self._with(other, "mul")

    def __truediv__(self, other: Any) -> "Value":
        return self._with(other, "div")

    def __radd__(self, other: Any) -> "Value":
        return self._with(other, "add", swapped=True)

    def __rsub__(self, other: Any) -> "Value":
        return self._with(other, "sub", swapped=True)

    def __rmul__(self, other: Any) -> "Value":
        return self._with(other, "mul", swapped=True)

    def __rtruediv__(self, other: Any) -> "Value":
        return self._with(other, "div", swapped=True)

    def __neg__(self) -> "Value":
        return Value(self.builder, self.builder.fneg(self.ir))


def _as(builder: ir.IRBuilder, type_: ir.Type, value: Any) -> ir.Value:
    """A value in a type: a number in all lanes where that is a vector."""
    if not isinstance(value, Value):
        return constant(type_, value)
    if element_of(value.ir.type) != element_of(type_):
        raise TypeError(f"a step cannot mix {value.ir.type} and {type_}")
    if value.ir.type == type_:
        return value.ir
    undefined = ir.Constant(type_, ir.Undefined)
    first = builder.insert_element(undefined, value.ir, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.VectorType(_I32, type_.count)([0] * type_.count))


def alike(*values: Any) -> list[ir.Value]:
    """The values in one type: vectors, if one of them is a vector; Python's numbers follow the others."""
    given = [v for v in values if isinstance(v, Value)]
    vectors = [v for v in given if isinstance(v.ir.type, ir.VectorType)]
    return [_as(given[0].builder, (vectors or given)[0].ir.type, v) for v in values]


def _multiply_add(operation: str, a: Value, b: Any, c: Any) -> Value:
    arguments = alike(a, b, c)
    type_ = arguments[0].type
    lanes = f"v{type_.count}" if isinstance(type_, ir.VectorType) else ""
    name = f"llvm.{operation}.{lanes}f{a.bits}"
    function = ir.FunctionType(type_, [type_] * 3)
    called = cgutils.get_or_insert_function(a.builder.module, function, name)
    return Value(a.builder, a.builder.call(called, arguments))


def fma(a: Value, b: Any, c: Any) -> Value:
    """a * b + c, with one rounding where the processor has an instruction for it.

    Where it has none, as before AVX2, an exact one would be a call for each element.
    """
    return _multiply_add("fmuladd", a, b, c)


def exact_fma(a: Value, b: Any, c: Any) -> Value:
    """a * b + c with one rounding."""
    return _multiply_add("fma", a, b, c)


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """The sum of coefficients[k] * x**k."""
    *rest, last = coefficients
    result = Value(x.builder, constant(x.ir.type, last))
    for c in reversed(rest):
        result = fma(result, x, c)
    return result


def where_negative(x: Value, a: Any, b: Any) -> Value:
    """a where x < 0, else b, also where x is NaN."""
    x_, a, b = alike(x, a, b)
    return Value(x.builder, x.builder.select(x.builder.fcmp_ordered("<", x_, constant(x_.type, 0.0)), a, b))


def where_positive_or_nan(x: Value, a: Any, b: Any) -> Value:
    """a where x > 0 or x is NaN, else b."""
    x_, a, b = alike(x, a, b)
    return Value(x.builder, x.builder.select(x.builder.fcmp_unordered(">", x_, constant(x_.type, 0.0)), a, b))


def chosen(number: Value, functions: Sequence[Callable[..., Value]], *args: Value) -> Value:
    """functions[number](*args); the number is not known before the kernel runs."""
    builder = number.builder
    done, otherwise = builder.append_basic_block("done"), builder.append_basic_block("otherwise")
    cases = builder.switch(number.ir, otherwise)
    results = []
    for k, function in enumerate(functions):
        case = builder.append_basic_block("case")
        cases.add_case(number.ir.type(k), case)
        builder.position_at_end(case)
        result = function(*args).ir
        results.append((result, builder.block))
        builder.branch(done)
    builder.position_at_end(otherwise)
    builder.unreachable()
    builder.position_at_end(done)
    phi = builder.phi(results[0][0].type)
    for result in results:
        phi.add_incoming(*result)
    return Value(builder, phi)


def repeated(count: Value, first: Value, function: Callable[[Value, Value], Value]) -> Value:
    """`first`, then function(k, result so far) for k = 0, 1, ... below a count known when the kernel runs."""
    builder = first.builder
    before = builder.block
    start, body, done = (builder.append_basic_block(name) for name in ("repeat", "repeated", "done"))
    builder.branch(start)
    builder.position_at_end(start)
    k, result = builder.phi(count.ir.type), builder.phi(first.ir.type)
    k.add_incoming(k.type(0), before)
    result.add_incoming(first.ir, before)
    builder.cbranch(builder.icmp_signed("<", k, count.ir), body, done)
    builder.position_at_end(body)
    following = function(Value(builder, k), Value(builder, result))
    k.add_incoming(builder.add(k, k.type(1)), builder.block)
    result.add_incoming(following.ir, builder.block)
    builder.branch(start)
    builder.position_at_end(done)
    return Value(builder, result)


class Index:
    """Where `lanes` neighbouring elements are; `streaming`: those assigned there go past the caches."""

    def __init__(self, builder: ir.IRBuilder, first: ir.Value, lanes: int, streaming: bool = False) -> None:
        self.builder = builder
        self.first = first
        self.lanes = lanes
        self.streaming = streaming

    @property
    def cached(self) -> "Index":
        """The same for what is to stay in the caches."""
        return Index(self.builder, self.first, self.lanes)

    def __add__(self, elements: Value) -> "Index":
        return Index(self.builder, self.builder.add(self.first, elements.ir), self.lanes, self.streaming)


def _lanes(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.VectorType(element, lanes)


class Pointer:
    """Where numbers of one dtype, as numba names it, begin in memory."""

    def __init__(self, builder: ir.IRBuilder, begin: ir.Value, dtype: types.Type) -> None:
        self.builder = builder
        self.begin = begin
        self.dtype = dtype

    def _at(self, i: Index, type_: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.begin, [i.first]), type_.as_pointer())

    def __getitem__(self, i: Index) -> Value:
        """The elements at i, in the dtype of the arithmetic."""
        type_ = _lanes(_STORED[self.dtype.bitwidth], i.lanes)
        value = self.builder.load(self._at(i, type_), align=self.dtype.bitwidth // 8)
        return Value(self.builder, _widened(self.builder, value, self.dtype))

    def prefetch(self, i: Index) -> None:
        """Ask for the cache line at i, which may be beyond what there is."""
        byte = ir.IntType(8).as_pointer()
        type_ = ir.FunctionType(ir.VoidType(), [byte, *[_I32] * 3])
        function = cgutils.get_or_insert_function(self.builder.module, type_, "llvm.prefetch.p0i8")
        address = self.builder.bitcast(self.builder.gep(self.begin, [i.first]), byte)
        self.builder.call(function, [address, _I32(0), _I32(3), _I32(1)])

    def __setitem__(self, i: Index, value: Any) -> None:
        """Assign a vector, or a number for all lanes, rounded to the dtype."""
        wide = _as(self.builder, _lanes(_STORED[arithmetic(self.dtype).bitwidth], i.lanes), value)
        narrow = _narrowed(self.builder, wide, self.dtype)
        aligned = CACHE_LINE if i.streaming else self.dtype.bitwidth // 8
        store = self.builder.store(narrow, self._at(i, narrow.type), align=aligned)
        if i.streaming:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([_I32(1)]))


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
