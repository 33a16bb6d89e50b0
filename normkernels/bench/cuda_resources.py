"""What compilers make of the CUDA kernels, as a table: compiled offline, no device needed."""

import importlib.metadata
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numba
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from . import markdown, outputs
from .machine import Machine, machine
from .options import file_option
from .say import say, wrote
from .selection import BadOption, check_names

if TYPE_CHECKING:
    from ..cuda.offline import Resources
    from ..cuda.variants import Variant

ARCHITECTURES = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
# Those for CUDA 12 have other names, and NVVM comes with nvcc.
PACKAGES = (
    "numba-cuda",
    "cuda-core",
    "nvidia-nvvm",
    "nvidia-cuda-nvcc-cu12",
    "nvidia-nvjitlink",
    "nvidia-nvjitlink-cu12",
    "nvidia-cuda-nvdisasm",
)
# What has to be there, and how it is installed with what it needs for CUDA 13.
NEEDED = {
    "numba-cuda": "numba-cuda[cu13]",
    "cuda-core": "cuda-core",
    "nvidia-cuda-nvdisasm": "nvidia-cuda-nvdisasm",
}


@dataclass(frozen=True)
class Compiled:
    """A variant on one kind of device."""

    variant: "Variant"
    architecture: str
    resources: "Resources"
    room: int
    """Blocks that a multiprocessor has room for."""
    problems: list[str]


def missing() -> str | None:
    """What keeps kernels from being compiled here, in a line; None where nothing does."""
    if numba.config.ENABLE_CUDASIM:
        return "kernels are compiled only where NUMBA_ENABLE_CUDASIM is not set"
    absent = [name for name in NEEDED if not _version(name)]
    if not absent:
        return None
    names = " ".join(f"'{NEEDED[name]}'" for name in absent)
    return f"compiling for GPUs needs {', '.join(absent)}: pip install {names}"


def compilers() -> tuple[str, ...]:
    """What compiles here."""
    return tuple(name for name in PACKAGES if _version(name))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compile_all(variants: Sequence["Variant"], architectures: Sequence[str]) -> list[Compiled]:
    """Compile variants for architectures, a process for each core."""
    from ..cuda.offline import DEVICES, occupancy, resources
    from ..cuda.variants import problems

    work = [(variant, name) for variant in variants for name in architectures]
    of_each = [(v.family.kernel, v.signature(), ARCHITECTURES[name]) for v, name in work]
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    errors = Console(stderr=True)
    with (
        ProcessPoolExecutor(min(os.cpu_count() or 1, len(work)), get_context("spawn")) as pool,
        Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress,
    ):
        results = pool.map(resources, *zip(*of_each, strict=True), chunksize=len(architectures))
        found = list(progress.track(results, total=len(work)))
    compiled = []
    for (variant, name), one in zip(work, found, strict=True):
        device = DEVICES[ARCHITECTURES[name]]
        room = occupancy(one, variant.form, device)
        compiled.append(Compiled(variant, name, one, room, problems(variant, one, device)))
    return compiled


def render(compiled: Sequence[Compiled], command: str, where: Machine) -> str:
    """A summary by kernel and architecture, then every variant, folded."""
    versions = ", ".join(f"{name} {v}" for name, v in where.versions.items())
    variants = len({c.variant.id for c in compiled})
    wrong = [
        f"- `{c.variant.id}` for {c.architecture}: {'; '.join(c.problems)}" for c in compiled if c.problems
    ]
    return "\n\n".join(
        [
            f"Compiled with `{command}` ({versions}), {where.date[:10]}: {variants} variants, "
            f"{len(compiled) - len(wrong)} of {len(compiled)} binaries without a complaint.",
            _summary(compiled),
            "The most elements, forward / backward, of what the launch rules read once:",
            _limits(),
            *(["Complaints:\n\n" + "\n".join(wrong)] if wrong else []),
            f"<details>\n<summary>Every variant ({', '.join(_architectures(compiled))})</summary>",
            _table(compiled),
            "</details>",
        ]
    )


def _architectures(compiled: Sequence[Compiled]) -> list[str]:
    return list(dict.fromkeys(c.architecture for c in compiled))


def _summary(compiled: Sequence[Compiled]) -> str:
    groups: dict[tuple[str, str], list[Compiled]] = {}
    for c in compiled:
        groups.setdefault((c.variant.family.kernel.name, c.architecture), []).append(c)
    heads = ["variants", "registers", "shared memory", "spilt", "local accesses", "blocks per multiprocessor"]
    lines = [markdown.line(["kernel", "for", *heads]), markdown.rule(2, len(heads))]
    for key, group in groups.items():
        found = [c.resources for c in group]
        cells = [
            str(len(group)),
            _range(r.registers for r in found),
            _range((r.shared_bytes for r in found), " B"),
            f"{sum(r.spill_bytes > 0 for r in found)} variants",
            str(sum(r.local for r in found)),
            _range(c.room for c in group),
        ]
        lines.append(markdown.line([*key, *cells]))
    return "\n".join(lines)


