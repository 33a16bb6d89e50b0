"""How kernels are compiled: flags, cache, serial and parallel forms."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import IndexDataCacheFile

if numba.config.DISABLE_JIT:
    raise ImportError("normkernels needs numba's compiler: NUMBA_DISABLE_JIT must not be set, got 1")

# Nothing here is called through a C function pointer.
_FLAGS = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
# Nor a primitive from Python: it would crash there. The wrappers are a third of the time to compile it.
_INTERNAL = {**_FLAGS, "no_cpython_wrapper": True}

_HERE = Path(__file__).parent
_PARTS = b"".join(f.read_bytes() for f in sorted([*_HERE.glob("*.py"), _HERE.parent / "_formulas.py"]))


def _source_stamp(function: Callable[..., Any]) -> bytes:
    """A hash over every file that a kernel is made of.

    numba stamps a cached kernel with its own file only, and would go on using it after a change
    in the primitives it calls.
    """
    own = Path(function.__code__.co_filename)
    return hashlib.sha256(_PARTS + (b"" if own.parent == _HERE else own.read_bytes())).digest()


def primitive(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return numba.njit(**_INTERNAL)(function)


def callable_from_python(function: Callable[..., Any]) -> Any:
    """Compile a function that code of the user calls, or the user while trying it out."""
    return numba.njit(**_FLAGS)(function)


def step(function: Callable[..., Any]) -> Any:
    """As `primitive`, for what a loop does with one vector: always a part of that loop.

    Left to its own judgement LLVM calls it, and every constant of a row is loaded again for every vector.
    """
    return numba.njit(forceinline=True, **_INTERNAL)(function)


def _compiled(function: Callable[..., Any], form: str) -> Any:
    dispatcher = numba.njit(parallel=form == "parallel", **_FLAGS)(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no writable place for it: kernels are compiled in every process
        return dispatcher
    cache = dispatcher._cache
    # numba's cache key knows neither the other files nor `parallel`: both go into the file.
    cache._cache_file = IndexDataCacheFile(
        cache.cache_path, f"{cache._impl.filename_base}.{form}", _source_stamp(function)
    )
    return dispatcher


class Kernel:
    """One kernel in two forms: `serial` for small arrays, `parallel` where `prange` pays."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.serial = _compiled(function, "serial")
        self.parallel = _compiled(function, "parallel")

    @property
    def signatures(self) -> int:
        """How many machine-code variants this process has made or loaded."""
        return len(self.serial.signatures) + len(self.parallel.signatures)


KERNELS: list[Kernel] = []


def kernel(function: Callable[..., Any]) -> Kernel:
    """Compile a function that Python calls, when it is first called."""
    KERNELS.append(Kernel(function))
    return KERNELS[-1]
