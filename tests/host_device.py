"""A CUDA device made of the host's processor: it runs what numba makes of a kernel, in LLVM's language.

Numba's simulator runs twins of the primitives, in Python. Here run those that are compiled for devices,
with their vectors, masks, shuffles, shared memory, barriers, and teams of several blocks. A thread is a
greenlet: one runs at a time, until it waits for others, in an order that a seed shuffles. A barrier that
not all threads reach is an error, and so is a write beside an array. What NVIDIA's compilers make of it is
not run, and orders of memory that a host never shows are not seen.

Needs LLVMLITE_ENABLE_IR_LAYER_TYPED_POINTERS=0 before numba is imported: the host's LLVM does not read the
pointers that NVIDIA's compiler asks for.
"""

import ctypes
import ctypes.util
import random
import re
from collections import defaultdict
from types import SimpleNamespace

import greenlet
import llvmlite.binding as llvm
import numpy as np
from cuda.bindings import driver as bindings

# What a thread waits for: a value of its warp, its warp, threads of its block, a flag of another block.
SHUFFLE, WARP, BLOCK, FLAG = range(4)
BUTTERFLY = 3
LOOKS = 4000
"""How often all threads may look at flags in vain before nobody will set them."""

# What kernels ask of a device, by names of ours; `wait(kind, a, b, ...)` goes back to the greenlets.
RUNTIME = """
@thread = global i32 0
@block = global i32 0
@blocks = global i32 0
@result = global i32 0
declare void @wait(i32, i32, i32, i32, i32)
define i32 @"rt.read.ptx.sreg.tid.x"() { %r = load i32, ptr @thread ret i32 %r }
define i32 @"rt.read.ptx.sreg.tid.y"() { ret i32 0 }
define i32 @"rt.read.ptx.sreg.tid.z"() { ret i32 0 }
define i32 @"rt.read.ptx.sreg.ctaid.x"() { %r = load i32, ptr @block ret i32 %r }
define i32 @"rt.read.ptx.sreg.ctaid.y"() { ret i32 0 }
define i32 @"rt.read.ptx.sreg.ctaid.z"() { ret i32 0 }
define i32 @"rt.read.ptx.sreg.nctaid.x"() { %r = load i32, ptr @blocks ret i32 %r }
define i32 @"rt.read.ptx.sreg.nctaid.y"() { ret i32 1 }
define i32 @"rt.read.ptx.sreg.nctaid.z"() { ret i32 1 }
define {i32, i1} @"rt.shfl.sync.i32"(i32 %mask, i32 %mode, i32 %value, i32 %by, i32 %clamp) {
  call void @wait(i32 0, i32 %mask, i32 %mode, i32 %value, i32 %by)
  %r = load i32, ptr @result
  %s = insertvalue {i32, i1} {i32 undef, i1 true}, i32 %r, 0
  ret {i32, i1} %s
}
define void @"rt.bar.warp.sync"(i32 %mask) {
  call void @wait(i32 1, i32 %mask, i32 0, i32 0, i32 0)
  ret void
}
define void @"rt.barrier0"() {
  call void @wait(i32 2, i32 0, i32 0, i32 0, i32 0)
  ret void
}
define i64 @"rt.ld.acquire.gpu.s64"(ptr %p) {
  call void @wait(i32 3, i32 0, i32 0, i32 0, i32 0)
  %r = load i64, ptr %p
  ret i64 %r
}
define void @"rt.st.release.gpu.s64"(ptr %p, i64 %value) {
  store i64 %value, ptr %p
  ret void
}
define i64 @"rt.mov.b64"(i64 %value) {
  ret i64 %value
}
define i16 @"rt.cvt.rn.bf16.f32"(float %value) {
  %bits = bitcast float %value to i32
  %high = lshr i32 %bits, 16
  %odd = and i32 %high, 1
  %half = add i32 %odd, 32767
  %sum = add i32 %bits, %half
  %rounded = lshr i32 %sum, 16
  %nan = fcmp uno float %value, 0.0
  %quiet = or i32 %high, 64
  %found = select i1 %nan, i32 %quiet, i32 %rounded
  %result = trunc i32 %found to i16
  ret i16 %result
}
declare double @__nv_erfc(double)
declare float @__nv_erfcf(float)
define double @__nv_normcdf(double %x) {
  %t = fmul double %x, -0.70710678118654752
  %e = call double @__nv_erfc(double %t)
  %r = fmul double %e, 0.5
  ret double %r
}
define float @__nv_normcdff(float %x) {
  %t = fmul float %x, 0xBFE6A09E60000000
  %e = call float @__nv_erfcf(float %t)
  %r = fmul float %e, 0.5
  ret float %r
}
"""
ASSEMBLED = {
    "st.release.gpu.s64": 'void @"rt.st.release.gpu.s64"(ptr, i64)',
    "ld.acquire.gpu.s64": 'i64 @"rt.ld.acquire.gpu.s64"(ptr)',
    "mov.b64": 'i64 @"rt.mov.b64"(i64)',
    "cvt.rn.bf16.f32": 'i16 @"rt.cvt.rn.bf16.f32"(float)',
}
ASSEMBLY = re.compile(r'asm\s+(?:sideeffect\s+)?"([a-z0-9.]+)[^"]*", "[^"]*"')
SEPARATOR = "\n;;;\n"
BYTES = {"float": 4, "double": 8, "i64": 8, "i32": 4}


