"""Kernels on the threads of PyTorch.

PyTorch keeps a pool of OpenMP threads, which wait for work busily. A second pool beside it would wait for
the same cores, and each would slow the other down: where PyTorch's OpenMP has the entry point of GNU's, as
on Linux, kernels use that pool.
"""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

_BYTES, _I64 = ir.IntType(8).as_pointer(), ir.IntType(64)
# A share of the work, as `cpu.parallel` makes it.
_SHARE = ir.FunctionType(ir.VoidType(), [_BYTES.as_pointer(), _I64.as_pointer(), _I64.as_pointer(), _BYTES])


@intrinsic
def _run_share(typingctx: Any, address: Any, t: Any, data: Any) -> Any:
    """Share t of the work at an address."""

    def codegen(context: Any, builder: Any, sig: Any, values: Any) -> ir.Value:
        address, t, data = values
        first, one = builder.alloca(_BYTES), builder.alloca(_I64)
        builder.store(builder.inttoptr(t, _BYTES), first)
        builder.store(_I64(1), one)
        share = builder.inttoptr(address, _SHARE.as_pointer())
        builder.call(share, [first, one, one, builder.inttoptr(data, _BYTES)])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), codegen


def parallel_for() -> int | None:
    """The address of a function that runs shares on PyTorch's threads; None where its OpenMP is another."""
    path = next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"), None)
    try:
        library = ctypes.CDLL(str(path))
        region_on_all, thread, threads = (
            getattr(library, name) for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        )
    except (AttributeError, OSError):
        return None
    return _compiled(region_on_all, thread, threads)


_kept: list[Any] = []


def _compiled(region_on_all: Any, thread: Any, threads: Any) -> int:
    region_on_all.argtypes = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint
    region_on_all.restype = None
    for function in (thread, threads):
        function.argtypes, function.restype = (), ctypes.c_int

    @cfunc(types.void(types.CPointer(types.intp)))
    def region(work):  # type: ignore[no-untyped-def]  # compiled
        t, team = thread(), threads()
        while t < work[2]:
            _run_share(work[0], t, work[1])
            t += team

    address = region.address

    @cfunc(types.void(*[types.intp] * 8))
    def run(share, first, dimensions, steps, data, inner, arrays, shares):  # type: ignore[no-untyped-def]
        work = np.array((share, data, shares))
        region_on_all(address, work.ctypes.data, shares, 0)

    _kept.extend((region, run))
    return int(run.address)
