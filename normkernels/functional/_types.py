"""Names in the signatures of the public functions."""

from typing import Any, Protocol

import numpy.typing as npt

from .._layout import Activation

__all__ = ["Activation", "ArrayLike"]


class _SupportsArray(Protocol):
    def __array__(self) -> npt.NDArray[Any]: ...


class _SupportsDLPack(Protocol):
    def __dlpack__(self, *, stream: Any = ...) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


class _SupportsCudaArrayInterface(Protocol):
    @property
    def __cuda_array_interface__(self) -> dict[str, Any]: ...


ArrayLike = _SupportsArray | _SupportsDLPack | _SupportsCudaArrayInterface
"""A NumPy array, an object with ``__array__`` or ``__dlpack__``, or an array on a CUDA device."""
