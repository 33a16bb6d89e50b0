"""A thread's share of neighbouring columns: vectors of some rows, one below the other, as one vector value.

The share of a thread is `form.vectors` vectors of `form.lanes` elements that lie a `step` apart; what is
known of columns, such as their sums, has `form.lanes` elements.

`emulated_columns` has the same names in NumPy.
"""

from typing import Any

from llvmlite import ir
from numba.cuda import cgutils, types
from numba.cuda.extending import intrinsic

from .form import Form
from .primitives import LARGE, SMALL
from .shares import _one_by_one, _read, _whole, _within, _write
from .teams import _shared_memory
from .vectors import (
    I1,
    I64,
    Vector,
    _libdevice,
    arithmetic,
    gathered,
    lanes_of,
    llvm_type,
    widened,
)

F64 = ir.DoubleType()

absolute = _libdevice("fabs")
square_root = _libdevice("sqrt")


def _starts(builder: Any, p: ir.Value, step: ir.Value, form: Form) -> list[ir.Value]:
    return [builder.add(p, builder.mul(step, I64(r))) for r in range(form.vectors)]


def _all_whole(builder: Any, p: ir.Value, step: ir.Value, n: ir.Value, form: Form) -> ir.Value:
    """Whether all vectors lie within the n elements from end to end."""
    last = builder.add(builder.add(p, builder.mul(step, I64(form.vectors - 1))), I64(form.lanes - 1))
    whole = builder.icmp_signed("<", last, n)
    return builder.and_(whole, builder.icmp_signed(">=", p, I64(0))) if form.edges else whole


