"""What the compiler makes of a variant, without a device: registers, spills, and the width of accesses.

None of this says how fast a kernel is.
"""

import importlib.metadata
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from .._devices import DeviceUnavailable
from . import devices
from .devices import DeviceProperties
from .form import WARP, Form
from .jit import Kernel, linked, translated

DISASSEMBLER = "nvidia-cuda-nvdisasm"

# What is known of a device without having one (CUDA C++ Programming Guide, Technical Specifications per
# Compute Capability): the limits of a kind, the number of multiprocessors of one model.
DEVICES = {
    d.compute_capability: d
    for d in (
        DeviceProperties("A100", (8, 0), 108, 40 << 20, 167_936, 65_536, 2048, 32),
        DeviceProperties("H200", (9, 0), 132, 50 << 20, 233_472, 65_536, 2048, 32),
        DeviceProperties("B200", (10, 0), 148, 126 << 20, 233_472, 65_536, 2048, 32),
    )
}

# Registers are handed out to warps, shared memory to blocks, in units of these; each block takes
# RESERVED_SHARED for the system.
REGISTER_UNIT, SHARED_UNIT, RESERVED_SHARED = 256, 128, 1024


class Access(NamedTuple):
    """How an argument is met."""

    argument: str
    stores: bool
    bytes: int


class Resources(NamedTuple):
    """What one variant takes, and how it meets memory."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_bytes: int
    loads: Counter[int]
    """Bytes of an access to global memory: how many there are in the machine code."""
    stores: Counter[int]
    local: int
    """Accesses to memory of a thread's own, where arrays and spilt registers lie."""
    accesses: Counter[Access]
    """The same by argument, as the assembler was given them."""


def resources(kernel: Kernel, signature: tuple[Any, ...], compute_capability: tuple[int, int]) -> Resources:
    """Compile a variant and look at it; the last argument type is that of a form."""
    with _device(compute_capability):
        translation = translated(kernel, signature, compute_capability)
    ptx, _ = linked(translation, compute_capability, "ptx")
    code, log = linked(translation, compute_capability)
    loads, stores, local = _machine_accesses(_disassembled(code))
    frame = _numbers(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    return Resources(
        _numbers(r"[Uu]sed (\d+) registers", log)[0],
        # Where there is no shared memory nothing is said of it.
        int(found[1]) if (found := re.search(r"(\d+) bytes smem", log)) else 0,
        frame[0],
        frame[1] + frame[2],
        loads,
        stores,
        local,
        argument_accesses(ptx.decode(), _pointers(kernel, signature)),
    )


def occupancy(found: Resources, form: Form, properties: DeviceProperties) -> int:
    """How many blocks of a form a multiprocessor has room for; 0 where it has for none."""
    warps = -(-form.block // WARP)
    registers = _up(found.registers * WARP, REGISTER_UNIT) * warps
    shared = _up(found.shared_bytes + RESERVED_SHARED, SHARED_UNIT)
    return min(
        properties.blocks_per_multiprocessor,
        properties.threads_per_multiprocessor // (warps * WARP),
        properties.registers_per_multiprocessor // registers,
        properties.shared_per_multiprocessor // shared,
    )


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _numbers(pattern: str, log: str) -> list[int]:
    found = re.search(pattern, log)
    if found is None:
        raise ValueError(f"the assembler's log must match {pattern}, got {log!r}")
    return [int(group) for group in found.groups()]


@contextmanager
def _device(compute_capability: tuple[int, int]) -> Iterator[None]:
    """Numba asks for the current device when a kernel calls a function; without one it gets a stand-in."""
    try:
        devices.require()
    except DeviceUnavailable:
        from numba.cuda import dispatcher

        asked = dispatcher.get_current_device
        dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=compute_capability, id=0)
        try:
            yield
        finally:
            dispatcher.get_current_device = asked
    else:
        yield


def disassembler() -> Path:
    """Where NVIDIA's disassembler is installed; raises DeviceUnavailable."""
    try:
        files = importlib.metadata.files(DISASSEMBLER) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nvdisasm" and file.parent.name == "bin":
            return Path(str(file.locate()))
    raise DeviceUnavailable(
        f"machine code can be read with the disassembler only: pip install {DISASSEMBLER}"
    )


def _disassembled(code: bytes) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernel.cubin")
        file.write_bytes(code)
        command = [str(disassembler()), "--print-code", "--no-dataflow", str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# LDG.E.128, ST.E.64.STRONG.GPU, LDG.E.U16: with no number it is 4 bytes.
_MACHINE = re.compile(r"\b(LDG?|STG?|LDL|STL)((?:\.[A-Z0-9]+)*)\s")


def _machine_accesses(text: str) -> tuple[Counter[int], Counter[int], int]:
    loads, stores, local = Counter[int](), Counter[int](), 0
    for operation, modifiers in _MACHINE.findall(text):
        if operation in ("LDL", "STL"):
            local += 1
            continue
        bits = re.search(r"\.[US]?(8|16|64|128|256)\b", modifiers)
        (loads if operation[0] == "L" else stores)[int(bits[1]) // 8 if bits else 4] += 1
    return loads, stores, local


def _pointers(kernel: Kernel, signature: tuple[Any, ...]) -> dict[int, str]:
    """Arguments that are pointers: their number among those that take room, and their name."""
    from numba.cuda import types

    names = kernel.function.__code__.co_varnames
    passed = [(n, t) for n, t in zip(names, signature, strict=False)]
    return {k: n for k, (n, t) in enumerate(passed) if isinstance(t, types.CPointer)}


# Which operands of an instruction have the address that its result is, within the same array. What an
# address is masked or shifted to is a number, and an index is not followed either.
_FOLLOWED = {
    "add": slice(0, 2),
    "cvta": slice(0, 1),
    "mad": slice(2, 3),
    "mov": slice(0, 1),
    "selp": slice(0, 2),
    "sub": slice(0, 1),
}
_PARAMETER = re.compile(r"ld\.param\.\w+\s+(%\w+), \[[^\]]+_param_(\d+)\]")
_MOVE = re.compile(r"^\s*(?:@!?%p\d+ )?([a-z]+)\.[\w.]+\s+(%rd\d+), (.*);", re.M)
_ACCESS = re.compile(r"\b(ld|st)\.(?:[\w:]+\.)*?(?:(v[248])\.)?[a-z](\d+)\s+(?:[^\[;]*, )?\[(%\w+)[^\]]*\]")


def argument_accesses(ptx: str, pointers: dict[int, str]) -> Counter[Access]:
    """How often, and how many bytes at a time, arguments are met: addresses are followed to them."""
    body = ptx[ptx.index(".entry ") :].partition("\n}")[0]  # functions have registers of the same names
    arrays: dict[str, set[int]] = {r: {int(k)} for r, k in _PARAMETER.findall(body) if int(k) in pointers}
    moves = [
        (to, re.findall(r"%rd\d+|[-\w.]+", operands)[_FOLLOWED[operation]])
        for operation, to, operands in _MOVE.findall(body)
        if operation in _FOLLOWED
    ]
    growing = True
    while growing:  # loops carry addresses too
        growing = False
        for to, sources in moves:
            found = set().union(*(arrays.get(s, set()) for s in sources))
            if not found <= arrays.get(to, set()):
                arrays[to] = arrays.get(to, set()) | found
                growing = True
    accesses = Counter[Access]()
    for operation, lanes, bits, address in _ACCESS.findall(body):
        for k in arrays.get(address, ()):
            size = int(lanes[1:] or 1) * int(bits) // 8
            accesses[Access(pointers[k], operation == "st", size)] += 1
    return accesses
