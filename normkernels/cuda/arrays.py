"""Arrays in device memory, as the passes see them and as users get them."""

import functools
import math
import operator
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from .._devices import OnDevice
from . import devices, dlpack
from .devices import check, making_current

Shape = tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def dense_strides(shape: Shape, itemsize: int) -> Shape:
    """Those of C order, in bytes."""
    strides = []
    for n in reversed(shape):
        strides.append(itemsize)
        itemsize *= max(n, 1)
    return tuple(reversed(strides))


class _Geometry(NamedTuple):
    """What follows from shape, strides and the bytes of an element, but not from where an array lies."""

    size: int
    is_c_contiguous: bool
    is_aligned: bool
    """Whether every element lies at a multiple of its size where the first one does."""
    before: int
    """Bytes from the first one in memory to the first element."""
    past: int
    """Bytes from the first element to the end of the last one in memory."""


@functools.lru_cache(maxsize=4096)
def _geometry(shape: Shape, strides: Shape, itemsize: int) -> _Geometry:
    size, expected, contiguous = math.prod(shape), itemsize, True
    for n, stride in zip(reversed(shape), reversed(strides), strict=True):
        if n != 1:
            contiguous = contiguous and stride == expected
            expected *= n
    aligned = not any(s % itemsize for s in strides)
    if size == 0:
        return _Geometry(0, True, aligned, 0, 0)
    steps = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    before, past = -sum(s for s in steps if s < 0), sum(s for s in steps if s > 0) + itemsize
    return _Geometry(size, contiguous, aligned, before, past)


def _integers(given: tuple[Any, ...]) -> Shape:
    """Those of a sequence, or given one by one."""
    values = given[0] if len(given) == 1 and not isinstance(given[0], (int, np.integer)) else given
    return tuple(operator.index(n) for n in values)


ELSEWHERE = "the array is in device memory: use copy_to_host(), torch.from_dlpack() or cupy.from_dlpack()"


