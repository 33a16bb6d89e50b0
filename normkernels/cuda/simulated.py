"""Arrays of numba's simulator: device arrays whose memory is an ndarray."""

from typing import Any

import numpy as np

from .arrays import DeviceArray, Shape


class SimulatedArray(DeviceArray):
    """A DeviceArray in host memory."""

    __slots__ = ("memory",)
    memory: np.ndarray[Any, np.dtype[Any]]

    def _seen(self, shape: Shape, strides: Shape, dtype: np.dtype[Any]) -> "SimulatedArray":
        memory = np.lib.stride_tricks.as_strided(self.memory.view(dtype), shape, strides)
        return wrap(memory, self.owner, self.stream)

    def part(self, first: int, size: int) -> "SimulatedArray":
        return wrap(self.memory[first : first + size], self.owner, self.stream)

    def flat_memory(self) -> np.ndarray[Any, np.dtype[Any]]:
        """A flat view of the memory."""
        if not self.is_c_contiguous:
            raise ValueError(f"memory must be C-contiguous to be flat, got strides {self.strides}")
        return self.memory.reshape(-1)

    def copy_to_host(self) -> np.ndarray[Any, np.dtype[Any]]:
        return self.memory.copy(order="K")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise AttributeError("the simulator's arrays are in host memory")

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("the simulator's arrays are in host memory: use copy_to_host()")


def wrap(memory: np.ndarray[Any, np.dtype[Any]], owner: Any = None, stream: int = 0) -> SimulatedArray:
    found = SimulatedArray(
        memory.shape, memory.strides, memory.dtype, memory.ctypes.data, 0, stream,
        memory if owner is None else owner, not memory.flags.writeable,
    )  # fmt: skip
    found.memory = memory
    return found
