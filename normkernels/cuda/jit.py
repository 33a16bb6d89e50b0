"""How kernels are compiled: from Python to machine code for one kind of device, with or without a device."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from numba import cuda
from numba.cuda import types

from .devices import simulated

SIMULATED = simulated()

KERNELS: list["Kernel"] = []


class Binary(NamedTuple):
    """One variant of a kernel for one kind of device."""

    name: str
    code: bytes
    log: str
    """What the assembler says of registers, shared memory and spills."""


def primitive(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return function if SIMULATED else cuda.jit(device=True)(function)


class Kernel:
    """A kernel, compiled once for every set of argument types."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__, self.__module__ = function.__doc__, function.__module__
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.function = function
        self.simulation: Any = cuda.jit(function) if SIMULATED else None
        self.variants: dict[Any, Any] = {}
        """What `run` has loaded."""

    def __reduce__(self) -> str:
        return self.function.__name__  # in another process, too, the one of this name in its module


def translated(kernel: Kernel, signature: tuple[Any, ...], compute_capability: tuple[int, int]) -> Any:
    """What the linker takes of a variant; the last argument type is that of a form."""
    from cuda.core import ObjectCode

    form = signature[-1].form
    code, _ = cuda.compile(
        kernel.function, types.void(*signature), cc=compute_capability, device=False, abi="numba",
        output="ltoir", launch_bounds=form.bounds,
    )  # fmt: skip
    return ObjectCode.from_ltoir(code)


def linked(code: Any, compute_capability: tuple[int, int], target: str = "cubin") -> tuple[bytes, str]:
    """Machine code, or "ptx" from which the assembler makes it, and the assembler's log.

    The linker translates what it is given as PTX for being linked with more: then divisions in float64
    are calls of functions that save registers, which takes up to 40 % more of them.
    """
    from cuda.core import Linker, LinkerOptions

    options = LinkerOptions(
        arch="sm_{}{}".format(*compute_capability), verbose=True, link_time_optimization=True,
        ptx=target == "ptx" or None,
    )  # fmt: skip
    linker = Linker(code, options=options)
    return bytes(linker.link(target).code), linker.get_info_log()


@cache
def compiled(kernel: Kernel, signature: tuple[Any, ...], compute_capability: tuple[int, int]) -> Binary:
    """A variant of a kernel for one kind of device."""
    code, log = linked(translated(kernel, signature, compute_capability), compute_capability)
    found = re.search(r"Compiling entry function '(\w+)'", log)
    assert found is not None
    return Binary(found[1], code, log)


def kernel(function: Callable[..., Any]) -> Kernel:
    """Compile a function that the host launches, when it is first launched."""
    KERNELS.append(Kernel(function))
    return KERNELS[-1]
