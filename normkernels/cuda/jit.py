"""How kernels are compiled: from Python to machine code for one kind of device, with or without a device."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numba import cuda
from numba.cuda import types
from numba.cuda.core import config

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether numba's simulator stands in for a device (``NUMBA_ENABLE_CUDASIM=1``)."""

KERNELS: list["Kernel"] = []


def primitive(function: Callable[..., Any]) -> Any:
    """Compile a function that kernels call."""
    return function if SIMULATED else cuda.jit(device=True)(function)


class Kernel:
    """A kernel, compiled once for every set of argument types."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__doc__ = function.__doc__
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.function = function
        self.simulation = cuda.jit(function) if SIMULATED else None

    @lru_cache(maxsize=None)  # noqa: B019  # kernels are never dropped
    def ptx(self, signature: tuple[Any, ...], compute_capability: tuple[int, int]) -> tuple[str, str]:
        """The assembly of one variant, and its name there; the last argument is a form."""
        form = signature[-1].form
        text, _ = cuda.compile(
            self.function, types.void(*signature), cc=compute_capability, device=False, abi="numba",
            output="ptx", launch_bounds=(form.block, form.resident),
        )  # fmt: skip
        found = re.search(r"\.visible \.entry (\w+)\(", text)
        assert found is not None
        return text, found[1]


def kernel(function: Callable[..., Any]) -> Kernel:
    """Compile a function that the host launches, when it is first launched."""
    KERNELS.append(Kernel(function))
    return KERNELS[-1]
