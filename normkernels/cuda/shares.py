"""Where a thread's share of a row lies, and how it is loaded and stored: 16 bytes at a time.

`emulated` has the same names in NumPy.
"""

from typing import Any

from llvmlite import ir
from numba.cuda import types
from numba.cuda.extending import intrinsic

from .form import ACCESS_BYTES, MAGIC_BITS, Form
from .vectors import (
    HALF,
    I16,
    I32,
    I64,
    Vector,
    arithmetic,
    bytes_of,
    gathered,
    lanes_of,
    llvm_type,
    narrowed,
    pairwise,
    widened,
)

_NOWHERE = 1 << 60
"""An element that no row has."""


@intrinsic
def first_elements(typingctx: Any, x: Any, n: Any) -> Any:
    """The first four elements of n, the last one repeated where there are fewer."""
    dtype = x.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        x, n = args
        last, values = builder.sub(n, I64(1)), []
        for k in range(4):
            i = builder.select(builder.icmp_signed("<", I64(k), n), I64(k), last)
            values.append(widened(builder, builder.load(builder.gep(x, [i])), dtype))
        return gathered(builder, values)

    return Vector(arithmetic(dtype), 4)(x, types.int64), codegen


@intrinsic
def number(typingctx: Any, x: Any, i: Any, otherwise: Any) -> Any:
    """x[i] in float64, `otherwise` for None"""
    if isinstance(x, types.NoneType):
        return otherwise(x, i, otherwise), lambda context, builder, sig, args: args[2]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value = widened(builder, builder.load(builder.gep(args[0], [args[1]])), x.dtype)
        return context.cast(builder, value, arithmetic(x.dtype), types.float64)

    return types.float64(x, types.int64, otherwise), codegen


@intrinsic
def put(typingctx: Any, y: Any, i: Any, value: Any) -> Any:
    """y[i] = value, a number; nothing to None"""
    if isinstance(y, types.NoneType):
        return types.void(y, i, value), lambda context, builder, *_: context.get_dummy_value()

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        number = context.cast(builder, args[2], value, arithmetic(y.dtype))
        builder.store(narrowed(builder, number, y.dtype), builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(y, types.int64, value), codegen


@intrinsic
def offset(typingctx: Any, pointer: Any, elements: Any) -> Any:
    """The pointer moved by so many elements; None stays None."""
    if isinstance(pointer, types.NoneType):
        return pointer(pointer, elements), lambda context, builder, sig, args: args[0]

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.int64), codegen


def _afresh(builder: Any, i: ir.Value) -> ir.Value:
    """i, as if nothing were known of it: what follows from it is computed again, not kept in registers."""
    here = ir.InlineAsm(ir.FunctionType(I64, [I64]), "mov.b64 $0, $1;", "=l,l", side_effect=True)
    return builder.call(here, [i])


@intrinsic
def afresh(typingctx: Any, i: Any) -> Any:
    """The same number, of which the compiler knows nothing."""
    return types.int64(types.int64), lambda context, builder, sig, args: _afresh(builder, args[0])


@intrinsic
def lead(typingctx: Any, x: Any, form: Any) -> Any:
    """At which element of a vector x begins; 0 in a form without edges."""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        if not f.edges:
            return I64(0)
        address = builder.ptrtoint(args[0], I64)
        element = builder.lshr(address, I64(bytes_of(x.dtype).bit_length() - 1))
        return builder.and_(element, I64(f.lanes - 1))

    return types.int64(x, form), codegen


def _place(p: Any) -> Any:
    """The type of a place: that of `position` or of `positions`."""
    return p if isinstance(p, types.BaseTuple) else types.int64


def _access(builder: Any, pointer: ir.Value, at: ir.Value, vector: ir.VectorType) -> ir.Value:
    return builder.bitcast(builder.gep(pointer, [at]), vector.as_pointer())


