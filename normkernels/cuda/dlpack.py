"""Export of memory by DLPack, in its versioned and unversioned form.

cuda.core's StridedMemoryView exports too, but asks the driver about every address, and with it
nothing of this could be tested without a device.
"""

import ctypes
from typing import Any

CUDA = 2
READ_ONLY = 1
CODES = {"f": 2, "i": 0, "u": 1}
BFLOAT = 4


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class _Managed(ctypes.Structure):
    _fields_ = [("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p)]


class _Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    ]


_exported: dict[int, Any] = {}
"""What consumers hold, by the address of its struct: the struct, its lists and the array."""

_python = ctypes.pythonapi
# The capsule comes as a bare address: it is being destroyed, and a reference would revive it.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _python))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _python)
)
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", _python)
)
NAMES = (b"dltensor", b"dltensor_versioned")


def _release(managed: int) -> None:
    _exported.pop(managed, None)


def _destroy(capsule: int) -> None:
    """Free what no consumer took: taking renames the capsule."""
    for name in NAMES:
        if _is_valid(capsule, name):
            _release(_pointer(capsule, name))


_deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_release)
_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_destroy)
_DELETER = ctypes.cast(_deleter, ctypes.c_void_p).value
_DESTRUCTOR = ctypes.cast(_destructor, ctypes.c_void_p).value
for _kept in (_deleter, _destructor, *NAMES):
    # Consumers may outlive this module.
    _python.Py_IncRef(ctypes.py_object(_kept))


def capsule(x: Any, versioned: bool) -> Any:
    """A capsule of a DeviceArray, which stays alive until the consumer lets go."""
    if x.readonly and not versioned:
        raise BufferError("a read-only array must be exported by DLPack 1.0 or newer, got max_version None")
    itemsize, n = x.dtype.itemsize, x.ndim
    if any(s % itemsize for s in x.strides):
        raise BufferError(f"strides must be multiples of the {itemsize} bytes of an element, got {x.strides}")
    code = BFLOAT if x.dtype.name == "bfloat16" else CODES.get(x.dtype.kind)
    if code is None:
        raise BufferError(f"dtype must be one of DLPack's, got {x.dtype}")
    lists = (ctypes.c_int64 * (2 * n))(*x.shape, *(s // itemsize for s in x.strides))
    at = ctypes.addressof(lists)
    tensor = _Tensor(
        x.address if x.size else None, *x.__dlpack_device__(), n, code, 8 * itemsize, 1,
        at, at + 8 * n, 0,
    )  # fmt: skip
    if versioned:
        managed: Any = _Versioned(1, 0, None, _DELETER, READ_ONLY if x.readonly else 0, tensor)
    else:
        managed = _Managed(tensor, None, _DELETER)
    address = ctypes.addressof(managed)
    _exported[address] = managed, lists, x
    return _new(address, NAMES[versioned], _DESTRUCTOR)
