"""What `normkernels info` says of CUDA: versions and devices, or what is missing."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version


def lines() -> Iterator[tuple[str, str]]:
    """A name and what is said of it."""
    from ...cuda import devices

    try:
        yield "numba-cuda", version("numba-cuda")
    except PackageNotFoundError:
        yield "cuda", devices.EXTRA
        return
    if devices.simulated():
        yield "cuda", "numba's simulator, as NUMBA_ENABLE_CUDASIM is set"
        return
    from .plan import about, driver_version

    try:
        devices.require()
        count, driver = devices.check(devices.driver.cuDeviceGetCount()), driver_version()
    except RuntimeError as error:
        yield "cuda", str(error)
        return
    yield "driver", driver
    for number in range(count):
        try:
            found = about(number)
        except Exception as error:  # one that cannot be asked is no reason not to be told of the rest
            yield f"device {number}", " ".join(f"{type(error).__name__}: {error}".split())
            continue
        memory = f"{found.memory_bytes / 2**30:.1f} GB"
        yield f"device {number}", f"{found.name}, {memory}, compute capability {found.compute_capability}"