@intrinsic
def whole_rows(typingctx: Any, p: Any, step: Any, n: Any, form: Any) -> Any:
    """Whether all vectors of a share lie within the n elements."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        p, step, n, _ = args
        return _all_whole(builder, p, step, n, form.form)

    return types.boolean(types.int64, types.int64, types.int64, form), codegen


@intrinsic
def load_rows(typingctx: Any, x: Any, p: Any, step: Any, n: Any, form: Any) -> Any:
    """Vectors of the n elements at x, the first one at p, the next a step on; 0 beyond; None for None."""
    if isinstance(x, types.NoneType):
        return x(x, p, step, n, form), lambda context, builder, sig, args: args[0]
    f, dtype = form.form, x.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        x, p, step, n, _ = args
        zero = llvm_type(arithmetic(dtype))(0.0)
        starts = _starts(builder, p, step, f)

        def read(at: list[ir.Value]) -> ir.Value:
            return gathered(builder, [v for a in at for v in _read(builder, x, a, dtype, f.lanes)])

        if not f.edges:
            values = []
            for at in starts:
                within = _within(builder, at, n)
                loaded = _read(builder, x, builder.select(within, at, I64(0)), dtype, f.lanes)
                values += [builder.select(within, v, zero) for v in loaded]
            return gathered(builder, values)
        # One branch around all of them, since loads in branches of their own would wait for each other.
        with builder.if_else(_all_whole(builder, p, step, n, f)) as (then, otherwise):
            with then:
                wide, wide_block = read(starts), builder.block
            with otherwise:
                single = [v for a in starts for v in _one_by_one(builder, x, a, n, dtype, zero, f.lanes)]
                narrow, narrow_block = gathered(builder, single), builder.block
        vector = builder.phi(wide.type)
        vector.add_incoming(wide, wide_block)
        vector.add_incoming(narrow, narrow_block)
        return vector

    share = Vector(arithmetic(dtype), f.vectors * f.lanes)
    return share(x, types.int64, types.int64, types.int64, form), codegen


@intrinsic
def store_rows(typingctx: Any, y: Any, p: Any, step: Any, n: Any, form: Any, value: Any) -> Any:
    """Write the vectors of a share that are within the n elements at y; nothing to None."""
    if isinstance(y, types.NoneType):
        sig = types.void(y, p, step, n, form, value)
        return sig, lambda context, builder, *_: context.get_dummy_value()
    f, dtype = form.form, y.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        y, p, step, n, _, value = args
        values = lanes_of(builder, value)
        for r, at in enumerate(_starts(builder, p, step, f)):
            part, whole = values[r * f.lanes : (r + 1) * f.lanes], _whole(builder, at, n, f)
            if not f.edges:
                with builder.if_then(whole):
                    _write(builder, y, at, dtype, part)
                continue
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    _write(builder, y, at, dtype, part)
                with otherwise:
                    for k, element in enumerate(part):
                        i = builder.add(at, I64(k))
                        with builder.if_then(_within(builder, i, n)):
                            _write(builder, y, i, dtype, [element])
        return context.get_dummy_value()

    return types.void(y, types.int64, types.int64, types.int64, form, value), codegen


@intrinsic
def inside_rows(typingctx: Any, value: Any, p: Any, step: Any, n: Any, form: Any) -> Any:
    """value, and 0 where a share is beyond the n elements"""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value, p, step, n, _ = args
        lanes, zero = lanes_of(builder, value), value.type.element(0.0)
        for r, at in enumerate(_starts(builder, p, step, f)):
            for k in range(f.lanes):
                within = _within(builder, builder.add(at, I64(k)) if f.edges else at, n)
                j = r * f.lanes + k
                lanes[j] = builder.select(within, lanes[j], zero)
        return gathered(builder, lanes)

    return value(value, types.int64, types.int64, types.int64, form), codegen


@intrinsic
def repeated(typingctx: Any, value: Any, form: Any) -> Any:
    """What is known of columns, for every row of a share."""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return gathered(builder, lanes_of(builder, args[0]) * f.vectors)

    return Vector(value.dtype, f.vectors * f.lanes)(value, form), codegen


@intrinsic
def first_of_rows(typingctx: Any, value: Any, form: Any) -> Any:
    """The first vector of a share."""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return gathered(builder, lanes_of(builder, args[0])[: f.lanes])

    return Vector(value.dtype, f.lanes)(value, form), codegen


@intrinsic
def over_rows(typingctx: Any, value: Any, form: Any) -> Any:
    """The sums of a share over its rows, in pairs."""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        lanes = lanes_of(builder, args[0])
        rows = [gathered(builder, lanes[k : k + f.lanes]) for k in range(0, len(lanes), f.lanes)]
        while len(rows) > 1:
            pairs = [builder.fadd(*rows[k : k + 2]) for k in range(0, len(rows) - 1, 2)]
            rows = pairs + rows[2 * len(pairs) :]
        return rows[0]

    return Vector(value.dtype, f.lanes)(value, form), codegen


@intrinsic
def zero_columns(typingctx: Any, x: Any, form: Any) -> Any:
    """A zero for every column of a share."""
    vector = Vector(arithmetic(x.dtype), form.form.lanes)
    return vector(x, form), lambda context, builder, sig, args: context.get_value_type(vector)(None)


@intrinsic
def wide(typingctx: Any, value: Any) -> Any:
    """A vector in float64; None for None."""
    if isinstance(value, types.NoneType):
        return value(value), lambda context, builder, sig, args: args[0]
    vector = Vector(types.float64, value.count)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        if value == vector:
            return args[0]
        return gathered(builder, [builder.fpext(v, F64) for v in lanes_of(builder, args[0])])

    return vector(value), codegen


@intrinsic
def as_elements(typingctx: Any, x: Any, value: Any) -> Any:
    """A vector of float64 in the dtype of the arithmetic of x."""
    vector = Vector(arithmetic(x.dtype), value.count)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        if vector == value:
            return args[1]
        element = llvm_type(vector.dtype)
        return gathered(builder, [builder.fptrunc(v, element) for v in lanes_of(builder, args[1])])

    return vector(x, value), codegen


@intrinsic
def within_range(typingctx: Any, value: Any, most: Any) -> Any:
    """A vector of float64 cut off at -most and most; NaN stays."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        most, cut = args[1], []
        least = builder.fsub(F64(-0.0), most)
        for v in lanes_of(builder, args[0]):
            v = builder.select(builder.fcmp_ordered(">", v, most), most, v)
            cut.append(builder.select(builder.fcmp_ordered("<", v, least), least, v))
        return gathered(builder, cut)

    return value(value, types.float64), codegen


def _usual(builder: Any, q: ir.Value) -> ir.Value:
    small, large = q.type(SMALL), q.type(LARGE)
    return builder.and_(builder.fcmp_ordered(">", q, small), builder.fcmp_ordered("<", q, large))


