"""Threads and teams on a device: which rows a team has, and sums over it.

Every member of a team gets the same bits: the sums climb from lane to warp to block to blocks in an
order that only the form sets.
"""

from typing import Any

from llvmlite import ir
from numba import cuda
from numba.cuda import types
from numba.cuda.extending import intrinsic

from .. import _formulas
from .form import SLOTS
from .jit import primitive
from .shares import offset, vector_totals
from .vectors import I64, as_type_of, bytes_of, llvm_type

_merge = primitive(_formulas.merge)

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
def _lanes(width):
    """The `width` lanes around this one, as a mask: the other teams of a warp may be elsewhere."""
    if width == 32:
        return types.int64(0xFFFFFFFF)
    return ((1 << width) - 1) << (thread() % 32 // width * width)


@primitive
def _team_barrier(form):
    """Where the threads of a team in one block meet; those of other teams may be elsewhere."""
    if form.threads <= 32:
        cuda.syncwarp(_lanes(form.threads))
    else:
        cuda.syncthreads()


@primitive
def _warp_sums(a, b, width):
    """Sums over neighbouring lanes, a power of two of them."""
    k, lanes = types.int32(16), _lanes(width)
    while k > 0:
        if k < width:
            a += cuda.shfl_xor_sync(lanes, a, k)
            b += cuda.shfl_xor_sync(lanes, b, k)
        k >>= 1
    return a, b


@primitive
def _block_sums(a, b, form):
    """Sums over the warps of a block, of what all lanes of a warp have alike."""
    slots_a, slots_b = shared(a), shared(b)
    warp, lane, warps = thread() // 32, thread() % 32, form.threads // 32
    if lane == 0:
        slots_a[warp], slots_b[warp] = a, b
    cuda.syncthreads()
    a, b = as_type_of(a, 0.0), as_type_of(b, 0.0)
    if lane < warps:
        a, b = slots_a[lane], slots_b[lane]
    cuda.syncthreads()
    return _warp_sums(a, b, 32)


@primitive
def meet(form, flags, step):
    """Where all threads of a team wait for each other; they then see what the others wrote before.

    flags: (teams, blocks), 0 at first; step: counts from 1.
    """
    cuda.syncthreads()
    if flags is not None:
        first = block() // form.blocks * form.blocks
        if thread() == 0:
            publish(offset(flags, first + block_of_team(form)), step)
        for k in range(thread(), form.blocks, form.block):
            while seen(offset(flags, first + k)) < step:
                pass
        cuda.syncthreads()


@primitive
def _exchanged(a, b, form, exchange, flags, step):
    """Sums over the blocks of a team, of what all threads of a block have alike.

    exchange: (teams, SLOTS, blocks, 2); flags: (teams, blocks), 0 at first.
    """
    if exchange is None:
        return a, b
    k, mine = form.blocks, block_of_team(form)
    first = block() // k * k
    slots = offset(exchange, 2 * (first * SLOTS + step % SLOTS * k))
    if thread() == 0:
        slots[2 * mine], slots[2 * mine + 1] = a, b
        publish(offset(flags, first + mine), step)
    a, b = as_type_of(a, 0.0), as_type_of(b, 0.0)
    if thread() < k:
        while seen(offset(flags, first + thread())) < step:
            pass
        a, b = as_type_of(a, slots[2 * thread()]), as_type_of(b, slots[2 * thread() + 1])
    a, b = _warp_sums(a, b, 32)
    return _block_sums(a, b, form)


@primitive
def team_sums(a, b, form, exchange, flags, step):
    """The sums of a and of b over the team; step: counts from 1, STEPS of them for a row."""
    a, b = _warp_sums(a, b, min(form.threads, 32))
    if form.threads > 32:
        a, b = _block_sums(a, b, form)
    if form.blocks > 1:
        a, b = _exchanged(a, b, form, exchange, flags, step)
    return a, b


@primitive
def run_sums(a, b, p, sums, apart, own, anew, form):
    """sums[o] and sums[apart + o] += those of a and b over what this block has of run o; `anew`: =.

    p: from `positions`. Neighbouring lanes take a run together. Every thread of the team has to come; `own`:
    whether to write.
    """
    _, per_run, _, outer, _, _ = p
    room_a, room_b = shared_vectors(a, form), shared_vectors(b, form)
    _team_barrier(form)  # the room may still be read
    vector_totals(room_a, thread(), a, form)
    vector_totals(room_b, thread(), b, form)
    _team_barrier(form)
    width = min(form.threads, 32)
    t, mine, start = thread() % form.threads, block_of_team(form) * form.threads, slot(form) * form.threads
    for front in range(0, outer, form.threads // width):  # the same number of times for all lanes
        o = front + t // width
        writes = own and o < outer and t % width == 0
        old_a, old_b = 0.0, 0.0
        if writes and not anew:
            old_a, old_b = sums[o], sums[apart + o]
        sum_a, sum_b = as_type_of(room_a[0], 0.0), as_type_of(room_b[0], 0.0)
        for r in range(form.vectors):
            base = r * form.members + mine
            for j in range(
                max(o * per_run, base) + t % width, min((o + 1) * per_run, base + form.threads), width
            ):
                sum_a += room_a[r * form.block + start + j - base]
                sum_b += room_b[r * form.block + start + j - base]
        sum_a, sum_b = _warp_sums(sum_a, sum_b, width)
        if writes:
            sums[o], sums[apart + o] = old_a + sum_a, old_b + sum_b


@primitive
def _joined(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    """Count, mean and m2 of two sets together, of which either may be empty."""
    if n_b == 0.0:
        return n_a, mean_a, m2_a
    mean, m2 = _merge(n_a, mean_a, m2_a, n_b, mean_b, m2_b)
    return n_a + n_b, mean, m2


@primitive
def _warp_merged(n, mean, m2, width):
    """Neighbours first, the lower one first, so that all lanes get the same bits."""
    k, lanes = types.int32(1), _lanes(width)
    while k < width:
        n_k = cuda.shfl_xor_sync(lanes, n, k)
        mean_k = cuda.shfl_xor_sync(lanes, mean, k)
        m2_k = cuda.shfl_xor_sync(lanes, m2, k)
        if thread() & k == 0:
            n, mean, m2 = _joined(n, mean, m2, n_k, mean_k, m2_k)
        else:
            n, mean, m2 = _joined(n_k, mean_k, m2_k, n, mean, m2)
        k <<= 1
    return n, mean, m2


@primitive
def team_merged(n, mean, m2, form):
    """Count, mean and m2 of what the threads of a team in one block have, which may be of nothing."""
    n, mean, m2 = _warp_merged(n, mean, m2, min(form.threads, 32))
    if form.threads > 32:
        slots_n, slots_mean, slots_m2 = shared(n), shared(mean), shared(m2)
        warp, lane, warps = thread() // 32, thread() % 32, form.threads // 32
        if lane == 0:
            slots_n[warp], slots_mean[warp], slots_m2[warp] = n, mean, m2
        cuda.syncthreads()
        n = mean = m2 = 0.0
        if lane < warps:
            n, mean, m2 = slots_n[lane], slots_mean[lane], slots_m2[lane]
        cuda.syncthreads()
        n, mean, m2 = _warp_merged(n, mean, m2, 32)
    return n, mean, m2
