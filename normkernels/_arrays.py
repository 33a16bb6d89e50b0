"""What is asked of any array, on the host or a device: dtype, memory, device, overlap."""

import sys
from typing import Any

import numpy as np

from ._devices import DeviceUnavailable, OnDevice, is_device_array
from ._layout import bfloat16
from .results import Array

# Numbers of dtypes, quicker to look up than dtypes; that of bfloat16 is known once ml_dtypes made it.
DTYPES = {np.dtype(t).num for t in (np.float16, np.float32, np.float64)}
REFUSALS = (BufferError, RuntimeError, TypeError, ValueError)


def array(value: Any, name: str = "x", *, written: bool = False) -> Array:
    """value as an ndarray, or a DeviceArray, of a dtype that kernels take, without a copy.

    With `written` it is the memory of value itself, even where value would convert to a copy.
    """
    x: Array = value  # a DeviceArray has what the passes ask of an array
    if type(value) is not np.ndarray:
        if not isinstance(value, OnDevice):
            x = _on_device(value, name) if is_device_array(value) else in_host_memory(value, name, written)
        if not isinstance(x, np.ndarray) and not x.is_aligned:
            raise ValueError(
                f"{name} must be aligned to its elements of {x.itemsize} bytes on a device, "
                f"got address {x.address:#x} and strides {x.strides}"
            )
    if x.dtype.num in DTYPES and x.dtype.isnative:
        return x
    if x.dtype.name == "bfloat16":
        DTYPES.add(x.dtype.num)
        return x
    raise _wrong(x.dtype, name)


def _wrong(dtype: np.dtype[Any], name: str) -> TypeError:
    rule = "float32, float64, float16 or bfloat16 in native byte order"
    return TypeError(f"{name} must be {rule}, got {dtype.str} ({dtype})")


def _on_device(value: Any, name: str) -> Array:
    from .cuda.foreign import dtype_of, from_foreign  # needs packages that not everybody has

    try:
        return from_foreign(value, name)  # type: ignore[return-value]  # it has what the passes ask of an array
    except DeviceUnavailable:
        dtype = dtype_of(value)
        if dtype is not None and dtype.kind != "V" and not (dtype.num in DTYPES and dtype.isnative):
            # A driver would not help. Without a name of its own there is bfloat16.
            raise _wrong(dtype, name) from None
        raise


def in_host_memory(value: Any, name: str, written: bool = False) -> Array:
    """The memory of an object as an ndarray of any dtype, without a copy."""
    got = type(value).__name__
    interfaces = "DLPack, __array__ or __cuda_array_interface__" + (" without a copy" if written else "")
    rule = f"{name} must be an array of NumPy, or one that speaks {interfaces}"
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{rule}, got a {got}, whose mask would be lost")
    if isinstance(value, np.ndarray):
        return value.view(np.ndarray)
    not_lazy(value, name)
    try:
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.Tensor):
            return _tensor_memory(value, torch)
        copy = False if written else None
        if hasattr(value, "__array__"):
            memory = np.asarray(value, copy=copy)
            if written and not np.shares_memory(memory, np.asarray(value)):  # it may ignore `copy`
                raise TypeError("it converts to a copy")
            return memory
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value, copy=copy)
    except REFUSALS as error:
        reason = str(error).partition("\n")[0]
        raise TypeError(f"{rule}, got {got}: {reason}") from None
    raise TypeError(f"{rule}, got {got}")


def is_dask_array(value: Any) -> bool:
    """Whether value is an array of Dask, which only who imported it can have."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(value, module.Array)


def not_lazy(value: Any, name: str) -> None:
    """Refuse what Dask would compute whole, without a word, to make it an ndarray."""
    graph = getattr(value, "__dask_graph__", None)
    if graph is not None and graph() is not None:
        raise TypeError(
            f"{name} must be an array in memory, got a {type(value).__name__} that Dask has yet to compute: "
            f"use {name}.compute(), or do it block by block with {name}.map_blocks(...); "
            "moments, zscore, minmax and whiten take Dask arrays, such as the .data of a lazy xarray"
        )


def _tensor_memory(tensor: Any, torch: Any) -> Array:
    """That of a PyTorch tensor; NumPy gets its bfloat16, which PyTorch refuses it, as integers."""
    if tensor.requires_grad:
        raise TypeError("it requires grad, use .detach()")
    if tensor.dtype != torch.bfloat16:
        memory: Array = tensor.numpy()
        return memory
    return np.asarray(tensor.view(torch.int16).numpy().view(bfloat16()))


def near(value: Any, name: str, x: Array, *, written: bool = False) -> Array:
    """As `array`, where x lies; what is on its stream by now comes before what is put on that of x."""
    if type(value) is not np.ndarray and isinstance(x, np.ndarray) and is_device_array(value):
        got = f"{type(value).__name__} in device memory"
        raise TypeError(f"{name} must be in host memory like the other arrays, got {got}")
    a = array(value, name, written=written)
    if isinstance(x, np.ndarray):
        return a
    together(a, name, x)
    a.precede(x)
    return a


def together(a: Array, name: str, x: Array) -> None:
    """Refuse an array that does not lie where x lies."""
    if a.device != x.device:
        error = TypeError if "cpu" in (a.device, x.device) else ValueError
        raise error(f"{name} must be {_place(x)} like the other arrays, got one {_place(a)}")


def _place(a: Array) -> str:
    return "in host memory" if isinstance(a, np.ndarray) else f"on device {a.device}"


def writeable(x: Array) -> bool:
    """Whether x may be written."""
    return x.flags.writeable if isinstance(x, np.ndarray) else not x.readonly


class _Extent:
    """The memory of an array on a device, for NumPy to reason about; nobody may read there."""

    def __init__(self, x: Any) -> None:
        self.__array_interface__ = {
            "shape": x.shape,
            "strides": x.strides,
            "typestr": f"|V{x.itemsize}",
            "data": (x.address, True),
            "version": 3,
        }


def overlap(a: Array, b: Array) -> bool:
    """Whether two arrays have memory in common."""
    if isinstance(a, np.ndarray):
        # Two arrays that own their memory: asking NumPy would take longer than a small call.
        alone = a.base is None and b.base is None and a is not b
        return not alone and np.shares_memory(a, b)
    (first_a, past_a), (first_b, past_b) = a.extent(), b.extent()
    if past_a <= first_b or past_b <= first_a or first_a == past_a or first_b == past_b:
        return False
    return np.shares_memory(*(np.asarray(_Extent(x)) for x in (a, b)))


def overlaps_itself(x: Array) -> bool:
    """Whether a step along some axis does not get past all elements of the finer axes."""
    if isinstance(x, np.ndarray) and x.flags.c_contiguous:
        return False
    reach = x.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(x.strides, x.shape, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def identical(a: Array, b: Array) -> bool:
    """Whether each element of a is the same memory as that of b; axes of one element lead nowhere."""
    strides = zip(a.shape, a.strides, b.strides, strict=True)
    return _address(a) == _address(b) and all(n == 1 or s == t for n, s, t in strides)


def _address(x: Any) -> int:
    address: int = x.ctypes.data if isinstance(x, np.ndarray) else x.address
    return address
