"""Threads and teams on a device: which rows a team has, and sums over it.

Every member of a team gets the same bits: the sums climb from lane to warp to block to blocks in an
order that only the form sets.
"""

from typing import Any

from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.extending import intrinsic

from .form import SLOTS
from .jit import primitive
from .shares import offset, vector_totals
from .vectors import I64, as_type_of, bytes_of, llvm_type

WARPS = 32
"""At most, in a block."""


def _shared_memory(builder: Any, dtype: Any, count: int) -> ir.Value:
    array = ir.ArrayType(llvm_type(dtype), count)
    name = builder.module.get_unique_name("_shared")
    memory = ir.GlobalVariable(builder.module, array, name, addrspace=3)
    memory.linkage, memory.align = "internal", bytes_of(dtype)
    memory.initializer = ir.Constant(array, ir.Undefined)
    generic = builder.addrspacecast(memory, array.as_pointer())
    return builder.bitcast(generic, llvm_type(dtype).as_pointer())


@intrinsic
def shared(typingctx: Any, like: Any) -> Any:
    """Room for a number of the dtype of this one from every warp of a block."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _shared_memory(builder, like, WARPS)

    return types.CPointer(like)(like), codegen


@intrinsic
def shared_vectors(typingctx: Any, value: Any, form: Any) -> Any:
    """Room for a number of the dtype of a share from every vector that a block has."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return _shared_memory(builder, value.dtype, form.form.block * form.form.vectors)

    return types.CPointer(value.dtype)(value, form), codegen


def _asm(result: ir.Type | None, arguments: list[ir.Type], code: str, constraints: str) -> ir.InlineAsm:
    type_ = ir.FunctionType(result or ir.VoidType(), arguments)
    return ir.InlineAsm(type_, code, constraints + ",~{memory}", side_effect=True)


@intrinsic
def publish(typingctx: Any, flag: Any, value: Any) -> Any:
    """Set a flag, after which other blocks see all that this thread wrote before."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        pointer = args[0].type
        builder.call(_asm(None, [pointer, I64], "st.release.gpu.s64 [$0], $1;", "l,l"), args)
        return context.get_dummy_value()

    return types.void(flag, types.int64), codegen


@intrinsic
def seen(typingctx: Any, flag: Any) -> Any:
    """A flag of another block; what that block wrote before it can be read after this."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        return builder.call(_asm(I64, [args[0].type], "ld.acquire.gpu.s64 $0, [$1];", "=l,l"), args)

    return types.int64(flag), codegen


@primitive
def thread():
    return types.int64(cuda.threadIdx.x)


@primitive
def block():
    return types.int64(cuda.blockIdx.x)


@primitive
def grid():
    return types.int64(cuda.gridDim.x)


@primitive
def barrier():
    cuda.syncthreads()


@primitive
def slot(form):
    """Which team of its block this thread belongs to."""
    return thread() // form.threads


@primitive
def member(form):
    """Which member of its team this thread is."""
    return block_of_team(form) * form.threads + thread() % form.threads


@primitive
def block_of_team(form):
    """Which block of its team this one is."""
    return block() % form.blocks


@primitive
def first_row(form):
    """The first of the rows that the teams of this block take side by side."""
    return block() // form.blocks * form.teams


@primitive
def rows_at_once(form):
    """How many rows the whole grid takes side by side."""
    return grid() // form.blocks * form.teams


@primitive
def team_of_grid(form):
    """Which team of the grid this thread belongs to."""
    return first_row(form) + slot(form)


@primitive
def _warp_sums(a, b, width):
    """Sums over neighbouring lanes, a power of two of them."""
    k = types.int32(16)
    while k > 0:
        if k < width:
            a += cuda.shfl_xor_sync(0xFFFFFFFF, a, k)
            b += cuda.shfl_xor_sync(0xFFFFFFFF, b, k)
        k >>= 1
    return a, b


@primitive
def _block_sums(a, b, warps):
    """Sums over `warps` neighbouring warps, of what all lanes of a warp have alike."""
    slots_a, slots_b = shared(a), shared(b)
    warp, lane = thread() // 32, thread() % 32
    if lane == 0:
        slots_a[warp], slots_b[warp] = a, b
    cuda.syncthreads()
    a, b = a - a, b - b
    if lane < warps:
        a, b = slots_a[warp // warps * warps + lane], slots_b[warp // warps * warps + lane]
    cuda.syncthreads()
    return _warp_sums(a, b, 32)


@primitive
def _exchanged(a, b, form, exchange, flags, step):
    """Sums over the blocks of a team, of what all threads of a block have alike.

    exchange: (teams, SLOTS, blocks, 2); flags: (teams, blocks), 0 at first.
    """
    if exchange is None:
        return a, b
    k, mine = form.blocks, block() % form.blocks
    first = block() // k * k
    slots = offset(exchange, 2 * (first * SLOTS + step % SLOTS * k))
    if thread() == 0:
        slots[2 * mine], slots[2 * mine + 1] = a, b
        publish(offset(flags, first + mine), step)
    a, b = a - a, b - b
    if thread() < k:
        while seen(offset(flags, first + thread())) < step:
            pass
        a, b = as_type_of(a, slots[2 * thread()]), as_type_of(b, slots[2 * thread() + 1])
    a, b = _warp_sums(a, b, 32)
    return _block_sums(a, b, form.threads // 32)


@primitive
def team_sums(a, b, form, exchange, flags, step):
    """The sums of a and of b over the team; step: counts from 1, STEPS of them for a row."""
    a, b = _warp_sums(a, b, min(form.threads, 32))
    if form.threads > 32:
        a, b = _block_sums(a, b, form.threads // 32)
    if form.blocks > 1:
        a, b = _exchanged(a, b, form, exchange, flags, step)
    return a, b


@primitive
def run_sums(a, b, p, sums, apart, own, form):
    """sums[o] and sums[apart + o]: those of a and of b over what this block has of run o; p: from `positions`.

    Neighbouring lanes take a run together. Every thread of the block has to come; `own`: whether to write.
    """
    _, per_run, _, outer, _, _ = p
    room_a, room_b = shared_vectors(a, form), shared_vectors(b, form)
    vector_totals(room_a, thread(), a, form)
    vector_totals(room_b, thread(), b, form)
    cuda.syncthreads()
    width = min(form.threads, 32)
    t, mine, start = thread() % form.threads, block_of_team(form) * form.threads, slot(form) * form.threads
    for front in range(0, outer, form.threads // width):  # the same number of times for all lanes
        o = front + t // width
        sum_a, sum_b = as_type_of(room_a[0], 0.0), as_type_of(room_b[0], 0.0)
        for r in range(form.vectors):
            base = r * form.members + mine
            for j in range(
                max(o * per_run, base) + t % width, min((o + 1) * per_run, base + form.threads), width
            ):
                sum_a += room_a[r * form.block + start + j - base]
                sum_b += room_b[r * form.block + start + j - base]
        sum_a, sum_b = _warp_sums(sum_a, sum_b, width)
        if own and o < outer and t % width == 0:
            sums[o], sums[apart + o] = sum_a, sum_b
    cuda.syncthreads()
