"""What a run on a device measures, and in which time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

from ...cuda import devices
from ...cuda.devices import check, properties
from ..cases import DTYPES, Case
from ..machine import Device
from ..selection import BadOption, Selection, fusible, once, select
from ..timing import Effort
from .inputs import memory
from .libraries import LIBRARIES, OTHERS, OWN

FULL = Effort(seconds=0.1, least=9, most=50)
QUICK = Effort(seconds=0.05, least=5, most=25)
# After so many seconds no case is begun: the tests of a case and its compiling take most of the time.
FULL_SECONDS, QUICK_SECONDS = 420, 35

# The sweep: bytes of a tensor by norm, lengths of rows, dtypes.
SWEEP = {"layer_norm": (1 << 28, 1 << 30), "rms_norm": (1 << 28,)}
QUICK_SWEEP = {"layer_norm": (1 << 28,)}
COLS = (256, 1024, 4096, 16_384, 65_536)
QUICK_COLS = (1024,)
SWEPT_DTYPES = ("float32", "bfloat16")

# Bytes of the array of the large copy, and what part of the device's memory it may take.
COPY_BYTES = 1 << 30
COPY_SHARE = 16


@dataclass(frozen=True)
class DevicePlan:
    """What to run and how."""

    device: Device
    cases: Sequence[Case]
    libraries: Sequence[str]
    """Those beside the kernels."""
    effort: Effort
    seconds: float
    seed: int
    copy_bytes: int


def cases(options: Selection) -> list[Case]:
    """The cases of a selection; without presets or shapes a sweep of large tensors, too."""
    options = once(options)
    found = select(options)
    if not (options.presets or options.shapes or options.batches):
        found += _sweep(options)
    return found


def _sweep(options: Selection) -> Iterator[Case]:
    sizes, lengths = (QUICK_SWEEP, QUICK_COLS) if options.quick else (SWEEP, COLS)
    for op in (op for op in sizes if not options.ops or op in options.ops):
        for nbytes in sizes[op]:
            for cols in lengths:
                for dtype in options.dtypes or (SWEPT_DTYPES[:1] if options.quick else SWEPT_DTYPES):
                    shape = (nbytes // cols // DTYPES[dtype], cols)
                    for fuse in options.fuses or ("",):
                        for pass_ in options.passes or ("forward", "backward"):
                            if fusible(op, fuse) and (pass_ == "forward" or fuse != "residual"):
                                yield Case(op, pass_, shape, dtype, preset="sweep", fuse=fuse)


def fitting(found: Sequence[Case], device: Device) -> tuple[list[Case], list[Case]]:
    """The cases that fit into the memory of a device, and those that do not."""
    room = 0.9 * device.memory_bytes - 2 * copy_bytes(device)
    needed = [memory(case, device.l2_bytes, device.memory_bytes) for case in found]
    return (
        [case for case, nbytes in zip(found, needed, strict=True) if nbytes <= room],
        [case for case, nbytes in zip(found, needed, strict=True) if nbytes > room],
    )


def copy_bytes(device: Device) -> int:
    return min(COPY_BYTES, device.memory_bytes // COPY_SHARE)


def others(baseline: str | None) -> list[str]:
    """The libraries that --against names; all without it."""
    if baseline in (None, "all"):
        return list(OTHERS)
    names = [] if baseline == "none" else baseline.split(",")
    for name in names:
        if name not in OTHERS:
            rule = f"--against on a device must be none, all or of {', '.join(OTHERS)}, joined by commas"
            raise BadOption(f"{rule}, got {name}")
    return list(dict.fromkeys(names))


def packages(libraries: Sequence[str]) -> tuple[str, ...]:
    """The distributions whose versions the results name."""
    known = packages_distributions()
    needed = (name for library in (OWN, *libraries) for name in ("numba_cuda", *LIBRARIES[library].needs))
    return tuple(dict.fromkeys(known[name][0] for name in needed if name in known))


def about(device: int = 0) -> Device:
    """The device, or `DeviceUnavailable`."""
    devices.require()
    found = properties(device)
    nbytes = 1 << 30
    if not devices.simulated():
        driver = devices.driver
        nbytes = int(check(driver.cuDeviceTotalMem(check(driver.cuDeviceGet(device)))))
    return Device(
        name=found.name,
        compute_capability="{}.{}".format(*found.compute_capability),
        multiprocessors=found.multiprocessors,
        l2_bytes=found.l2_bytes,
        memory_bytes=nbytes,
        driver=driver_version(),
    )


def driver_version(version: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of the driver, where it says, and that of the CUDA it is for."""
    if devices.simulated():
        return "none"
    number = int(check(devices.driver.cuDriverGetVersion()))
    words = [f"CUDA {number // 1000}.{number % 1000 // 10}"]
    if version.is_file():
        line = version.read_text().partition("\n")[0]
        words[:0] = [word for word in line.split() if word[0].isdigit() and "." in word][:1]
    return ", ".join(words)
