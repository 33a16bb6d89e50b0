"""How kernels are compiled and kept."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import sigutils
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher

from .cache import KernelCache
from .parallel import share

if numba.config.DISABLE_JIT:
    raise ImportError("normkernels needs numba's compiler: NUMBA_DISABLE_JIT must not be set, got 1")

# Nothing here is called through a C function pointer.
_FLAGS = {"error_model": "numpy", "nogil": True, "no_cfunc_wrapper": True}
# Nor a primitive from Python: it would crash there. The wrappers are a third of the time to compile it.
_INTERNAL = {**_FLAGS, "no_cpython_wrapper": True}

_HERE = Path(__file__).parent
# Files beside this folder from which kernels have functions or numbers.
BESIDE = ("_formulas.py", "_layout.py")
_PARTS = b"".join(f.read_bytes() for f in [*sorted(_HERE.glob("*.py")), *(_HERE.parent / n for n in BESIDE)])


def _source_stamp(function: Callable[..., Any]) -> bytes:
    """A hash over every file that a kernel is made of."""
    own = Path(function.__code__.co_filename)
    return hashlib.sha256(_PARTS + (b"" if own.parent == _HERE else own.read_bytes())).digest()


class OptimizedOnce(JITCodeLibrary):  # type: ignore[misc]  # numba is untyped
    """The code of a kernel, optimized with that of its primitives.

    numba does so twice before, to count references in as few functions as it can; kernels count hardly any.
    """

    def _optimize_functions(self, ll_module: Any) -> None:
        """Nothing."""

    def _optimize_final_module(self) -> None:
        passes, builder = self._codegen._module_pass_manager()
        passes.run(self._final_module, builder)


class Unfinished(OptimizedOnce):
    """The code of a primitive as it was written: optimized, and made machine code, are kernels only.

    numba does both for every function first, and for what calls it again: a third of the time that kernels
    took to compile.
    """

    def _optimize_final_module(self) -> None:
        """Nothing: the kernel's turn."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> "Unfinished":
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Nothing: what calls of Python would need has no address here."""


class KernelCompiler(Compiler):  # type: ignore[misc]
    """numba's compiler, with a library of ours for the result."""

    library: type[OptimizedOnce] = OptimizedOnce

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.state.library = self.library(self.state.targetctx.codegen(), "kernel")
        self.state.library.enable_object_caching()


class PrimitiveCompiler(KernelCompiler):
    """The same for primitives."""

    library = Unfinished


class Primitive(CPUDispatcher):  # type: ignore[misc]
    """A function that kernels call."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """As numba's, but for one type of integers: it would compile again for every literal, like 0."""
        return super().get_call_template([types.unliteral(a) for a in args], kws)


def primitive(function: Callable[..., Any], **options: Any) -> Any:
    """Compile a function that kernels call."""
    return Primitive(
        function, targetoptions={"nopython": True, **_INTERNAL, **options}, pipeline_class=PrimitiveCompiler
    )


def callable_from_python(function: Callable[..., Any]) -> Any:
    """Compile a function that code of the user calls, or the user while trying it out."""
    return numba.njit(**_FLAGS)(function)


def inlined(function: Callable[..., Any]) -> Any:
    """As `primitive`, for what is always to be a part of its caller, which LLVM would else call."""
    return primitive(function, forceinline=True)


class Kernel(CPUDispatcher):  # type: ignore[misc]  # numba is untyped
    """A function that Python calls, compiled at its first call with a signature, and kept on disk."""

    def __init__(self, function: Callable[..., Any], name: str, source: Callable[..., Any]) -> None:
        super().__init__(function, targetoptions={"nopython": True, **_FLAGS}, pipeline_class=KernelCompiler)
        self.name = name
        self._cache = KernelCache(function, name, _source_stamp(source))

    def compile(self, sig: Any) -> Any:
        args, _ = sigutils.normalize_signature(sig)
        if args in self.overloads:
            return super().compile(args)
        with self._cache.alone(args, self.targetctx.codegen()):
            return super().compile(args)

    def entry(self, *args: Any) -> Callable[..., None]:
        """The entry point of the machine code for arguments of these types, which it does not check."""
        signature = tuple(self.typeof_pyval(a) for a in args)
        self.compile(signature)
        entry: Callable[..., None] = self.overloads[signature].entry_point
        return entry


KERNELS: list[Kernel] = []


def _kept(function: Callable[..., Any], source: Callable[..., Any]) -> Kernel:
    """The function as a kernel, named after what it was made from."""
    name = f"{source.__module__.rpartition('.')[2]}.{source.__name__}"
    KERNELS.append(Kernel(function, name, source))
    return KERNELS[-1]


def kernel(function: Callable[..., Any]) -> Kernel:
    """A kernel of several steps: (team, *args), with `share` for what the team is to share out."""
    return _kept(function, function)


def loop(function: Callable[..., Any]) -> Kernel:
    """A kernel that is one loop, from what it does with a piece: (piece, *args) to (team, pieces, *args)."""
    body = primitive(function)

    def entry(team, pieces, *args):  # type: ignore[no-untyped-def]  # compiled
        share(team, pieces, body, *args)

    # Symbols of machine code are named after these two.
    entry.__module__, entry.__qualname__ = function.__module__, f"{function.__qualname__}.loop"
    entry.__doc__ = function.__doc__
    return _kept(entry, function)