def _pieces(dtype: types.Type, lanes: int) -> list[tuple[int, int]]:
    """Start and length of the accesses that `lanes` elements are met with."""
    piece = min(lanes, ACCESS_BYTES // bytes_of(dtype))
    return [(k, piece) for k in range(0, lanes, piece)]


def _paired(dtype: types.Type, count: int) -> bool:
    """Whether elements pass in pairs: NVVM halves an access of more than four elements."""
    return dtype in HALF and count > 1


def _read(builder: Any, x: ir.Value, at: ir.Value, dtype: types.Type, lanes: int) -> list[ir.Value]:
    values: list[ir.Value] = []
    for k, piece in _pieces(dtype, lanes):
        paired = _paired(dtype, piece)
        vector = ir.VectorType(I32, piece // 2) if paired else ir.VectorType(llvm_type(dtype), piece)
        loaded = builder.load(_access(builder, x, builder.add(at, I64(k)), vector))
        loaded.align = piece * bytes_of(dtype)
        for element in lanes_of(builder, loaded):
            if paired:
                values += [builder.trunc(element, I16), builder.trunc(builder.lshr(element, I32(16)), I16)]
            else:
                values.append(element)
    return [widened(builder, v, dtype) for v in values]


def _write(builder: Any, y: ir.Value, at: ir.Value, dtype: types.Type, values: list[ir.Value]) -> None:
    for k, piece in _pieces(dtype, len(values)):
        elements = [narrowed(builder, v, dtype) for v in values[k : k + piece]]
        if _paired(dtype, piece):
            wide = [builder.zext(e, I32) for e in elements]
            pairs = zip(wide[::2], wide[1::2], strict=True)
            elements = [builder.or_(low, builder.shl(high, I32(16))) for low, high in pairs]
        vector = gathered(builder, elements)
        store = builder.store(vector, _access(builder, y, builder.add(at, I64(k)), vector.type))
        store.align = piece * bytes_of(dtype)


def _starts(builder: Any, p: ir.Value, form: Form) -> list[ir.Value]:
    return [builder.add(p, I64(r * form.stride)) for r in range(form.vectors)]


def _runs(builder: Any, p: ir.Value, form: Form) -> list[tuple[ir.Value, ir.Value, ir.Value]]:
    """Of each vector of a share of several runs: its run, where that begins, and its first element there."""
    member, per_run, magic, outer, stride, first = (builder.extract_value(p, k) for k in range(6))
    vectors: list[tuple[ir.Value, ir.Value, ir.Value]] = []
    for r in range(form.vectors):
        j = builder.add(member, I64(r * form.members))
        o = builder.lshr(builder.mul(j, magic), I64(MAGIC_BITS))
        inside = builder.icmp_signed("<", o, outer)
        at = builder.mul(builder.sub(j, builder.mul(o, per_run)), I64(form.lanes))
        o = builder.select(inside, o, I64(0))
        run = builder.mul(o, stride)
        if form.edges:
            at = builder.sub(at, builder.and_(builder.add(first, run), I64(form.lanes - 1)))
        vectors.append((o, run, builder.select(inside, at, I64(_NOWHERE))))
    return vectors


def _vectors(builder: Any, p: ir.Value, form: Form) -> list[tuple[ir.Value | None, ir.Value]]:
    """Of each vector of a share: where its run begins, None for a row, and its first element there."""
    if isinstance(p.type, ir.ArrayType):
        return [(run, at) for _, run, at in _runs(builder, p, form)]
    return [(None, at) for at in _starts(builder, p, form)]


def _within(builder: Any, at: ir.Value, n: ir.Value) -> ir.Value:
    """0 <= at < n"""
    return builder.icmp_unsigned("<", at, n)


def _whole(builder: Any, at: ir.Value, n: ir.Value, form: Form) -> ir.Value:
    """Whether the vector at `at` is one of the row from end to end."""
    if not form.edges:
        return _within(builder, at, n)
    last = builder.add(at, I64(form.lanes - 1))
    return builder.and_(builder.icmp_signed(">=", at, I64(0)), builder.icmp_signed("<", last, n))


def _one_by_one(
    builder: Any, x: ir.Value, at: ir.Value, n: ir.Value, dtype: Any, fill: Any, lanes: int
) -> Any:
    """The elements of a vector that are in the row, `fill` for the others."""
    values = []
    for k in range(lanes):
        i = builder.add(at, I64(k))
        inside = _within(builder, i, n)
        # Reading the first element instead of none keeps the loads free of branches.
        value = builder.load(builder.gep(x, [builder.select(inside, i, I64(0))]))
        values.append(builder.select(inside, widened(builder, value, dtype), fill))
    return values


@intrinsic
def load(typingctx: Any, x: Any, p: Any, n: Any, form: Any) -> Any:
    """A thread's share of the n elements at x, its first vector at p; 0 beyond the ends; None for None."""
    if isinstance(x, types.NoneType):
        return x(x, p, n, form), lambda context, builder, sig, args: args[0]
    f, dtype = form.form, x.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        start, p, n, _ = args
        zero = llvm_type(arithmetic(dtype))(0.0)
        values: list[ir.Value] = []
        for run, at in _vectors(builder, p, f):
            whole, x = _whole(builder, at, n, f), start if run is None else builder.gep(start, [run])
            if f.edges:
                with builder.if_else(whole) as (then, otherwise):
                    with then:
                        wide = gathered(builder, _read(builder, x, at, dtype, f.lanes))
                        wide_block = builder.block
                    with otherwise:
                        narrow = gathered(builder, _one_by_one(builder, x, at, n, dtype, zero, f.lanes))
                        narrow_block = builder.block
                vector = builder.phi(wide.type)
                vector.add_incoming(wide, wide_block)
                vector.add_incoming(narrow, narrow_block)
                values += lanes_of(builder, vector)
            else:
                read = _read(builder, x, builder.select(whole, at, I64(0)), dtype, f.lanes)
                values += [builder.select(whole, v, zero) for v in read]
        return gathered(builder, values)

    return Vector(arithmetic(dtype), f.vectors * f.lanes)(x, _place(p), types.int64, form), codegen


@intrinsic
def store(typingctx: Any, y: Any, p: Any, n: Any, form: Any, value: Any) -> Any:
    """Write a thread's share of the n elements at y; nothing to None."""
    if isinstance(y, types.NoneType):
        return types.void(y, p, n, form, value), lambda context, builder, *_: context.get_dummy_value()
    f, dtype = form.form, y.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        start, p, n, _, value = args
        values = lanes_of(builder, value)
        for r, (run, at) in enumerate(_vectors(builder, p, f)):
            y = start if run is None else builder.gep(start, [run])
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

    return types.void(y, _place(p), types.int64, form, value), codegen


@intrinsic
def load_parameters(typingctx: Any, weight: Any, p: Any, n: Any, form: Any) -> Any:
    """The n parameters at `weight`, as `load`; with edges they may begin anywhere."""
    if isinstance(weight, types.NoneType):
        return weight(weight, p, n, form), lambda context, builder, sig, args: args[0]
    f, dtype = form.form, weight.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        w, p, n, _ = args
        zero = llvm_type(arithmetic(dtype))(0.0)
        values: list[ir.Value] = []
        for at in _starts(builder, p, f):
            if f.edges:
                values += _one_by_one(builder, w, at, n, dtype, zero, f.lanes)
            else:  # what lies beyond the row is not used
                start = builder.select(_within(builder, at, n), at, I64(0))
                values += _read(builder, w, start, dtype, f.lanes)
        return gathered(builder, values)

    return Vector(arithmetic(dtype), f.vectors * f.lanes)(weight, types.int64, types.int64, form), codegen


@intrinsic
def of_runs(typingctx: Any, weight: Any, p: Any, form: Any) -> Any:
    """The parameter of the run that each vector of a share meets; p: from `positions`."""
    if isinstance(weight, types.NoneType):
        return weight(weight, p, form), lambda context, builder, sig, args: args[0]
    f, dtype = form.form, weight.dtype

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        w, p, _ = args
        values: list[ir.Value] = []
        for o, _, _ in _runs(builder, p, f):
            values += [widened(builder, builder.load(builder.gep(w, [o])), dtype)] * f.lanes
        return gathered(builder, values)

    return Vector(arithmetic(dtype), f.vectors * f.lanes)(weight, p, form), codegen


@intrinsic
def vector_totals(typingctx: Any, room: Any, thread: Any, value: Any, form: Any) -> Any:
    """room[r * block + thread] = the sum of vector r of a share"""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        room, thread, value, _ = args
        lanes = lanes_of(builder, value)
        for r in range(f.vectors):
            place = builder.add(thread, I64(r * f.block))
            terms = pairwise(builder, lanes[r * f.lanes : (r + 1) * f.lanes])
            builder.store(terms, builder.gep(room, [place]))
        return context.get_dummy_value()

    return types.void(room, types.int64, value, form), codegen


@intrinsic
def inside(typingctx: Any, value: Any, p: Any, n: Any, form: Any) -> Any:
    """value, and 0 beyond the ends of the row"""
    f = form.form

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        value, p, n, _ = args
        lanes, zero = lanes_of(builder, value), value.type.element(0.0)
        for r, (_, at) in enumerate(_vectors(builder, p, f)):
            for k in range(f.lanes):
                i = builder.add(at, I64(k)) if f.edges else at
                j = r * f.lanes + k
                lanes[j] = builder.select(_within(builder, i, n), lanes[j], zero)
        return gathered(builder, lanes)

    return value(value, _place(p), types.int64, form), codegen


@intrinsic
def count_of(typingctx: Any, p: Any, n: Any) -> Any:
    """Elements of what a team has: n, or n of every run."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        p, n = args
        return builder.mul(builder.extract_value(p, 3), n) if isinstance(p.type, ir.ArrayType) else n

    return types.int64(_place(p), types.int64), codegen


@intrinsic
def zeros(typingctx: Any, x: Any, form: Any) -> Any:
    """A share of zeros."""
    vector = Vector(arithmetic(x.dtype), form.form.vectors * form.form.lanes)
    return vector(x, form), lambda context, builder, sig, args: context.get_value_type(vector)(None)


@intrinsic
def accumulate(typingctx: Any, sums: Any, p: Any, n: Any, form: Any, value: Any, anew: Any) -> Any:
    """sums += value in float64, or = value; sums: the n numbers that this share has a part in, or None."""
    f = form.form
    if isinstance(sums, types.NoneType):
        return types.void(
            sums, p, n, form, value, anew
        ), lambda context, builder, *_: context.get_dummy_value()

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        sums, p, n, _, value, anew = args
        # Sums are met once in many rows: without this their addresses are kept in registers all the time, and
        # rows.backward needs 27 of them more.
        p = _afresh(builder, p)
        values = lanes_of(builder, value)
        for r, at in enumerate(_starts(builder, p, f)):
            for k in range(f.lanes):
                i, term = builder.add(at, I64(k)), values[r * f.lanes + k]
                with builder.if_then(_within(builder, i, n)):
                    place = builder.gep(sums, [i])
                    term = term if term.type == ir.DoubleType() else builder.fpext(term, ir.DoubleType())
                    old = builder.select(anew, ir.DoubleType()(0.0), builder.load(place))
                    builder.store(builder.fadd(old, term), place)
        return context.get_dummy_value()

    return types.void(sums, types.int64, types.int64, form, value, anew), codegen