@intrinsic
def unusual(typingctx: Any, q: Any, spread: Any) -> Any:
    """Whether a sum of squares may have lost terms to under- or overflow; none has where the spread is 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        found = I1(0)
        for sum_, a in zip(lanes_of(builder, args[0]), lanes_of(builder, args[1]), strict=True):
            lost = builder.and_(
                builder.not_(_usual(builder, sum_)), builder.fcmp_unordered("!=", a, a.type(0.0))
            )
            found = builder.or_(found, lost)
        return found

    return types.boolean(q, spread), codegen


@intrinsic
def by_range(typingctx: Any, q: Any, small: Any, large: Any) -> Any:
    """1 where a sum of squares is usual, `small` where it is too small for that, `large` where too large."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        found = []
        small, large = (context.cast(builder, a, types.float64, q.dtype) for a in args[1:])
        for v in lanes_of(builder, args[0]):
            other = builder.select(builder.fcmp_ordered("<=", v, v.type(SMALL)), small, large)
            found.append(builder.select(_usual(builder, v), v.type(1.0), other))
        return gathered(builder, found)

    return q(q, types.float64, types.float64), codegen


@intrinsic
def load_channels(typingctx: Any, a: Any, first: Any, channels: Any, form: Any) -> Any:
    """What lanes take from an array over channels, which begin again after the last; None for None."""
    if isinstance(a, types.NoneType):
        return a(a, first, channels, form), lambda context, builder, sig, args: args[0]
    lanes, dtype = form.form.lanes, a.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        a, c, channels, _ = args
        values = []
        for _ in range(lanes):
            values.append(widened(builder, builder.load(builder.gep(a, [c])), dtype))
            c = builder.add(c, I64(1))
            c = builder.select(builder.icmp_signed("<", c, channels), c, I64(0))
        return gathered(builder, values)

    return Vector(arithmetic(dtype), lanes)(a, types.int64, types.int64, form), codegen


@intrinsic
def element(typingctx: Any, a: Any, i: Any) -> Any:
    """a[i] in float64"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value = widened(builder, builder.load(builder.gep(args[0], [args[1]])), a.dtype)
        return value if value.type == F64 else builder.fpext(value, F64)

    return types.float64(a, types.int64), codegen


@intrinsic
def put_columns(typingctx: Any, a: Any, i: Any, value: Any) -> Any:
    """a[i:] = value, a vector in the dtype of a"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        _write(builder, args[0], args[1], a.dtype, lanes_of(builder, args[2]))
        return context.get_dummy_value()

    return types.void(a, types.int64, value), codegen


@intrinsic
def room(typingctx: Any, form: Any) -> Any:
    """Shared memory for two vectors of float64, and then a number, of half the threads of a block."""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _shared_memory(builder, types.float64, (2 * f.lanes + 1) * (f.block // 2))

    return types.CPointer(types.float64)(form), codegen


@intrinsic
def strip_room(typingctx: Any, form: Any) -> Any:
    """Shared memory for what `strips` gives away: of float64 so many as the form says."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _shared_memory(builder, types.float64, form.form.strip_room)

    return types.CPointer(types.float64)(form), codegen


def _lanes_at(builder: Any, at: ir.Value, apart: ir.Value, form: Form) -> list[ir.Value]:
    return [builder.add(at, builder.mul(apart, I64(k))) for k in range(form.lanes)]


@intrinsic
def give(typingctx: Any, room: Any, at: Any, apart: Any, form: Any, value: Any) -> Any:
    """Put a thread's vector of float64 into shared memory: its lanes so far apart, beside other threads'."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        room, at, apart, _, value = args
        places = _lanes_at(builder, at, apart, form.form)
        for place, v in zip(places, lanes_of(builder, value), strict=True):
            builder.store(v, builder.gep(room, [place]))
        return context.get_dummy_value()

    return types.void(room, types.int64, types.int64, form, value), codegen


@intrinsic
def take(typingctx: Any, room: Any, at: Any, apart: Any, form: Any) -> Any:
    """The vector that was given."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        room, at, apart, _ = args
        places = _lanes_at(builder, at, apart, form.form)
        return gathered(builder, [builder.load(builder.gep(room, [place])) for place in places])

    return Vector(types.float64, form.form.lanes)(room, types.int64, types.int64, form), codegen


@intrinsic
def power(typingctx: Any, x: Any, exponent: Any) -> Any:
    """x ** exponent, lane by lane"""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        number = llvm_type(x.dtype)
        name = "__nv_pow" if number == F64 else "__nv_powf"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(number, [number, number]), name
        )
        exponent = args[1] if number == F64 else builder.fptrunc(args[1], number)
        return gathered(builder, [builder.call(function, [v, exponent]) for v in lanes_of(builder, args[0])])

    return x(x, types.float64), codegen
