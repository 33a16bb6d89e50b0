"""Launching: from arrays and numbers to a compiled variant, on the device and the stream of an array."""

import ctypes
import warnings
from typing import Any

import numpy as np

from .._layout import storage
from . import devices
from .arrays import DeviceArray
from .devices import check, making_current, properties
from .form import Form
from .jit import SIMULATED, Kernel, compiled

if SIMULATED:
    from .emulated import Pointer


def launch(kernel: Kernel, form: Form, blocks: int, like: DeviceArray, *args: Any) -> None:
    """Put a kernel on the stream of `like`, in so many blocks; args: arrays in C order, int, float, None."""
    if SIMULATED:
        _simulate(kernel, form, blocks, args)
        return
    # What a variant depends on, and what the driver gets; lists, since generators take twice as long.
    key = (form, like.device, *[a.dtype.num if type(a) is DeviceArray else type(a) for a in args])
    variant = kernel.variants.get(key)
    if variant is None:
        variant = kernel.variants[key] = _load(kernel, form, like.device, args)
    function, kinds = variant
    values = (*[a.address if type(a) is DeviceArray else 0 if a is None else a for a in args], 0)
    start = devices.driver.cuLaunchKernel if form.blocks == 1 else devices.driver.cuLaunchCooperativeKernel
    last = ((values, kinds), 0) if form.blocks == 1 else ((values, kinds),)
    with making_current(like.device):
        check(start(function, blocks, 1, 1, form.block, 1, 1, 0, like.stream, *last))


def signature(form: Form, args: Any) -> tuple[Any, ...]:
    """The types of arguments as numba knows them; kernels see half types as integers."""
    from numba.cuda import types
    from numba.cuda.np.numpy_support import from_dtype

    from .vectors import FormType

    def type_of(argument: Any) -> Any:
        if isinstance(argument, DeviceArray):
            return types.CPointer(from_dtype(storage(argument.dtype)))
        return {int: types.int64, float: types.float64, type(None): types.none}[type(argument)]

    return (*map(type_of, args), FormType(form))


def _load(kernel: Kernel, form: Form, device: int, args: Any) -> tuple[Any, tuple[Any, ...]]:
    """A variant as the driver launches it, and the types of its arguments, all of 8 bytes."""
    driver = devices.driver
    with making_current(device):  # numba asks for the current device, too
        binary = compiled(kernel, signature(form, args), properties(device).compute_capability)
        library = check(driver.cuLibraryLoadData(binary.code, [], [], 0, [], [], 0))
        function = check(driver.cuLibraryGetKernel(library, binary.name.encode()))
    kinds = tuple(ctypes.c_double if type(a) is float else ctypes.c_int64 for a in args)
    return driver.CUfunction(int(function)), (*kinds, ctypes.c_int64)


def _simulate(kernel: Kernel, form: Form, blocks: int, args: Any) -> None:
    """A team of several blocks becomes one block of as many threads: the simulator runs them in turn."""

    def seen(argument: Any) -> Any:
        if not isinstance(argument, DeviceArray):
            return argument
        first, past = argument.extent()
        raw = (ctypes.c_char * (past - first)).from_address(first)
        return Pointer(
            np.frombuffer(memoryview(raw), storage(argument.dtype)),
            (argument.address - first) // argument.itemsize,
        )

    with warnings.catch_warnings():  # NumPy's errstate does not reach the threads
        warnings.simplefilter("ignore", RuntimeWarning)
        kernel.simulation[blocks // form.blocks, form.block * form.blocks](*map(seen, args), form)
