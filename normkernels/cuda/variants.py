"""The variants of kernels that launch rules choose, and what their machine code has to keep to.

A new kernel is one entry of FAMILIES.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .config import (
    ACCESS_BYTES,
    BACKWARD,
    FORWARD,
    GROUPS,
    GROUPS_BACKWARD,
    WARP,
    Rule,
    lanes,
    row_form,
    run_form,
    run_lanes,
    together,
)
from .devices import DeviceProperties
from .form import Form
from .jit import Kernel
from .offline import DEVICES, Resources, occupancy

# As kernels see the memory of each dtype (run.storage).
STORAGE = {"float32": "float32", "float64": "float64", "float16": "uint16", "bfloat16": "int16"}
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
DTYPES = tuple(STORAGE)

# What the arguments of kernels are, by their names, which mean the same in all of them.
KINDS = {
    "tensor": ("x", "dy", "y", "dx", "residual", "dresidual", "summed", "dsum"),
    "parameter": ("weight", "bias", "dweight", "dbias", "running_mean", "running_var"),
    "statistic": ("mean", "rstd", "var", "r", "d", "partials", "exchange"),
    "flags": ("flags",),
    "count": (
        "rows", "cols", "groups", "outer", "channels", "inner", "per_run", "magic", "count", "at_x", "at_y",
        "n1", "n2", "n3", "x0", "x1", "x2", "x3", "y0", "y1", "y2", "y3",
    ),
    "number": ("divisor", "eps", "factor", "r_max", "d_max"),
}  # fmt: skip
KIND = {name: kind for kind, names in KINDS.items() for name in names}

# What several blocks of a team meet through.
BETWEEN_BLOCKS = ("exchange", "flags")

LONGEST = 300_000


@dataclass(frozen=True)
class Mode:
    """What is computed: which arguments are None, and what else the form says."""

    absent: tuple[str, ...] = ()
    centred: bool = True
    activation: str | None = None
    residual: bool = False
    """Whether there is a tensor more than the norm itself needs, which launch rules ask for."""
    parameters: str | None = None
    """Their dtype, where it is not that of tensors; only with half types."""

    def form(self, edges: bool) -> Form:
        return Form(edges=edges, centred=self.centred, activation=self.activation)


@dataclass(frozen=True)
class Family:
    """A kernel, its modes, "" the plain one, and the forms that rules choose by the size of an element."""

    kernel: Kernel
    forms: Callable[[int, Mode], tuple[Form, ...]]
    modes: dict[str, Mode]
    first: tuple[str, ...] = ()
    """Tensors of which up to four elements are read one by one, for a pivot."""
    by_element: tuple[str, ...] = ()
    """Parameters that are met as tensors are."""
    by_vector: bool = True
    """False: the kernel meets its tensors element by element."""


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
        parts = [self.family.kernel.name, self.mode, self.dtype, shape, "edges" if f.edges else ""]
        return "-".join(part for part in parts if part)

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


def row_forms(itemsize: int, rule: Rule, mode: Mode, columns: bool = False) -> tuple[Form, ...]:
    """The forms of rows up to LONGEST, whatever their alignment."""

    def forms() -> Iterator[Form]:
        for cols in _lengths():
            for places in _places(itemsize):
                count, edges = lanes(itemsize, cols, places, columns=columns)
                yield row_form(cols, itemsize, count, rule, mode.form(edges), mode.residual)

    return _those_that_need_most(forms())


def run_forms(itemsize: int, rule: Rule, mode: Mode) -> tuple[Form, ...]:
    """The forms of several runs, up to LONGEST elements, that a team holds; whatever their alignment."""

    def forms() -> Iterator[Form]:
        for inner in (1, 7, 49, 64, 196, 784, 3136):
            for runs in (n for n in _lengths() if n * inner <= LONGEST):
                for places in _places(itemsize):
                    count, edges = run_lanes(itemsize, inner, places)
                    form = run_form(runs, inner, itemsize, count, rule, mode.form(edges), mode.residual)
                    if all(together(form, device) for device in DEVICES.values()):
                        yield form

    return _those_that_need_most(forms())


def _places(itemsize: int) -> tuple[tuple[int, ...], ...]:
    """Where two tensors begin within 16 bytes: both at the start, both elsewhere, each somewhere."""
    return (0, 0), (itemsize, itemsize), (0, itemsize)


def _those_that_need_most(forms: Iterator[Form]) -> tuple[Form, ...]:
    """Of forms that take the same paths in a kernel the one with most elements and fewest registers."""
    kept: dict[Any, Form] = {}
    for form in forms:
        key = (form.lanes, form.edges, 2 if form.blocks > 1 else form.threads > WARP)
        kept[key] = max(kept.get(key, form), form, key=_demand)
    return tuple(kept.values())


def _demand(form: Form) -> tuple[int, ...]:
    return form.vectors, form.block * form.resident, -form.blocks, form.threads


def _lengths() -> Iterator[int]:
    """Lengths of rows that meet every form: about each power of two, whether divisible or not."""
    size = 1
    while size <= LONGEST:
        yield from (n for n in range(max(1, size - 9), min(size, LONGEST) + 1))
        size *= 2
    yield LONGEST


def families() -> list[Family]:
    """Every kernel."""
    from . import channels, copies, groups, rows
    from .layouts import ELEMENTWISE

    renorm = ("r", "d")
    both, operands = ("weight", "bias"), ("residual", "summed")
    return [
        Family(
            rows.forward,
            lambda itemsize, mode: row_forms(itemsize, FORWARD, mode),
            {
                "": Mode(operands),
                "residual": Mode(residual=True),
                "gelu": Mode(operands, activation="gelu"),
                "rms": Mode((*operands, "bias", "mean"), centred=False),
                "float32 parameters": Mode(operands, parameters="float32"),
            },
            first=("x", "residual"),
            by_element=both,
        ),
        Family(
            rows.backward,
            lambda itemsize, mode: row_forms(itemsize, BACKWARD, mode, columns=True),
            {
                "": Mode(("bias", "dsum")),
                "residual": Mode(("bias",), residual=True),
                "gelu": Mode(("dsum",), activation="gelu"),
                "rms": Mode(("bias", "dsum"), centred=False),
                "float32 parameters": Mode(("bias", "dsum"), parameters="float32"),
            },
            by_element=both,
        ),
        Family(
            groups.forward,
            lambda itemsize, mode: run_forms(itemsize, GROUPS, mode),
            {
                "": Mode(("var",)),
                "gelu": Mode(("var",), activation="gelu"),
                "weight norm": Mode(("bias", "var"), centred=False),
            },
            first=("x",),
        ),
        Family(
            groups.backward,
            lambda itemsize, mode: run_forms(itemsize, GROUPS_BACKWARD, mode),
            {
                "": Mode(("bias",)),
                "gelu": Mode(activation="gelu"),
                "weight norm": Mode(("bias",), centred=False),
            },
        ),
        Family(
            channels.forward,
            lambda itemsize, mode: run_forms(itemsize, GROUPS, mode),
            {
                "": Mode(("residual", *renorm)),
                "residual, relu": Mode(renorm, activation="relu"),
                "renorm": Mode(("residual",)),
            },
            first=("x",),
        ),
        Family(
            channels.backward,
            lambda itemsize, mode: run_forms(itemsize, GROUPS_BACKWARD, mode),
            {
                "": Mode(("bias", "residual", "dresidual", *renorm)),
                "residual, relu": Mode(renorm, activation="relu", residual=True),
                "renorm": Mode(("bias", "residual", "dresidual")),
            },
        ),
        *(
            Family(k, lambda itemsize, mode: (ELEMENTWISE,), {"": Mode()}, by_vector=False)
            for k in (copies.strided, copies.given)
        ),
    ]


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
    form, family, wrong = variant.form, variant.family, []
    for name in variant.given if family.by_vector else ():
        if not (KIND[name] == "tensor" or (name in family.by_element and not form.edges)):
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
