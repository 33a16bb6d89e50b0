"""Loops of steps: `each`, which runs a step over elements, and `sums`, which adds up what it gives.

A *step* is what a loop does at an index i: ``y[i] = (x[i] - mean) * rstd``, where x and y are pointers. It
runs over n elements: first 64 bytes of them at a time, then 32, 16, and one, so that no lane is ever empty
(decision 0015). Both loops take the first of the pointers on its own: its dtype says how many elements are
taken at a time. All additions have a fixed order: the bits of a sum depend on n alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .tracing import seen
from .tuning import CACHE_LINE, WIDTHS
from .vectors import Index, Pointer, Value, arithmetic, constant

_I32 = ir.IntType(32)
_I64 = ir.IntType(64)


def _widths(pointer: types.CPointer) -> list[int]:
    """Elements that are taken at a time, from many to one."""
    itemsize = arithmetic(pointer.dtype).bitwidth // 8
    return [*(width // itemsize for width in WIDTHS), 1]


def _as_written(branch: ir.Instruction, module: ir.Module, unrolled: bool) -> None:
    """Tell LLVM that a loop is vectorized, and, if it has few rounds, not to unroll it.

    LLVM would make vectors of the loops of one element too, whose n it does not know to be small.
    """
    hints = [("llvm.loop.vectorize.enable", [ir.IntType(1)(0)])]
    if not unrolled:
        hints.append(("llvm.loop.unroll.disable", []))
    loop = ir.MDValue(module, [], str(len(module.metadata)))  # names itself first, as the format has it
    options = [module.add_metadata([ir.MetaDataString(module, name), *v]) for name, v in hints]
    loop.operands = (loop, *options)
    branch.set_metadata("llvm.loop", loop)


@contextmanager
def _loop(builder: Any, first: ir.Value, lanes: int, end: ir.Value, unrolled: bool) -> Iterator[ir.Value]:
    """While all lanes are below `end`, at the index that is kept in `first`, which moves on."""
    start, body, done = (builder.append_basic_block(name) for name in ("loop", "step", "done"))
    builder.branch(start)
    builder.position_at_end(start)
    i = builder.load(first)
    following = builder.add(i, _I64(lanes))
    builder.cbranch(builder.icmp_signed("<=", following, end), body, done)
    builder.position_at_end(body)
    yield i
    builder.store(following, first)
    _as_written(builder.branch(start), builder.module, unrolled)
    builder.position_at_end(done)


def _elements_to_cache_line(builder: Any, pointer: ir.Value, itemsize: int) -> ir.Value:
    rest = builder.and_(builder.neg(builder.ptrtoint(pointer, _I64)), _I64(CACHE_LINE - 1))
    return builder.udiv(rest, _I64(itemsize))


@intrinsic
def each(typingctx: Any, n: Any, stream: Any, step: Any, y: Any, *args: Any) -> Any:
    """step(i, y, *args) for all i below n.

    stream: whether what is assigned to y[i] goes past the caches, which whole cache lines do; None is never.
    """
    packed, widths = types.Tuple(args), _widths(y)

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> ir.Value:
        n, past_caches, _, first_of_y, rest = values
        arguments = Pointer(builder, first_of_y, y.dtype), *seen(builder, packed, rest)
        i = cgutils.alloca_once_value(builder, _I64(0))

        def run(lanes: int, end: ir.Value, streaming: bool = False) -> None:
            with _loop(builder, i, lanes, end, lanes == widths[0]) as first:
                step.function(Index(builder, first, lanes, streaming), *arguments)

        if isinstance(stream, types.NoneType):
            run(widths[0], n)
        else:
            head = _elements_to_cache_line(builder, first_of_y, y.dtype.bitwidth // 8)
            head = builder.select(builder.icmp_signed("<", head, n), head, n)
            with builder.if_else(past_caches) as (past, through):
                with past:
                    run(1, head)
                    run(widths[0], n, streaming=True)
                with through:
                    run(widths[0], n)
        for lanes in widths[1:]:
            run(lanes, n)
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


@intrinsic(prefer_literal=True)
def sums(typingctx: Any, count: Any, n: Any, step: Any, x: Any, *args: Any) -> Any:
    """`count` sums over all i below n: step(i, sums, x, *args) gives the sums so far with what is at i.

    The sums are a tuple of numbers in the dtype of the arithmetic; in a step, of vectors, a sum in each lane.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None  # numba asks again for any integer where this one was refused
    args = tuple(types.unliteral(a) for a in args)
    packed, widths, dtype = types.Tuple(args), _widths(x), arithmetic(x.dtype)

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> ir.Value:
        _, n, _, first_of_x, rest = values
        arguments = Pointer(builder, first_of_x, x.dtype), *seen(builder, packed, rest)
        i = cgutils.alloca_once_value(builder, _I64(0))
        number = context.get_value_type(dtype)
        sums = [constant(ir.VectorType(number, widths[0]), 0.0)] * count.literal_value
        for lanes in widths:
            kept = [cgutils.alloca_once_value(builder, _folded(builder, s, lanes)) for s in sums]
            with _loop(builder, i, lanes, n, lanes == widths[0]) as first:
                so_far = tuple(Value(builder, builder.load(s)) for s in kept)
                with_these = step.function(Index(builder, first, lanes), so_far, *arguments)
                for slot, value in zip(kept, with_these, strict=True):
                    builder.store(value.ir, slot)
            sums = [builder.load(s) for s in kept]
        return cgutils.pack_array(builder, sums)

    result = types.UniTuple(dtype, count.literal_value)
    return result(count, types.intp, step, x, packed), codegen
