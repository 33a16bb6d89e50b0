"""One case of the benchmark: a norm and a pass on one tensor."""

import math
from dataclasses import dataclass

from ..norms import NORMS
from .schema import Shape, Size

DTYPES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}

COLD, PIPELINE = "cold", "pipeline"
CONDITIONS = (COLD, PIPELINE)

# Tensors up to this size are measured warm: they come from the operation before, not from memory.
WARM_BYTES = 64 * 1024

# Axes of images, (N, C, H, W), which layer norm and RMS norm take over their channels.
IMAGE_NDIM = 4

# Enough for small tensors too: a repetition goes once round (timing.Contender), and large copies between
# the repetitions clear the cache.
MOST_SLOTS = 64


@dataclass(frozen=True)
class Case:
    """One norm and pass on one tensor. `shape` is (rows, hidden) or (N, C, ...), whatever the layout."""

    op: str
    pass_: str
    shape: Shape
    dtype: str = "float32"
    layout: str = "contiguous"
    preset: str = "shape"
    count: Size = 1
    batch: Size | None = None
    fuse: str = ""
    """What is fused with the norm, joined by +: residual, sum, an activation."""
    evaluation: bool = False
    """Whether a forward takes the running statistics, as after training, instead of those of x."""
    condition: str = COLD
    """What the pass reads: data from memory, or just written by the layer before (bench/condition.py)."""

    @property
    def size(self) -> str:
        """The shape as the user writes it: 32x64x56x56."""
        return "x".join(map(str, self.shape))

    @property
    def id(self) -> str:
        layout = "" if self.layout == "contiguous" else f"/{self.layout}"
        condition = "" if self.condition == COLD else f"/{self.condition}"
        return f"{self.name}/{self.pass_}/{self.preset}/{self.size}/{self.dtype}{layout}{condition}"

    @property
    def name(self) -> str:
        """The norm, evaluation where it is no training, and what is fused with it: layer_norm+residual."""
        op = f"{self.op} evaluation" if self.evaluation else self.op
        return f"{op}+{self.fuse}" if self.fuse else op

    @property
    def fused(self) -> list[str]:
        """The names of what is fused."""
        return self.fuse.split("+") if self.fuse else []

    @property
    def tensor_bytes(self) -> int:
        """Bytes of one tensor of this shape."""
        return math.prod(self.shape) * DTYPES[self.dtype]

    @property
    def bytes_moved(self) -> int:
        """Bytes that every implementation must move between memory and processor."""
        return NORMS[self.op].tensors(self.pass_, self.fused) * self.tensor_bytes

    @property
    def array_shape(self) -> tuple[int, ...]:
        """The shape of the array in memory order: (N, ..., C) for channels_last."""
        if self.layout == "contiguous":
            return self.shape
        return (self.shape[0], *self.shape[2:], self.shape[1])

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in the array; of norms over rows the last one, but for images."""
        rows = NORMS[self.op].family == "rows" and len(self.shape) < IMAGE_NDIM
        return len(self.shape) - 1 if rows or self.layout == "channels_last" else 1

    @property
    def cold(self) -> bool:
        """Whether the tensors are too large for a cache that is near: they are rotated through memory."""
        return self.tensor_bytes > WARM_BYTES

    def slots(self, cache_bytes: int) -> int:
        """How many sets of tensors take turns: large ones fill the last-level cache four times.

        Twice is not enough: a cache that does not replace the oldest line still hits (measured: 10 % faster).
        """
        if not self.cold:
            return 1
        return min(MOST_SLOTS, math.ceil(4 * cache_bytes / self.bytes_moved))

    def memory(self, cache_bytes: int) -> int:
        """Bytes needed: the tensors that take turns, and the temporaries of the NumPy reference."""
        return self.slots(cache_bytes) * self.bytes_moved + 6 * self.tensor_bytes
