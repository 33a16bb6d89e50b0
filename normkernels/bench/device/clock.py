"""Time on a device: by events around work that is queued, and by the host around many calls."""

import sys
from time import perf_counter

import numpy as np

from ...cuda import devices
from ...cuda.devices import check, making_current
from ...cuda.form import Form
from ...cuda.memory import empty
from ...cuda.run import launch
from ..timing import Clock, HostClock
from .kernels import spin

# Seconds that the device is kept busy, at least and at most, while the host queues what is timed.
LEAST_LEAD, MOST_LEAD = 5e-5, 0.02
# A sample has twice the calls of those before it that are not timed, and the host is not always as quick.
LEAD = 2.5
STEPS = 1 << 14
ONE = Form()


class _Event:
    def __init__(self) -> None:
        self.handle = check(devices.driver.cuEventCreate(0))

    def record(self, stream: int) -> None:
        check(devices.driver.cuEventRecord(self.handle, stream))

    def since(self, earlier: "_Event") -> float:
        """Seconds from an earlier event to this one, when it has happened."""
        check(devices.driver.cuEventSynchronize(self.handle))
        return float(check(devices.driver.cuEventElapsedTime(earlier.handle, self.handle))) / 1e3

    def __del__(self) -> None:
        if not sys.is_finalizing():  # at the end the driver destroys all
            devices.driver.cuEventDestroy(self.handle)


class EventClock:
    """Seconds between two events on a stream.

    Before the first one a kernel spins for as long as the host needs to queue the rest: what is timed
    then runs without gaps, however slow the host is.
    """

    def __init__(self, device: int = 0, stream: int = 0) -> None:
        self._device, self._stream = device, stream
        with making_current(device):
            self._begin, self._end = _Event(), _Event()
        self._room = empty((1,), np.dtype(np.float64), device, stream)
        self._per_step = 0.0
        self._spin(1)  # compiled
        self._per_step = min(self._calibrated() for _ in range(3))  # an idle device is slower at first
        self._lead = LEAST_LEAD

    def start(self) -> float:
        self._spin(int(self._lead / self._per_step) + 1)
        with making_current(self._device):
            self._begin.record(self._stream)
        return perf_counter()

    def seconds(self, start: float) -> float:
        with making_current(self._device):
            self._end.record(self._stream)
            queued = perf_counter() - start
            self._lead = min(max(LEAST_LEAD, LEAD * queued), MOST_LEAD)
            return self._end.since(self._begin)

    def _spin(self, steps: int) -> None:
        launch(spin, ONE, 1, self._room, self._room, steps)

    def _calibrated(self) -> float:
        with making_current(self._device):
            self._begin.record(self._stream)
            self._spin(STEPS)
            self._end.record(self._stream)
            return max(self._end.since(self._begin) / STEPS, 1e-10)


class CallClock:
    """What a loop on the host sees: from an idle device to one that is idle again."""

    def __init__(self, device: int = 0, stream: int = 0) -> None:
        self._device, self._stream = device, stream

    def start(self) -> float:
        self._wait()
        return perf_counter()

    def seconds(self, start: float) -> float:
        self._wait()
        return perf_counter() - start

    def _wait(self) -> None:
        with making_current(self._device):
            check(devices.driver.cuStreamSynchronize(self._stream))


def kernel_clock(device: int = 0, stream: int = 0) -> Clock:
    return HostClock() if devices.simulated() else EventClock(device, stream)


def call_clock(device: int = 0, stream: int = 0) -> Clock:
    return HostClock() if devices.simulated() else CallClock(device, stream)