TURN = 0.03
"""How likely a block gives way to another one where it waits."""


class Thread(greenlet.greenlet):
    """A thread of a device: what it waits for, and the value that it gets."""

    def __init__(self, run, block, number):
        super().__init__(run)
        self.block, self.number, self.asks, self.gets = block, number, None, 0


@ctypes.CFUNCTYPE(None, ctypes.c_int32, *[ctypes.c_uint32] * 4)
def wait(*asks):
    thread = greenlet.getcurrent()
    thread.asks = asks
    thread.parent.switch()


def released(threads, block):
    """Those of blocks of so many threads that need not wait any longer; who looks at a flag looks again."""
    together = defaultdict(list)
    for thread in threads:
        kind, a, b, *_ = thread.asks
        place = (thread.number // 32, thread.asks[4]) if kind in (SHUFFLE, WARP) else None
        together[thread.block, place, kind, a, b].append(thread)
    for (_, _, kind, a, b), found in together.items():
        wanted = {SHUFFLE: a.bit_count(), WARP: a.bit_count(), BLOCK: block, FLAG: 0}[kind]
        if len(found) < wanted:
            continue
        if kind == SHUFFLE:
            assert b == BUTTERFLY, "shuffles are by exclusive or"
            values = {t.number % 32: t.asks[3] for t in found}
            for t in found:
                t.gets = values[t.number % 32 ^ t.asks[4]]
        yield from found


class Kernel:
    """A kernel that the host can run, from LLVM's language for devices."""

    def __init__(self, code):
        module = llvm.parse_assembly(RUNTIME)
        for text in code.split(SEPARATOR):
            module.link_in(llvm.parse_assembly(for_host(text)))
        shared = [v for v in module.global_variables if "addrspace(3)" in str(v)]
        for variable in shared:
            variable.linkage = "external"  # so that it keeps its name
        sizes = {v.name: size_of(str(v)) for v in shared}
        machine = llvm.Target.from_default_triple().create_target_machine(
            opt=1, features=llvm.get_host_cpu_features().flatten()
        )
        options = llvm.create_pipeline_tuning_options(speed_level=1)
        options.loop_vectorization = options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
        self.engine = llvm.create_mcjit_compiler(module, machine)
        self.engine.finalize_object()
        address = self.engine.get_global_value_address
        self.shared = [(address(name), size) for name, size in sizes.items()]
        self.address = self.engine.get_function_address(re.search(r'define void @"([^"]+)"', code)[1])
        self.thread, self.block, self.blocks, self.result = (
            ctypes.c_uint32.from_address(address(name)) for name in ("thread", "block", "blocks", "result")
        )

    def launch(self, blocks, threads, values, kinds, together, order):
        """All blocks one after the other, or, where they wait for each other, side by side."""
        function = ctypes.PYFUNCTYPE(None, *kinds)(self.address)
        self.blocks.value = blocks
        for some in [range(blocks)] if together else [[b] for b in range(blocks)]:
            self._run([Thread(lambda: function(*values), b, t) for b in some for t in range(threads)], order)

    def _run(self, threads, order):
        kept = {t.block: [b"\xff" * size for _, size in self.shared] for t in threads}
        now, runs, ready, looks = None, None, threads, 0
        block = len(threads) // len(kept)
        while threads:
            order.shuffle(ready)
            for thread in sorted(ready, key=lambda t: t.block):
                if now != thread.block:
                    self._move(kept, now, thread.block)
                    now = thread.block
                self.block.value, self.thread.value, self.result.value = now, thread.number, thread.gets
                thread.switch()
            looks = looks + 1 if all(not t.dead and t.asks[0] == FLAG for t in ready) else 0
            threads = [t for t in threads if not t.dead]
            ready = list(released(threads, block))
            # One block goes on for a while, then another one does.
            blocks = sorted({t.block for t in ready})
            if runs not in blocks or order.random() < TURN:
                runs = order.choice(blocks) if blocks else None
            ready = [t for t in ready if t.block == runs]
            if threads and (not ready or looks == LOOKS):
                raise RuntimeError(
                    f"threads wait in vain: {[(t.block, t.number, t.asks) for t in threads[:9]]}"
                )

    def _move(self, kept, now, then):
        """Each block has shared memory of its own."""
        if now is not None:
            kept[now] = [ctypes.string_at(*place) for place in self.shared]
        for (address, size), content in zip(self.shared, kept[then], strict=True):
            ctypes.memmove(address, content, size)


def size_of(variable):
    count, kind = re.search(r"\[(\d+) x (\w+)\]", variable).groups()
    return int(count) * BYTES[kind]


def for_host(text):
    """A module without what is NVIDIA's: target, intrinsics, assembly."""
    used = sorted(set(ASSEMBLY.findall(text)))
    text = ASSEMBLY.sub(r'@"rt.\1"', re.sub(r"^target .*$", "", text, flags=re.MULTILINE))
    return "\n".join([text.replace("llvm.nvvm.", "rt."), *(f"declare {ASSEMBLED[name]}" for name in used)])


class Driver:
    """CUDA's driver, as far as the package calls it; memory has margins that nobody may write to."""

    MARGIN = 4096

    def __init__(self, seed):
        self.memory, self.kernels, self.order, self.faults = {}, [], random.Random(seed), []

    def __getattr__(self, name):
        if name.startswith("cu") and name != "cuuint64_t":
            return lambda *_: (bindings.CUresult.CUDA_SUCCESS, 0)
        return getattr(bindings, name)  # types and enumerations

    def cuMemAllocFromPoolAsync(self, nbytes, pool, stream):
        memory = np.full(nbytes + 2 * self.MARGIN + 256, 0xFF, np.uint8)  # NaN in every dtype
        address = memory.ctypes.data + self.MARGIN
        address += -address % 256
        self.memory[address] = memory, nbytes
        return bindings.CUresult.CUDA_SUCCESS, address

    def cuMemFreeAsync(self, address, stream):
        memory, nbytes = self.memory.pop(address, (None, 0))
        if memory is None:
            self.faults.append("memory freed twice, or nobody's")
            return (bindings.CUresult.CUDA_SUCCESS,)
        start = address - memory.ctypes.data
        if (memory[:start] != 0xFF).any() or (memory[start + nbytes :] != 0xFF).any():
            self.faults.append(f"written beside an array of {nbytes} bytes")  # nobody could catch an error
        return (bindings.CUresult.CUDA_SUCCESS,)

    def cuMemcpyHtoDAsync(self, to, source, nbytes, stream):
        ctypes.memmove(to, source, nbytes)
        return (bindings.CUresult.CUDA_SUCCESS,)

    cuMemcpyDtoHAsync = cuMemcpyHtoDAsync

    def cuMemsetD8Async(self, address, value, nbytes, stream):
        ctypes.memset(address, value, nbytes)
        return (bindings.CUresult.CUDA_SUCCESS,)

    def cuLibraryLoadData(self, code, *_):
        self.kernels.append(Kernel(code.decode()))
        return bindings.CUresult.CUDA_SUCCESS, len(self.kernels)

    def cuLibraryGetKernel(self, library, name):
        return bindings.CUresult.CUDA_SUCCESS, library

    def cuLaunchKernel(self, function, *how, together=False):
        blocks, _, _, threads, _, _, _, _, (values, kinds), *_ = how
        self.kernels[int(function) - 1].launch(blocks, threads, values, kinds, together, self.order)
        return (bindings.CUresult.CUDA_SUCCESS,)

    def cuLaunchCooperativeKernel(self, *arguments):
        return self.cuLaunchKernel(*arguments, together=True)


def address_of(function):
    return ctypes.cast(function, ctypes.c_void_p).value


def install(seed=0):
    """Make the host the only CUDA device of this process, before anything else of the backend is imported."""
    from numba import cuda
    from numba.cuda import codegen, dispatcher, types

    from normkernels.cuda import devices

    devices.driver, devices._ready = Driver(seed), True
    devices.properties = lambda device: devices.SIMULATED
    from normkernels.cuda import jit, memory, run

    def compiled(kernel, signature, compute_capability):
        code, _ = cuda.compile(
            kernel.function, types.void(*signature), cc=compute_capability, device=False, abi="numba",
            output="ltoir",
        )  # fmt: skip
        return jit.Binary(kernel.name, code, "")

    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=(9, 0), id=0)
    codegen.CUDACodeLibrary.get_ltoir = lambda library, **_: SEPARATOR.join(library.llvm_strs).encode()
    run.compiled = compiled
    memory._Spare.MOST = -1  # new arrays are poisoned, and what was written beside others is seen
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    for name in ("exp", "sqrt", "fabs", "pow", "fmax", "fmin", "erfc"):
        for suffix in ("", "f"):
            llvm.add_symbol(f"__nv_{name}{suffix}", address_of(getattr(libm, name + suffix)))
    llvm.add_symbol("wait", address_of(wait))
    return devices.driver