class DeviceArray(NDArrayOperatorsMixin, OnDevice):
    """An array in the memory of a CUDA device.

    What other libraries take without a copy, by `__dlpack__` or `__cuda_array_interface__`:
    ``torch.from_dlpack(y)``, ``cupy.asarray(y)``, a kernel of numba. It computes nothing itself.

    Attributes
    ----------
    shape : tuple of int
    strides : tuple of int
        In bytes.
    dtype : numpy.dtype
    device : int
        Number of the device.
    stream : int
        Handle of the stream on which the memory is written; 0 is the legacy default stream.
        It must not be destroyed before the array.
    address : int
        Of the first element.
    owner : object
        What keeps the memory alive.
    readonly : bool

    Examples
    --------
    >>> import normkernels as nk
    >>> x = torch.ones(4, 6, device="cuda")  # doctest: +SKIP
    >>> nk.layer_norm(x, 6)  # doctest: +SKIP
    DeviceArray(float32 (4, 6) on device 0)
    """

    __slots__ = (
        "__weakref__",
        "address",
        "device",
        "dtype",
        "owner",
        "readonly",
        "shape",
        "stream",
        "strides",
    )

    def __init__(
        self,
        shape: Shape,
        strides: Shape,
        dtype: np.dtype[Any],
        address: int,
        device: int,
        stream: int,
        owner: Any,
        readonly: bool = False,
    ) -> None:
        self.shape = shape
        self.strides = strides
        self.dtype = dtype
        self.address = address
        self.device = device
        self.stream = stream
        self.owner = owner
        self.readonly = readonly

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def geometry(self) -> _Geometry:
        return _geometry(self.shape, self.strides, self.dtype.itemsize)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.geometry.size

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def is_c_contiguous(self) -> bool:
        """Whether the elements lie one after the other, the last axis fastest."""
        return self.geometry.is_c_contiguous

    @property
    def is_aligned(self) -> bool:
        """Whether every element lies at a multiple of its size, as loads demand."""
        return self.geometry.is_aligned and self.address % self.dtype.itemsize == 0

    def extent(self) -> tuple[int, int]:
        """The addresses of the first byte and of that past the last one."""
        found = self.geometry
        return self.address - found.before, self.address + found.past

    def transpose(self, *order: Any) -> "DeviceArray":
        """The axes in another order, given as a sequence or one by one, or reversed; no copy."""
        reverse = not order or order[0] is None
        order = tuple(reversed(range(self.ndim))) if reverse else _integers(order)
        order = tuple(a + self.ndim if a < 0 else a for a in order)
        if sorted(order) != list(range(self.ndim)):
            raise ValueError(f"order must name each of the {self.ndim} axes once, got {order}")
        return self._seen(
            tuple(self.shape[a] for a in order), tuple(self.strides[a] for a in order), self.dtype
        )

    @property
    def T(self) -> "DeviceArray":
        """The axes reversed; no copy."""
        return self.transpose()

    def reshape(self, *shape: Any) -> "DeviceArray":
        """The same elements in another shape, a sequence or its lengths, of which one may be -1; no copy."""
        wanted = shape = _integers(shape)
        if wanted.count(-1) == 1 and (known := -math.prod(wanted)) > 0:
            wanted = tuple(self.size // known if n == -1 else n for n in wanted)
        if min(wanted, default=0) < 0 or math.prod(wanted) != self.size:
            raise ValueError(f"shape must have the {self.size} elements of {self.shape}, got {shape}")
        if not self.is_c_contiguous:
            raise ValueError(f"an array must be C-contiguous to be reshaped, got strides {self.strides}")
        return self._seen(wanted, dense_strides(wanted, self.dtype.itemsize), self.dtype)

    def part(self, first: int, size: int) -> "DeviceArray":
        """Elements of a flat array; no copy."""
        if self.ndim != 1 or first < 0 or first + size > self.shape[0]:
            raise ValueError(
                f"a part must lie in a flat array, got {first} to {first + size} of {self.shape}"
            )
        return DeviceArray(
            (size,), self.strides, self.dtype, self.address + first * self.dtype.itemsize, self.device,
            self.stream, self.owner, self.readonly,
        )  # fmt: skip

    def precede(self, other: "DeviceArray") -> None:
        """What is put on the stream of the other array from now on comes after what is on this one's now."""
        if self.stream != other.stream:
            with making_current(self.device):
                devices.wait(other.stream, self.stream)
            self.used_on(other.stream)

    def view(self, dtype: Any) -> "DeviceArray":
        """The same memory as another dtype of the same size."""
        dtype = np.dtype(dtype)
        if dtype.itemsize != self.dtype.itemsize:
            raise ValueError(f"dtype must have {self.dtype.itemsize} bytes, as {self.dtype}, got {dtype}")
        return self._seen(self.shape, self.strides, dtype)

    def _seen(self, shape: Shape, strides: Shape, dtype: np.dtype[Any]) -> "DeviceArray":
        return DeviceArray(
            shape, strides, dtype, self.address, self.device, self.stream, self.owner, self.readonly
        )

    def used_on(self, stream: int) -> None:
        """Keep memory of our own from being reused before what is on this stream by then is done."""
        if stream != self.stream and (readers := getattr(self.owner, "readers", None)) is not None:
            readers.add(stream)

    def copy_to_host(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The elements as an ndarray, when all that is on the stream is done.

        Returns
        -------
        numpy.ndarray
        """
        first, past = self.extent()
        memory = np.empty(past - first, np.uint8)
        if self.size:
            with making_current(self.device):
                check(devices.driver.cuMemcpyDtoHAsync(memory.ctypes.data, first, memory.nbytes, self.stream))
                check(devices.driver.cuStreamSynchronize(self.stream))
        return np.ndarray(self.shape, self.dtype, memory, self.address - first, self.strides)

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError(ELSEWHERE)

    # Operators call ufuncs, by the mixin.
    __array__ = __array_ufunc__ = __getitem__ = __setitem__ = _refuse
    __bool__ = __complex__ = __float__ = __int__ = _refuse
    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        raise TypeError("an array in device memory cannot be pickled or copied by Python: use copy_to_host()")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without dimensions")
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.dtype} {self.shape} on device {self.device})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        if self.dtype.kind != "f":  # bfloat16, which the interface has no name for
            raise AttributeError(f"__cuda_array_interface__ has no type for {self.dtype}: use DLPack")
        return {
            "shape": self.shape,
            "strides": None if self.is_c_contiguous else self.strides,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, self.readonly),
            "stream": self.stream or 1,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        if dl_device not in (None, self.__dlpack_device__()):
            raise BufferError(f"dl_device must be {self.__dlpack_device__()}, got {tuple(dl_device)}")
        if copy:
            raise BufferError("copy must be False or None, got True")
        self._order(stream)
        return dlpack.capsule(self, max_version is not None and max_version[0] >= 1)

    def _order(self, stream: int | None) -> None:
        """The consumer's stream waits for ours, and our memory for the consumer's; -1 is its own affair."""
        consumer = 0 if stream in (None, 0, 1) else stream
        if consumer != -1 and consumer != self.stream:
            with making_current(self.device):
                devices.wait(consumer, self.stream)
            self.used_on(consumer)
