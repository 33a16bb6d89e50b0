"""Loops of steps: `each`, which runs a step over elements, and `sums`, which adds up what it gives.

Both take the first of the pointers on its own: its dtype decides how many elements are taken at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vectors import CACHE_LINE, WIDTHS, Lanes, arithmetic, constant

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def _indices(pointer: types.CPointer) -> list[Lanes]:
    """The indices of the loops, from the widest to that of one element."""
    itemsize = arithmetic(pointer.dtype).bitwidth // 8
    return [*(Lanes(width // itemsize) for width in WIDTHS), Lanes(1)]


@contextmanager
def _loop(builder: Any, slot: ir.Value, lanes: int, end: ir.Value) -> Iterator[ir.Value]:
    """While all lanes are below `end`, at the index in `slot`, which moves on."""
    start, body, done = (builder.append_basic_block(name) for name in ("loop", "step", "done"))
    builder.branch(start)
    builder.position_at_end(start)
    i = builder.load(slot)
    following = builder.add(i, _I64(lanes))
    builder.cbranch(builder.icmp_signed("<=", following, end), body, done)
    builder.position_at_end(body)
    yield i
    builder.store(following, slot)
    builder.branch(start)
    builder.position_at_end(done)


def _call(context: Any, builder: Any, step: Any, sig: Any, args: list[ir.Value]) -> ir.Value:
    """The step, which cannot fail."""
    compiled = step.dispatcher.overloads[sig.args]
    context.active_code_library.add_linking_library(compiled.library)
    return context.call_internal_no_propagate(builder, compiled.fndesc, sig, args)[1]


def _elements_to_cache_line(builder: Any, pointer: ir.Value, itemsize: int) -> ir.Value:
    rest = builder.and_(builder.neg(builder.ptrtoint(pointer, _I64)), _I64(CACHE_LINE - 1))
    return builder.udiv(rest, _I64(itemsize))


@intrinsic  # type: ignore[untyped-decorator]
def each(typingctx: Any, n: Any, stream: Any, step: Any, y: Any, *args: Any) -> Any:
    """step(i, y, *args) for all i below n.

    stream: whether what is assigned to y[i] goes past the caches, which whole cache lines do; None is never.
    """
    indices = _indices(y)
    streaming = Lanes(indices[0].lanes, streaming=True)
    possible = not isinstance(stream, types.NoneType)
    sigs = {
        i: typingctx.resolve_function_type(step, (i, y, *args), {})
        for i in (indices if not possible else [*indices, streaming])
    }
    packed = types.Tuple(args)

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> ir.Value:
        n, stream, _, y_value, rest = values
        arguments = [y_value, *cgutils.unpack_tuple(builder, rest)]
        slot = cgutils.alloca_once(builder, _I64)
        builder.store(_I64(0), slot)

        def run(index: Lanes, end: ir.Value) -> None:
            with _loop(builder, slot, index.lanes, end) as i:
                _call(context, builder, step, sigs[index], [i, *arguments])

        if possible:
            head = _elements_to_cache_line(builder, y_value, y.dtype.bitwidth // 8)
            head = builder.select(builder.icmp_signed("<", head, n), head, n)
            with builder.if_else(stream) as (past, through):
                with past:
                    run(indices[-1], head)
                    run(streaming, n)
                with through:
                    run(indices[0], n)
        else:
            run(indices[0], n)
        for index in indices[1:]:
            run(index, n)
        return context.get_dummy_value()

    return types.void(types.intp, stream, step, y, packed), codegen


def _folded(builder: Any, value: ir.Value, lanes: int) -> ir.Value:
    """A vector added up, half to half, until it has so many lanes."""
    while isinstance(value.type, ir.VectorType) and value.type.count > lanes:
        count = value.type.count // 2
        if count == 1:
            return builder.fadd(*(builder.extract_element(value, _I32(k)) for k in (0, 1)))
        half, undefined = ir.VectorType(_I32, count), ir.Constant(value.type, ir.Undefined)
        low = builder.shuffle_vector(value, undefined, half(list(range(count))))
        high = builder.shuffle_vector(value, undefined, half(list(range(count, 2 * count))))
        value = builder.fadd(low, high)
    return value


@intrinsic(prefer_literal=True)  # type: ignore[untyped-decorator]
def sums(typingctx: Any, count: Any, n: Any, step: Any, x: Any, *args: Any) -> Any:
    """`count` sums over all i below n: step(i, sums, x, *args) gives the sums so far with what is at i.

    The sums are a tuple of numbers in the dtype of the arithmetic; in a step, of vectors, a sum in each lane.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None  # numba asks again for any integer where this one was refused
    count = count.literal_value
    dtype, indices = arithmetic(x.dtype), _indices(x)
    so_far = [types.UniTuple(i.of(dtype), count) for i in indices]
    args = tuple(types.unliteral(a) for a in args)
    sigs = [
        typingctx.resolve_function_type(step, (i, s, x, *args), {})
        for i, s in zip(indices, so_far, strict=True)
    ]
    packed = types.Tuple(args)

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> ir.Value:
        _, n, _, x_value, rest = values
        arguments = [x_value, *cgutils.unpack_tuple(builder, rest)]
        slot = cgutils.alloca_once(builder, _I64)
        builder.store(_I64(0), slot)
        sums = [constant(context.get_value_type(indices[0].of(dtype)), 0.0)] * count
        for index, sig in zip(indices, sigs, strict=True):
            sums = [_folded(builder, s, index.lanes) for s in sums]
            kept = [cgutils.alloca_once(builder, s.type) for s in sums]
            for place, value in zip(kept, sums, strict=True):
                builder.store(value, place)
            with _loop(builder, slot, index.lanes, n) as i:
                given = cgutils.pack_array(builder, [builder.load(place) for place in kept])
                result = _call(context, builder, step, sig, [i, given, *arguments])
                for k, place in enumerate(kept):
                    builder.store(builder.extract_value(result, k), place)
            sums = [builder.load(place) for place in kept]
        return cgutils.pack_array(builder, sums)

    literal = types.literal(count)
    return types.UniTuple(dtype, count)(literal, types.intp, step, x, packed), codegen