def _limits() -> str:
    """What is read once, by device and dtype."""
    from ..cuda.limits import longest
    from ..cuda.offline import DEVICES
    from ..cuda.variants import BYTES

    names = list(longest(4, next(iter(DEVICES.values()))))
    lines = [markdown.line(["device", "dtype", *names]), markdown.rule(2, len(names))]
    for device in DEVICES.values():
        for dtype in ("float32", "float64", "float16"):
            found = longest(BYTES[dtype], device).values()
            cells = [f"{forward:,} / {backward:,}" for forward, backward in found]
            lines.append(markdown.line([device.name, dtype, *cells]))
    return "\n".join(lines)


def _range(values: Iterable[int], unit: str = "") -> str:
    all_ = list(values)
    low, high = min(all_), max(all_)
    return f"{low}{unit}" if low == high else f"{low} to {high}{unit}"


def _table(compiled: Sequence[Compiled]) -> str:
    rows: dict[str, list[Compiled]] = {}
    for c in compiled:
        rows.setdefault(c.variant.id, []).append(c)
    left = ["kernel", "computes", "dtype", "vectors × elements", "threads × blocks"]
    right = ["registers", "shared memory", "spilt", "blocks per multiprocessor", "loads", "stores"]
    lines = [markdown.line([*left, *right]), markdown.rule(len(left), len(right))]
    for group in rows.values():
        variant, found = group[0].variant, [c.resources for c in group]
        form = variant.form
        cells = [
            variant.family.kernel.name,
            ", ".join(part for part in (variant.mode, "edges" if form.edges else "") if part),
            variant.dtype,
            f"{form.vectors} × {form.lanes}",
            f"{form.threads} × {form.blocks}",
            _each(r.registers for r in found),
            _each(r.shared_bytes for r in found),
            _each(r.spill_bytes for r in found),
            _each(c.room for c in group),
            _each(_widths(r.loads) for r in found),
            _each(_widths(r.stores) for r in found),
        ]
        lines.append(markdown.line(cells))
    return "\n".join(lines)


def _each(values: Iterable[object]) -> str:
    """One value for each architecture, or one for all where they are alike."""
    texts = [str(v) for v in values]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


def _widths(accesses: dict[int, int]) -> str:
    """8·16 + 2·8: eight of 16 bytes, two of 8."""
    return " + ".join(f"{n}·{size}" for size, n in sorted(accesses.items(), reverse=True)) or "–"


@click.command("resources")
@click.option("--kernel", "kernels", multiple=True, help="rows.forward, ...; default all.")
@click.option("--dtype", "dtypes", multiple=True, help="float32, float64, float16, bfloat16; default all.")
@click.option("--arch", "architectures", multiple=True, help=f"{', '.join(ARCHITECTURES)}; default all.")
@file_option(outputs.MARKDOWN, "page", help="Write the table into a page, as bench does.")
def command(
    kernels: tuple[str, ...], dtypes: tuple[str, ...], architectures: tuple[str, ...], page: Path | None
) -> None:
    """Compile the CUDA kernels without a GPU, and show what they take: registers, spills, accesses.

    Every variant that launch rules choose, thinned to those that need most: thousands, of a second or two.
    """
    check_names((), dtypes)
    for name in architectures:
        if name not in ARCHITECTURES:
            raise BadOption(f"--arch must be one of {', '.join(ARCHITECTURES)}, got {name}")
    if (problem := missing()) is not None:
        raise BadOption(problem)
    if page:
        outputs.check({outputs.MARKDOWN: page})
    from ..cuda import variants

    found = variants.variants(dtypes or variants.DTYPES)
    known = list(dict.fromkeys(v.family.kernel.name for v in found))
    for name in kernels:
        if name not in known:
            raise BadOption(f"--kernel must be one of {', '.join(known)}, got {name}")
    chosen = [v for v in found if not kernels or v.family.kernel.name in kernels]
    compiled = compile_all(chosen, architectures or tuple(ARCHITECTURES))
    asked = (("kernel", kernels), ("dtype", dtypes), ("arch", architectures))
    words = [f"--{option} {value}" for option, values in asked for value in values]
    text = render(compiled, " ".join(["normkernels resources", *words]), machine(0, compilers()))
    if page:
        markdown.insert(page, text)
        wrote(page)
    say(text)
