"""The variants of kernels that launch rules choose, and what their machine code has to keep to.

A new kernel is one entry of FAMILIES.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .config import ACCESS_BYTES, BACKWARD, FORWARD, WARP, Rule, lanes, row_form
from .devices import DeviceProperties
from .form import Form
from .jit import Kernel
from .offline import Resources, occupancy

# As kernels see the memory of each dtype (run.storage).
STORAGE = {"float32": "float32", "float64": "float64", "float16": "uint16", "bfloat16": "int16"}
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
DTYPES = tuple(STORAGE)

# What the arguments of kernels are, by their names, which mean the same in all of them.
KINDS = {
    "tensor": ("x", "dy", "y", "dx", "residual", "summed", "dsum"),
    "parameter": ("weight", "bias"),
    "statistic": ("mean", "rstd", "var", "partials", "dots", "exchange"),
    "flags": ("flags",),
    "count": ("rows", "cols", "period", "width", "magic"),
    "number": ("divisor", "eps"),
}
KIND = {name: kind for kind, names in KINDS.items() for name in names}

# What several blocks of a team meet through.
BETWEEN_BLOCKS = ("exchange", "flags")

LONGEST = 300_000


@dataclass(frozen=True)
class Mode:
    """What is computed: which arguments are None, and what else the form says."""

    absent: tuple[str, ...]
    centred: bool = True
    activation: str | None = None
    residual: bool = False
    """Whether there is a tensor more than the norm itself needs, which launch rules ask for."""
    parameters: str | None = None
    """Their dtype, where it is not that of tensors; only with half types."""


@dataclass(frozen=True)
class Family:
    """A kernel, its modes, "" the plain one, and the forms that rules choose by the size of an element."""

    kernel: Kernel
    forms: Callable[[int, Mode], tuple[Form, ...]]
    modes: dict[str, Mode]
    first: tuple[str, ...] = ()
    """Tensors of which up to four elements are read one by one, for a pivot."""
    by_element: tuple[str, ...] = ()
    """Parameters that are met as tensors are, unless they belong to runs (`magic`)."""


@dataclass(frozen=True)
class Variant:
    """A kernel as it is compiled, for no device in particular."""

    family: Family = field(repr=False)
    dtype: str
    form: Form
    mode: str = ""

    @property
    def id(self) -> str:
        f = self.form
        shape = f"{f.vectors}x{f.lanes}x{f.threads}" + (f"x{f.blocks}" if f.blocks > 1 else "")
        marks = [shape, *(name for name in ("edges", "columns") if getattr(f, name))]
        return "-".join([self.family.kernel.name, *([self.mode] if self.mode else []), self.dtype, *marks])

    @property
    def given(self) -> list[str]:
        """The arguments that are not None, in order."""
        mode, code = self.family.modes[self.mode], self.family.kernel.function.__code__
        absent = (*mode.absent, "form", *(BETWEEN_BLOCKS if self.form.blocks == 1 else ()))
        return [name for name in code.co_varnames[: code.co_argcount] if name not in absent]

    def dtype_of(self, name: str) -> str:
        """The dtype of a tensor or a parameter."""
        own = self.family.modes[self.mode].parameters if KIND[name] == "parameter" else None
        return own or self.dtype

    def signature(self) -> tuple[Any, ...]:
        """The types of the arguments as numba knows them."""
        from numba.cuda import types

        from .vectors import FormType

        kinds = {
            "statistic": types.CPointer(types.float64),
            "flags": types.CPointer(types.int64),
            "count": types.int64,
            "number": types.float64,
        }

        def type_of(name: str) -> Any:
            if name not in given:
                return types.none
            if KIND[name] in kinds:
                return kinds[KIND[name]]
            return types.CPointer(getattr(types, STORAGE[self.dtype_of(name)]))

        code, given = self.family.kernel.function.__code__, self.given
        return (*map(type_of, code.co_varnames[: code.co_argcount - 1]), FormType(self.form))


def row_forms(itemsize: int, rule: Rule, form: Form, residual: bool) -> tuple[Form, ...]:
    """The distinct forms of rows up to LONGEST, whatever their alignment, but for those that others cover.

    Of forms that differ in the number of elements of a thread, or of threads, the larger one stands for all:
    it needs more registers. What is told apart is what takes other paths in a kernel, and how many
    registers a thread may have.
    """
    kept: dict[Any, Form] = {}
    for cols in _lengths():
        for places in ((0, 0), (itemsize, itemsize), (0, itemsize)):
            count, edges = lanes(itemsize, cols, places, columns=form.columns)
            found = row_form(cols, itemsize, count, rule, replace(form, edges=edges), residual)
            several = 2 if found.blocks > 1 else found.threads > WARP
            key = (found.lanes, found.edges, several, found.block * found.resident)
            kept[key] = max(kept.get(key, found), found, key=lambda f: (f.vectors, -f.blocks, f.threads))
    return tuple(kept.values())


def _lengths() -> Iterator[int]:
    """Lengths of rows that meet every form: about each power of two, whether divisible or not."""
    size = 1
    while size <= LONGEST:
        yield from (n for n in range(max(1, size - 9), min(size, LONGEST) + 1))
        size *= 2
    yield LONGEST


def _of_rows(rule: Rule, columns: bool = False) -> Callable[[int, Mode], tuple[Form, ...]]:
    def forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
        form = Form(columns=columns, centred=mode.centred, activation=mode.activation)
        return row_forms(itemsize, rule, form, mode.residual)

    return forms


def families() -> list[Family]:
    """Every kernel, twice where it has two kinds of forms."""
    from . import rows

    none = ("residual", "summed", "period", "magic", "var")
    forward = Family(
        rows.forward,
        _of_rows(FORWARD),
        {
            "": Mode(none),
            "residual": Mode(("period", "magic", "var"), residual=True),
            "gelu": Mode(none, activation="gelu"),
            "runs": Mode(("residual", "summed", "var")),
            "rms": Mode((*none, "bias", "mean"), centred=False),
            "float32 parameters": Mode(none, parameters="float32"),
        },
        first=("x", "residual"),
        by_element=("weight", "bias"),
    )
    none = ("bias", "period", "magic", "dsum")
    columns = Family(
        rows.backward,
        _of_rows(BACKWARD, columns=True),
        {
            "": Mode((*none, "dots")),
            "residual": Mode(("bias", "period", "magic", "dots"), residual=True),
            "gelu": Mode(("period", "magic", "dsum", "dots"), activation="gelu"),
            "rms": Mode((*none, "dots"), centred=False),
            "float32 parameters": Mode((*none, "dots"), parameters="float32"),
        },
        by_element=("weight", "bias"),
    )
    dots = Family(
        rows.backward,
        _of_rows(BACKWARD),
        {"": Mode((*none, "partials")), "runs": Mode(("bias", "dsum", "partials"))},
        by_element=("weight", "bias"),
    )
    return [forward, columns, dots]


def variants(dtypes: tuple[str, ...] = DTYPES) -> list[Variant]:
    """Every kernel, dtype and form; what is fused and the like in two forms, with and without 16 bytes."""
    found = []
    for family in families():
        for dtype in dtypes:
            for name, mode in family.modes.items():
                if mode.parameters is None or BYTES[dtype] == 2:
                    forms = family.forms(BYTES[dtype], mode)
                    found += [Variant(family, dtype, f, name) for f in (_two(forms) if name else forms)]
    return found


def _two(forms: tuple[Form, ...]) -> list[Form]:
    """The largest forms of one block, of those that meet 16 bytes at a time and of the others."""
    one = sorted((f for f in forms if f.blocks == 1), key=lambda f: f.capacity)
    widest = max(f.lanes for f in one)
    plain = [f for f in one if f.lanes == widest and not f.edges]
    others = [f for f in one if f.lanes < widest or f.edges]
    return [*plain[-1:], *others[-1:]]


def problems(variant: Variant, found: Resources, device: DeviceProperties) -> list[str]:
    """What a variant does not keep to, in words."""
    room = occupancy(found, variant.form, device)
    wrong = [
        *([f"{found.spill_bytes} bytes of registers are spilt"] if found.spill_bytes else []),
        *([f"{found.local} accesses go to local memory"] if found.local else []),
        *([f"a multiprocessor has room for {room} blocks, the form wants {variant.form.resident}"]
          if room < variant.form.resident else []),
    ]  # fmt: skip
    return wrong + narrow(variant, found)


def narrow(variant: Variant, found: Resources) -> list[str]:
    """Tensors that are not met as widely as the alignment of rows allows, in words."""
    form, family, given, wrong = variant.form, variant.family, variant.given, []
    runs = "magic" in given
    for name in given:
        if not (KIND[name] == "tensor" or (name in family.by_element and not runs and not form.edges)):
            continue
        itemsize = BYTES[variant.dtype_of(name)]
        wide = min(ACCESS_BYTES, form.lanes * itemsize)
        pieces = form.lanes * itemsize // wide
        met = {a: n for a, n in found.accesses.items() if a.argument == name}
        if sum(n for a, n in met.items() if a.bytes == wide) < form.vectors * pieces:
            wrong.append(f"{name} must be met {wide} bytes at a time, got {_sizes(met)}")
            continue
        # One by one go the ends of rows that begin within a vector, and the elements that give a pivot.
        narrower = {a: n for a, n in met.items() if a.bytes != wide}
        few = {a: n for a, n in narrower.items() if not a.stores and a.bytes == itemsize}
        if form.edges:
            continue
        if narrower != few or sum(few.values()) > (4 if name in family.first else 0):
            wrong.append(f"{name} must be met {wide} bytes at a time only, got {_sizes(met)}")
    for stores, machine in ((False, found.loads), (True, found.stores)):
        asked = sum(n for a, n in found.accesses.items() if a.stores == stores and a.bytes == ACCESS_BYTES)
        if machine[ACCESS_BYTES] < asked:
            kind = "stores" if stores else "loads"
            wrong.append(f"{asked} {kind} of {ACCESS_BYTES} bytes must be kept, got {machine[ACCESS_BYTES]}")
    return wrong


def _sizes(met: dict[Any, int]) -> str:
    return ", ".join(f"{n} × {a.bytes}" for a, n in sorted(met.items())) or "none"
