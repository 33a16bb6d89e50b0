"""What this machine is: everything a measured figure depends on."""

import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cpuinfo
import numba
import psutil

from .. import __version__
from .schema import Count, ResultsError

PACKAGES = ("numba", "llvmlite", "numpy")


@dataclass(frozen=True)
class Device:
    """The CUDA device that was measured."""

    name: str
    compute_capability: str
    multiprocessors: Count
    l2_bytes: Count
    memory_bytes: Count
    driver: str


@dataclass(frozen=True)
class Machine:
    """The machine, its software, and when it was asked."""

    cpu: str
    cores: Count
    logical_cores: Count
    caches: dict[str, Count]  # level -> bytes of one cache
    last_level_bytes: Count  # all caches of the last level together
    memory_bytes: Count
    threads: Count
    threading_layer: str
    os: str
    python: str
    versions: dict[str, str]
    date: str
    device: Device | None = None
    """None where the processors were measured."""

    @property
    def title(self) -> str:
        """What was measured."""
        return (
            self.device.name if self.device else f"{self.cpu}, {self.threads} of {self.logical_cores} cores"
        )

    @property
    def cache_bytes(self) -> int:
        """The cache before memory."""
        return self.device.l2_bytes if self.device else self.last_level_bytes


def check_date(machine: Machine) -> None:
    """Raise ResultsError where a stored machine has no date that can be put in order."""
    try:
        datetime.fromisoformat(machine.date).astimezone()
    except (ValueError, OverflowError):
        raise ResultsError(f"machine.date must be a date in ISO format, got {machine.date!r:.40}") from None


# What two machines must share for times measured on them to be compared.
SAME = ("cpu", "cores", "logical_cores", "caches", "memory_bytes", "threads", "device")


def difference(one: Machine, other: Machine) -> tuple[str, Any, Any] | None:
    """The first property that two machines do not share, and its values."""
    for name in SAME:
        a, b = getattr(one, name), getattr(other, name)
        if a != b:
            return name.replace("_", " "), a, b
    return None


@dataclass(frozen=True)
class Usage:
    """Seconds of all processors together until now."""

    total: float
    idle: float
    steal: float
    """Given to other machines on the same host."""
    own: float
    """Of this process and its children."""

    def shares(self, later: "Usage") -> tuple[float, float]:
        """What part of the time until later was stolen, and what part other processes used."""
        total = (later.total - self.total) or 1.0
        steal = (later.steal - self.steal) / total
        others = 1 - steal - (later.idle - self.idle + later.own - self.own) / total
        return steal, max(0.0, others)


def usage() -> Usage:
    """How the processors have spent their time."""
    times, this = psutil.cpu_times(), psutil.Process()
    spent = {name: getattr(times, name) for name in times._fields if "guest" not in name}
    own = sum(this.cpu_times()[:4])  # with those of children that have ended
    for child in this.children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            own += sum(child.cpu_times()[:4])
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return Usage(sum(spent.values()), idle, spent.get("steal", 0.0), own)


def machine(threads: int, others: tuple[str, ...] = ()) -> Machine:
    """This machine, now; `threads` is how many the kernels use, `others` are further packages of note."""
    caches, last_level = cache_sizes()
    return Machine(
        cpu=_cpu_info().get("brand_raw", platform.processor() or "unknown"),
        cores=psutil.cpu_count(logical=False) or 1,
        logical_cores=psutil.cpu_count() or 1,
        caches=caches,
        last_level_bytes=last_level,
        memory_bytes=psutil.virtual_memory().total,
        threads=threads,
        threading_layer=threading_layer(),
        os=platform.platform(),
        python=platform.python_version(),
        versions={"normkernels": __version__} | {name: version(name) for name in (*PACKAGES, *others)},
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
    )


@cache
def _cpu_info() -> dict[str, Any]:
    return dict(cpuinfo.get_cpu_info())  # takes a second


def threading_layer() -> str:
    """The threading layer of numba in use, "none" before the first parallel kernel."""
    try:
        return str(numba.threading_layer())
    except ValueError:
        return "none"


def cache_sizes(cpus: Path = Path("/sys/devices/system/cpu")) -> tuple[dict[str, int], int]:
    """Bytes of one cache of each level, and bytes of all caches of the last level together."""
    sizes: dict[str, int] = {}
    instances: dict[str, set[str]] = {}
    for index in cpus.glob("cpu[0-9]*/cache/index[0-9]*"):
        try:
            level, kind, size, shared = (
                (index / name).read_text().strip() for name in ("level", "type", "size", "shared_cpu_list")
            )
        except OSError:  # some virtual machines leave files out
            continue
        if kind != "Instruction":
            name = "L1d" if level == "1" else f"L{level}"
            sizes[name] = int(size.removesuffix("K")) * 1024
            instances.setdefault(name, set()).add(shared)
    if not sizes:
        sizes = _sizes_from_cpuinfo()
    last = max(sizes)
    return dict(sorted(sizes.items())), sizes[last] * len(instances.get(last, {""}))


def _sizes_from_cpuinfo() -> dict[str, int]:
    info = _cpu_info()
    names = {"L2": "l2_cache_size", "L3": "l3_cache_size"}
    sizes = {level: info[key] for level, key in names.items() if isinstance(info.get(key), int)}
    return sizes or {"L3": 32 << 20}
