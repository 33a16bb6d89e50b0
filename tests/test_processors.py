"""What the kernels become on other processors: loops of their vectors, and no calls for an operation.

The code that numba optimized here is compiled by LLVM for each of them; none of it runs.
"""

import multiprocessing
import re
from concurrent.futures import ProcessPoolExecutor

import llvmlite.binding as llvm
import numpy as np
import pytest
from numba.core.registry import CPUDispatcher

import normkernels as nk
from normkernels.cpu import channels, columns, groups, jit, local_response, positions, rows

# A processor, and the instructions that multiply and add the floats of a vector on it.
PROCESSORS = {
    "x86-64": ("x86_64-unknown-linux-gnu", r"\bmulps\b"),
    "haswell": ("x86_64-unknown-linux-gnu", r"\bvfn?m(add|sub)\d+ps\b.*%ymm"),
    "znver4": ("x86_64-unknown-linux-gnu", r"\bvfn?m(add|sub)\d+ps\b.*%[yz]mm"),
    "neoverse-v1": ("aarch64-unknown-linux-gnu", r"\bfml[as]\b.*4s"),
    "apple-m1": ("aarch64-apple-darwin", r"\bfml[as]\.4s"),
}
KERNELS = (
    *(rows.forward, rows.backward, positions.forward, positions.backward),
    *(columns.forward, channels.forward, groups.forward, local_response.forward),
)


def optimized_codes():
    """The optimized code of kernels for float32, compiled anew: what is cached has none to show."""
    x, ones = np.ones((4, 64, 8), np.float32), np.ones(64, np.float32)
    flat = x.reshape(-1, 64)
    _, saved = nk.layer_norm_forward(flat, 64, ones, ones)
    nk.layer_norm_backward(flat, saved)
    nk.layer_norm_backward(x, nk.layer_norm_forward(x, 64, ones, ones, dim=1)[1])
    nk.batch_norm(np.ones((300, 64), np.float32), None, None, ones, ones, True)
    nk.batch_norm(np.ones((4, 64, 8, 8), np.float32), None, None, ones, ones, True)
    nk.group_norm(np.ones((4, 64, 8, 8), np.float32), 8, ones, ones)
    nk.local_response_norm(x, 5)
    found = {}
    for kernel in KERNELS:
        (signature,) = kernel.signatures
        options = {"nopython": True, **jit._FLAGS}
        again = CPUDispatcher(kernel.py_func, targetoptions=options, pipeline_class=jit.KernelCompiler)
        again.compile(signature)
        found[kernel.name] = again.overloads[signature].library.get_llvm_str()
    return found


@pytest.fixture(scope="module")
def codes():
    """In a process of its own, whose kernels have no other signatures than these calls'."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(optimized_codes).result()


@pytest.mark.slow
@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("kernel", [k.name for k in KERNELS])
def test_inner_loops_are_of_vectors(codes, kernel, processor):
    triple, multiply_add = PROCESSORS[processor]
    code = re.sub(r'target triple = ".*"', f'target triple = "{triple}"', codes[kernel])
    code = re.sub(r'target datalayout = ".*"\n', "", code)
    # numba's count of references, which is not for other processors
    code = re.sub(r"=(?: tail)? call (i\d+) @llvm\.x86\.atomic[^\n]*", r"= add \1 0, 0", code)
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    assembly = machine.emit_assembly(llvm.parse_assembly(code))
    assert "llvm.masked" not in code
    assert len(re.findall(multiply_add, assembly)) >= 4
    assert not re.search(r"\b_?(fmaf?|__truncsfhf2|__extendhfsf2)\b", assembly)
