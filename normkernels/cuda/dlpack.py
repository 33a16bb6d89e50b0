"""Export of memory by DLPack, in its versioned and unversioned form.

The capsule is one that NumPy makes of an array at the same address, which nobody reads, and what it says of
the device is changed. NumPy frees it by functions in C: a destructor in Python cannot run while an exception
is on its way, as it is where a consumer refuses what it was given. cuda.core's StridedMemoryView exports too,
but asks the driver about every address, and with it nothing of this could be tested without a device.
"""

import ctypes
from typing import Any

import numpy as np

CUDA = 2
KINDS = "fiu"
BFLOAT = 4


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
    ]


# By whether it is versioned: the capsule's name, and where the tensor is in its struct, behind
# the version (two of 4 bytes), context, deleter and flags.
FORMS = {False: (b"dltensor", 0), True: (b"dltensor_versioned", 8 + 8 + 8 + 8)}

_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Memory:
    """What NumPy takes for an array in host memory; it keeps the one on the device alive."""

    def __init__(self, x: Any, dtype: np.dtype[Any]) -> None:
        self.owner = x
        self.__array_interface__ = {
            "shape": x.shape,
            "strides": x.strides,
            "typestr": dtype.str,
            "data": (x.address, x.readonly),
            "version": 3,
        }


def capsule(x: Any, versioned: bool) -> Any:
    """A capsule of a DeviceArray, which stays alive until the consumer lets go."""
    if x.readonly and not versioned:
        raise BufferError("a read-only array must be exported by DLPack 1.0 or newer, got max_version None")
    itemsize = x.dtype.itemsize
    if any(s % itemsize for s in x.strides):
        raise BufferError(f"strides must be multiples of the {itemsize} bytes of an element, got {x.strides}")
    bfloat = x.dtype.name == "bfloat16"
    if not bfloat and x.dtype.kind not in KINDS:
        raise BufferError(f"dtype must be one of DLPack's, got {x.dtype}")
    seen = np.asarray(_Memory(x, np.dtype(np.uint16) if bfloat else x.dtype))
    made = seen.__dlpack__(max_version=(1, 0) if versioned else None)
    name, offset = FORMS[versioned]
    tensor = _Tensor.from_address(_pointer(made, name) + offset)
    tensor.device_type, tensor.device_id = x.__dlpack_device__()
    if bfloat:
        tensor.code = BFLOAT
    if not x.size:
        tensor.data = None  # NumPy has memory for no elements, too
    return made
