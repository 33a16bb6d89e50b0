"""What a step sees: numbers, vectors and pointers, whose operations become instructions of a kernel.

Python runs a step while a kernel is compiled, once for each width of `tuning.WIDTHS`: there, ``x[i]`` loads a
vector, ``a + b`` adds two, and a number stands for all lanes (decision 0016). Nothing is added, moved or
rounded that a step does not say: the bits of a result depend on no choice of the compiler.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from .tuning import CACHE_LINE

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


def _lanes(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.VectorType(element, lanes)


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

    def _compared(self, other: Any, operation: str) -> "Value":
        a, b = alike(self, other)
        whole = isinstance(element_of(a.type), ir.IntType)
        compare = self.builder.icmp_signed if whole else self.builder.fcmp_ordered
        return Value(self.builder, compare(operation, a, b))

    def __lt__(self, other: Any) -> "Value":
        return self._compared(other, "<")

    def __le__(self, other: Any) -> "Value":
        return self._compared(other, "<=")

    def __gt__(self, other: Any) -> "Value":
        return self._compared(other, ">")

    def equals(self, other: Any) -> "Value":
        """Whether both are the same number, which NaN is not."""
        return self._compared(other, "==")

    def __and__(self, other: "Value") -> "Value":
        return Value(self.builder, self.builder.and_(self.ir, other.ir))


def _cast(builder: ir.IRBuilder, value: ir.Value, element: ir.Type) -> ir.Value:
    """A number or a vector with elements of another type; from integers, not to them."""
    own, type_ = element_of(value.type), retyped(value.type, element)
    if own == element:
        return value
    if isinstance(own, ir.IntType):
        return builder.sitofp(value, type_)
    return builder.fpext(value, type_) if own == ir.FloatType() else builder.fptrunc(value, type_)


def _as(builder: ir.IRBuilder, type_: ir.Type, value: Any) -> ir.Value:
    """A value in a type: a number in all lanes where that is a vector."""
    if not isinstance(value, Value):
        return constant(type_, value)
    cast = _cast(builder, value.ir, element_of(type_))
    if cast.type == type_:
        return cast
    undefined = ir.Constant(type_, ir.Undefined)
    first = builder.insert_element(undefined, cast, _I32(0))
    return builder.shuffle_vector(first, undefined, ir.VectorType(_I32, type_.count)([0] * type_.count))


# From narrow to wide.
_ELEMENTS = (ir.IntType(64), ir.FloatType(), ir.DoubleType())


def alike(*values: Any) -> list[ir.Value]:
    """The values in one type: vectors, if one of them is a vector, of the widest element.

    Python's numbers follow the others.
    """
    given = [v for v in values if isinstance(v, Value)]
    widest = max((element_of(v.ir.type) for v in given), key=_ELEMENTS.index)
    if isinstance(widest, ir.IntType) and any(isinstance(v, float) for v in values):
        widest = ir.DoubleType()
    lanes = next((v.ir.type.count for v in given if isinstance(v.ir.type, ir.VectorType)), 1)
    return [_as(given[0].builder, _lanes(widest, lanes), v) for v in values]


def _operation(name: str, builder: ir.IRBuilder, *arguments: ir.Value) -> Value:
    """An operation that LLVM has for numbers and for vectors, on arguments of one type."""
    type_ = arguments[0].type
    lanes = f"v{type_.count}" if isinstance(type_, ir.VectorType) else ""
    bits = 32 if element_of(type_) == ir.FloatType() else 64
    function = ir.FunctionType(type_, [type_] * len(arguments))
    called = cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{lanes}f{bits}")
    return Value(builder, builder.call(called, arguments))


def fma(a: Value, b: Any, c: Any) -> Value:
    """a * b + c, with one rounding where the processor has an instruction for it.

    Where it has none, as before AVX2, an exact one would be a call for each element.
    """
    return _operation("fmuladd", a.builder, *alike(a, b, c))


def exact_fma(a: Value, b: Any, c: Any) -> Value:
    """a * b + c with one rounding."""
    return _operation("fma", a.builder, *alike(a, b, c))


def polynomial(x: Value, coefficients: Sequence[float]) -> Value:
    """The sum of coefficients[k] * x**k."""
    *rest, last = coefficients
    result = Value(x.builder, constant(x.ir.type, last))
    for c in reversed(rest):
        result = fma(result, x, c)
    return result


def wide(x: Value) -> Value:
    """In float64."""
    return Value(x.builder, _cast(x.builder, x.ir, ir.DoubleType()))


def sqrt(x: Value) -> Value:
    """The square root, correctly rounded."""
    return _operation("sqrt", x.builder, x.ir)


def where(condition: Value, a: Any, b: Any) -> Value:
    """a where the condition holds, else b."""
    a, b = alike(a, b)
    type_ = condition.ir.type
    if isinstance(type_, ir.VectorType):
        vector = _lanes(element_of(a.type), type_.count)
        a, b = (_as(condition.builder, vector, Value(condition.builder, v)) for v in (a, b))
    return Value(condition.builder, condition.builder.select(condition.ir, a, b))


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


class Pointer:
    """Where numbers of one dtype, as numba names it, begin in memory."""

    def __init__(self, builder: ir.IRBuilder, begin: ir.Value, dtype: types.Type) -> None:
        self.builder = builder
        self.begin = begin
        self.dtype = dtype

    def _at(self, i: Index, type_: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.begin, [i.first]), type_.as_pointer())

    def at(self, i: Any) -> Value:
        """Element i alone, in the dtype of the arithmetic."""
        place = i.ir if isinstance(i, Value) else ir.IntType(64)(i)
        return self[Index(self.builder, place, 1)]

    def rounded(self, value: Any) -> Value:
        """A number or a vector in the dtype of the arithmetic."""
        element = _STORED[arithmetic(self.dtype).bitwidth]
        if not isinstance(value, Value):
            return Value(self.builder, constant(element, value))
        return Value(self.builder, _cast(self.builder, value.ir, element))

    @property
    def largest(self) -> float:
        """The largest finite number of the arithmetic."""
        return float(np.finfo(f"f{arithmetic(self.dtype).bitwidth // 8}").max)

    def __getitem__(self, i: Index) -> Value:
        """The elements at i, in the dtype of the arithmetic."""
        type_ = _lanes(_STORED[self.dtype.bitwidth], i.lanes)
        value = self.builder.load(self._at(i, type_), align=self.dtype.bitwidth // 8)
        return Value(self.builder, _widened(self.builder, value, self.dtype))

    def __setitem__(self, i: Index, value: Any) -> None:
        """Assign a vector, or a number for all lanes, rounded to the dtype."""
        wide = _as(self.builder, _lanes(_STORED[arithmetic(self.dtype).bitwidth], i.lanes), value)
        narrow = _narrowed(self.builder, wide, self.dtype)
        nbytes = self.dtype.bitwidth // 8
        aligned = min(CACHE_LINE, i.lanes * nbytes) if i.streaming else nbytes
        store = self.builder.store(narrow, self._at(i, narrow.type), align=aligned)
        if i.streaming:
            store.set_metadata("nontemporal", self.builder.module.add_metadata([_I32(1)]))

    def _places(self, i: Index, pitch: Value) -> Iterator[ir.Value]:
        """Where the first elements of the rows at i are, of `pitch` elements each."""
        place = self.builder.gep(self.begin, [self.builder.mul(i.first, pitch.ir)])
        for _ in range(i.lanes):
            yield place
            place = self.builder.gep(place, [pitch.ir])

    def of_rows(self, i: Index, pitch: Value) -> Value:
        """The first elements of the rows at i, a row for each lane, in the dtype of the arithmetic."""
        loaded = [self.builder.load(place) for place in self._places(i, pitch)]
        value = loaded[0]
        if i.lanes > 1:
            value = ir.Constant(ir.VectorType(value.type, i.lanes), ir.Undefined)
            for lane, number in enumerate(loaded):
                value = self.builder.insert_element(value, number, _I32(lane))
        return Value(self.builder, _widened(self.builder, value, self.dtype))

    def to_rows(self, i: Index, pitch: Value, value: Value) -> None:
        """Assign the lanes of a value to the first elements of the rows at i, rounded to the dtype."""
        narrow = _narrowed(self.builder, self.rounded(value).ir, self.dtype)
        for lane, place in enumerate(self._places(i, pitch)):
            number = narrow if i.lanes == 1 else self.builder.extract_element(narrow, _I32(lane))
            self.builder.store(number, place)

    def prefetch(self, i: Index, level: int) -> None:
        """Have the elements at i on their way to a level of the cache, to be read soon.

        They may lie beside the array. Single elements are not asked for.
        """
        if i.lanes == 1:
            return
        byte = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
        called = cgutils.get_or_insert_function(self.builder.module, function, "llvm.prefetch.p0i8")
        address = self.builder.bitcast(self.builder.gep(self.begin, [i.first]), byte)
        self.builder.call(called, [address, _I32(0), _I32(4 - level), _I32(1)])  # to be read, of data


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
