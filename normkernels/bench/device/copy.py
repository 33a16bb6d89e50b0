"""The limit: how fast a device copies its memory."""

from collections.abc import Callable

import numpy as np

from ...cuda import devices
from ...cuda.arrays import DeviceArray
from ...cuda.devices import properties
from ...cuda.form import Form
from ...cuda.memory import empty, upload
from ...cuda.run import launch
from ..timing import Clock, Contender
from .inputs import MOST_SLOTS, repeated, transfer
from .kernels import copied

FLOAT32 = np.dtype(np.float32)
# Four loads of 16 bytes in flight in each of the threads of a multiprocessor.
FORM = Form(vectors=4, lanes=4, threads=256, resident=4)
# Blocks for each that there is room for: so none waits long for the last one.
WAVES = 8


def kernel_copy(target: DeviceArray, source: DeviceArray) -> None:
    """A kernel's copy of flat arrays of float32."""
    most = properties(target.device).multiprocessors * FORM.resident * WAVES
    blocks = min(-(-source.size // FORM.capacity), most)
    launch(copied, FORM, blocks, target, source, target, source.size, FORM.capacity)


class DeviceCopy:
    """A large copy in two forms; a sample is its time in seconds. As copy.Copy, for measure.beside."""

    def __init__(self, nbytes: int, clock: Callable[[], Clock], device: int = 0, stream: int = 0) -> None:
        some = np.random.default_rng(0).standard_normal(max(4, min(nbytes, 1 << 22) // 16 * 4), FLOAT32)
        self._source = repeated(upload(some, device, stream), max(1, nbytes // some.nbytes))
        self._target = empty(self._source.shape, FLOAT32, device, stream)
        self._clock = clock
        self.bytes_moved = 2 * self._source.nbytes
        self._large = self.alike(self.bytes_moved)
        assert np.array_equal(self._target.part(0, some.size).copy_to_host(), some)

    def plain(self) -> float:
        return self._large[0].fresh()

    def streaming(self) -> float:
        return self._large[1].fresh()

    def alike(self, bytes_moved: int) -> list[Contender]:
        """Both forms on pieces of the large copy that take turns, each of so many bytes read and written."""
        size = min(self._source.size, -(-bytes_moved // 32) * 4)
        starts = range(0, self._source.size - size + 1, size)[:MOST_SLOTS]
        pieces = [(self._target.part(i, size), self._source.part(i, size)) for i in starts]
        # the simulator would take seconds for the kernel
        forms = (transfer if devices.simulated() else kernel_copy, transfer)
        found = [Contender(form, pieces, {}) for form in forms]
        for each in found:
            each.clock = self._clock()
            each.warm_up()
        return found
