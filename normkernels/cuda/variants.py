"""The variants of kernels that launch rules choose, and what their machine code has to keep to."""

from dataclasses import dataclass, field
from typing import Any

from .devices import DeviceProperties
from .families import Family, families
from .form import ACCESS_BYTES, Form
from .offline import Resources, occupancy

# As kernels see the memory of each dtype (run.storage).
STORAGE = {"float32": "float32", "float64": "float64", "float16": "uint16", "bfloat16": "int16"}
BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
DTYPES = tuple(STORAGE)

# What the arguments of kernels are, by their names, which mean the same in all of them.
KINDS = {
    "tensor": ("x", "dy", "y", "dx", "residual", "dresidual", "summed", "dsum"),
    "intermediate": ("g", "t"),
    "parameter": ("weight", "bias", "dweight", "dbias", "running_mean", "running_var", "a", "b"),
    "statistic": (
        "mean", "rstd", "var", "r", "d", "c1", "c2", "sums", "composed_weight", "composed_bias", "partials",
        "exchange",
    ),
    "flags": ("flags",),
    "count": (
        "rows", "cols", "groups", "outer", "channels", "inner", "per_run", "magic", "count", "at_x", "at_y",
        "n1", "n2", "n3", "x0", "x1", "x2", "x3", "y0", "y1", "y2", "y3",
        "width", "tiles", "depth", "apart", "per_group", "statistics", "stretch", "spans", "pieces",
        "samples", "start", "total", "strips", "across", "slots", "length", "plane", "size", "begin", "over",
        "before", "after", "phases", "parts",
    ),
    "number": (
        "divisor", "eps", "factor", "r_max", "d_max", "unbiased", "scale", "k", "beta", "slope",
    ),
}  # fmt: skip
KIND = {name: kind for kind, names in KINDS.items() for name in names}

# What several blocks of a team meet through.
BETWEEN_BLOCKS = ("exchange", "flags")


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

    @property
    def met(self) -> list[str]:
        """The arguments of which vectors are read or written, as wide as alignment allows."""
        family = self.family
        by_vector = (
            {n for n in self.given if KIND[n] in ("tensor", "intermediate")} if family.by_vector else set()
        )
        parameters = set() if self.form.edges else set(family.by_element)
        return [n for n in self.given if n in (by_vector | parameters) - set(family.modes[self.mode].unread)]

    def dtype_of(self, name: str) -> str:
        """The dtype of a tensor or a parameter."""
        if KIND[name] == "intermediate":
            return "float64" if self.dtype == "float64" else "float32"
        mode = self.family.modes[self.mode]
        if name in ("dweight", "dbias") and mode.sums is not None:
            return mode.sums
        own = mode.parameters if KIND[name] == "parameter" else None
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


def variants(dtypes: tuple[str, ...] = DTYPES) -> list[Variant]:
    """Every kernel, dtype and form; what is fused and the like in the largest ones only."""
    found = []
    for family in families():
        for dtype in dtypes:
            for name, mode in family.modes.items():
                if mode.parameters is None or BYTES[mode.parameters] > BYTES[dtype]:
                    forms = family.forms(BYTES[dtype], mode)
                    found += [Variant(family, dtype, f, name) for f in (_largest(forms) if name else forms)]
    return found


def _largest(forms: tuple[Form, ...]) -> list[Form]:
    """The largest forms, of one block and of several: with 16 bytes at a time, with less, and with edges."""
    widest = max(f.lanes for f in forms)
    kinds = {
        (f.blocks > 1, "edges" if f.edges else f.lanes == widest): f
        for f in sorted(forms, key=lambda f: f.capacity)
    }
    return list(kinds.values())


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
    form, wrong = variant.form, []
    for name in variant.met:
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
        if narrower != few or sum(few.values()) > (4 if name in variant.family.first else 0):
            wrong.append(f"{name} must be met {wide} bytes at a time only, got {_sizes(met)}")
    for stores, machine in ((False, found.loads), (True, found.stores)):
        asked = sum(n for a, n in found.accesses.items() if a.stores == stores and a.bytes == ACCESS_BYTES)
        if machine[ACCESS_BYTES] < asked:
            kind = "stores" if stores else "loads"
            wrong.append(f"{asked} {kind} of {ACCESS_BYTES} bytes must be kept, got {machine[ACCESS_BYTES]}")
    return wrong


def _sizes(met: dict[Any, int]) -> str:
    return ", ".join(f"{n} × {a.bytes}" for a, n in sorted(met.items())) or "none"
