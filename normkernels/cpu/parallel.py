"""A loop whose pieces are shared out among threads.

With numba's own `prange` a kernel is compiled twice: with threads and without. Here the loop is one function
over a range of pieces, which the kernel calls itself, or hands to numba's pool of threads (decision 0014).
"""

import importlib
import multiprocessing
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np.ufunc import parallel

from .pointers import as_pointers, begin

_POOLS = {"omp": "omppool", "tbb": "tbbpool", "workqueue": "workqueue"}

_I64 = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()
# A share of the work as numba's pools call it: (arguments, dimensions, steps, data), as a NumPy ufunc.
_SHARE = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _I64.as_pointer(), _I64.as_pointer(), _BYTES])
# A share's address and its four arguments; inner dimensions, arrays among the arguments, threads.
_PARALLEL_FOR = ir.FunctionType(ir.VoidType(), [_SHARE.as_pointer(), *_SHARE.args, _I64, _I64, _I64])


ALONE = (0, 1)
"""The team of one thread, which needs no pool."""

one_at_a_time = threading.RLock()
"""The turn to use a pool that takes one caller at a time."""

# A child that imports this first may have been forked by a parent that used the pool for its own kernels.
_forked = multiprocessing.parent_process() is not None and parallel._is_initialized
_least = 1


def _after_fork_in_child() -> None:
    global _forked
    _forked = True
    global_compiler_lock.release()


if hasattr(os, "register_at_fork"):  # a lock that a thread holds at a fork would stay held in the child
    os.register_at_fork(
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_after_fork_in_child,
    )


def team_size(threads: int | None) -> int:
    """Threads of a team: as many as asked for, or numba's; one in a forked child, where pools are broken."""
    return 1 if _forked else max(_least, threads or int(numba.get_num_threads()))


@contextmanager
def at_least(threads: int) -> Iterator[None]:
    """While kernels are chosen as on a machine with so many threads; arrays must be too small to use them."""
    global _least
    _least = threads
    try:
        yield
    finally:
        _least = 1


@cache
def pool() -> int:
    """The address of `parallel_for` in the threading layer that numba uses."""
    parallel._launch_threads()
    layer = importlib.import_module(f"numba.np.ufunc.{_POOLS[numba.threading_layer()]}")
    return int(layer.parallel_for)


def team_of(threads: int) -> tuple[int, int]:
    """The team of so many threads."""
    return ALONE if threads == 1 else (pool(), threads)


def needs_turns() -> bool:
    """Whether the pool takes one thread at a time: numba's own, "workqueue", ends the process otherwise."""
    pool()
    return bool(numba.threading_layer() == "workqueue")


def _share_function(context: Any, module: Any, record: ir.Type, body: Any, sig: Any) -> ir.Function:
    """A share of the pieces: (address t, n) calls the body for the pieces of shares t to t + n - 1."""
    compiled = body.dispatcher.overloads[sig.args]
    context.active_code_library.add_linking_library(compiled.library)
    function = ir.Function(module, _SHARE, module.get_unique_name("share"))
    function.linkage = "internal"
    function.attributes.add("noinline")  # one machine code, whoever calls: the same bits
    builder = ir.IRBuilder(function.append_basic_block())
    arguments, dimensions, _, data = function.args
    data = builder.bitcast(data, record.as_pointer())
    pieces, shares, failed, values = (
        builder.load(cgutils.gep_inbounds(builder, data, 0, k)) for k in range(4)
    )
    t, n = builder.ptrtoint(builder.load(arguments), _I64), builder.load(dimensions)
    first = builder.sdiv(builder.mul(t, pieces), shares)
    last = builder.sdiv(builder.mul(builder.add(t, n), pieces), shares)
    values = cgutils.unpack_tuple(builder, values)
    with cgutils.for_range_slice(builder, first, last, _I64(1)) as (piece, _):
        status, _ = context.call_internal_no_propagate(builder, compiled.fndesc, sig, [piece, *values])
        with cgutils.if_unlikely(builder, status.is_error):
            builder.store(cgutils.true_bit, failed)
    builder.ret_void()
    return function


@intrinsic  # type: ignore[untyped-decorator]
def share(typingctx: Any, team: Any, pieces: Any, body: Any, *args: Any) -> Any:
    """body(piece, *args) for every piece below `pieces`; every thread of the team has neighbouring pieces.

    team: the address of `pool`, and the number of threads. Pieces can fail for want of memory only. They see
    pointers to the arrays, in records too: each function that takes an array counts its references
    (measured: twice the time for the statistics of a channel of 49 elements).
    """
    handed = tuple(as_pointers(a) for a in args)
    sig = typingctx.resolve_function_type(body, (types.intp, *handed), {})
    packed = types.Tuple(args)

    def codegen(context: Any, builder: Any, _: Any, values: Any) -> ir.Value:
        team, pieces, _, given = values
        arguments = begin(context, builder, packed, given)
        address, threads = builder.extract_value(team, 0), builder.extract_value(team, 1)
        shares = builder.select(builder.icmp_signed("<", threads, pieces), threads, pieces)
        alone = builder.icmp_signed("<=", shares, _I64(1))
        shares = builder.select(alone, _I64(1), shares)
        failed = cgutils.alloca_once_value(builder, cgutils.false_bit)
        record = cgutils.pack_struct(builder, (pieces, shares, failed, arguments))
        data = cgutils.alloca_once_value(builder, record)
        function = _share_function(context, builder.module, record.type, body, sig)
        # Share t is element t of an array of bytes at address 0.
        zero = cgutils.alloca_once_value(builder, _BYTES(None))
        one = cgutils.alloca_once_value(builder, _I64(1))
        dimensions = cgutils.alloca_once_value(builder, shares)
        work = [zero, dimensions, one, builder.bitcast(data, _BYTES)]
        with builder.if_else(alone) as (serially, together):
            with serially:
                builder.call(function, work)
            with together:
                parallel_for = builder.inttoptr(address, _PARALLEL_FOR.as_pointer())
                builder.call(parallel_for, [function, *work, _I64(0), _I64(1), shares])
        with cgutils.if_unlikely(builder, builder.load(failed)):
            context.call_conv.return_user_exc(builder, MemoryError, ("no memory for a piece of work",))
        return context.get_dummy_value()

    return types.void(team, types.intp, body, packed), codegen
