"""Stand-ins for a CUDA device: a driver that takes notes, made-up addresses, arrays of other libraries."""

import gc

import numpy as np
import pytest
from cuda.bindings import driver as bindings

from normkernels import _buffers
from normkernels.cuda import arrays, devices, memory

F4 = np.dtype(np.float32)
ADDRESS = 0x7F00_0000_0000
OK = bindings.CUresult.CUDA_SUCCESS


class Driver:
    """A driver that notes what it is asked for: one allocation after the other, captures as told."""

    def __init__(self):
        self.calls, self.captures, self.fails = [], {}, {}
        self.next, self.current = ADDRESS, 0

    def __getattr__(self, name):
        if not name.startswith("cu") or name == "cuuint64_t":
            return getattr(bindings, name)  # types and enumerations

        def call(*arguments):
            self.calls.append((name, *arguments))
            return self.fails.get(name, OK), *getattr(self, f"on_{name}", lambda *_: ())(*arguments)

        return call

    def named(self, *names):
        return [call for call in self.calls if call[0] in names]

    def on_cuMemAllocFromPoolAsync(self, nbytes, pool, stream):
        self.next += 1 << 20
        return (bindings.CUdeviceptr(self.next),)

    def on_cuStreamIsCapturing(self, stream):
        return (bindings.CUstreamCaptureStatus(1 if stream in self.captures else 0),)

    def on_cuStreamGetCaptureInfo(self, stream):
        return bindings.CUstreamCaptureStatus(1), self.captures[stream], None

    def on_cuCtxGetCurrent(self):
        return (bindings.CUcontext(self.current),)

    def on_cuCtxSetCurrent(self, context):
        self.current = int(context)
        return ()

    def on_cuDeviceGet(self, device):
        return (device,)

    def on_cuDevicePrimaryCtxRetain(self, device):
        return (bindings.CUcontext(100 + device),)

    def on_cuDeviceTotalMem(self, device):
        return (8 << 30,)

    def on_cuMemPoolCreate(self, properties):
        return ("pool",)

    def on_cuEventCreate(self, flags):
        return ("event",)

    def on_cuGetErrorString(self, error):
        return (b"in words",)

    def on_cuMemGetInfo(self):
        return 30, 800

    def on_cuPointerGetAttribute(self, attribute, address):
        return (3,)


@pytest.fixture(name="driver")
def fake_driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(devices, "driver", made)
    monkeypatch.setattr(devices, "_ready", False)
    monkeypatch.setattr(devices, "_lost", None)
    monkeypatch.setattr(_buffers, "elsewhere", [])
    monkeypatch.setattr(_buffers, "_set", None)
    monkeypatch.setattr(_buffers._pool, "limit", _buffers._pool.limit)
    devices.context.cache_clear()
    memory._pools.clear()
    yield made
    gc.collect()
    memory._later.clear()
    memory._spare.clear()
    memory._pools.clear()
    devices.context.cache_clear()


class Host(arrays.DeviceArray):
    """Host memory, so that libraries without a device can read what is exported."""

    def __dlpack_device__(self):
        return 1, 0


def host(x, readonly=False):
    return Host(x.shape, x.strides, x.dtype, x.ctypes.data, 0, 0, x, readonly)


def device(x, **also):
    """A DeviceArray with the shape and strides of an ndarray."""
    return arrays.DeviceArray(x.shape, x.strides, x.dtype, x.ctypes.data, 1, 7, x, **also)


class Interface:
    def __init__(self, shape=(4, 64), typestr="<f4", strides=None, version=3, **also):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "strides": strides, "version": version,
            "data": (ADDRESS, False), **also,
        }  # fmt: skip


class Exporter:
    """What JAX looks like: DLPack, and an interface that says nothing of streams."""

    def __init__(self, x, kind=2):
        self.x, self.kind, self.streams = x, kind, []
        self.__cuda_array_interface__ = {"version": 2, "typestr": x.dtype.str}

    def __dlpack_device__(self):
        return self.kind, 2

    def __dlpack__(self, *, stream=None, **also):
        self.streams.append(stream)
        return self.x.__dlpack__(stream=-1, **also)


VIEWS = {
    "dense": np.zeros((2, 3, 4), np.float32),
    "transposed": np.zeros((2, 3, 4), np.float32).transpose(1, 2, 0),
    "every second": np.zeros((6, 8), np.float32)[::2, 1::2],
    "backwards": np.zeros((6, 8), np.float16)[::-1, ::-2],
    "broadcast": np.broadcast_to(np.zeros(4), (3, 4)),
    "no elements": np.zeros((3, 0, 2), np.float32),
    "a number": np.zeros((), np.float32),
    "axes of length 1": np.zeros((4, 8), np.float32)[::4, None],
}
