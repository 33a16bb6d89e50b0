"""The kernels, what they are compiled for, and the forms that launch rules choose.

A new kernel is one entry of `families`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import config, walks
from .config import BACKWARD, FORWARD, GROUPS, GROUPS_BACKWARD, WARP, Rule
from .form import Form
from .jit import Kernel
from .offline import DEVICES

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
    """Their dtype, where it is not that of tensors; only where it is wider."""
    renorm: bool = False
    unread: tuple[str, ...] = ()
    """Tensors that are given and on which nothing depends."""

    def form(self, edges: bool) -> Form:
        return Form(edges=edges, centred=self.centred, renorm=self.renorm, activation=self.activation)


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


def row_forms(itemsize: int, rule: Rule, mode: Mode, columns: bool = False) -> tuple[Form, ...]:
    """The forms of rows up to LONGEST, whatever their alignment."""

    def forms() -> Iterator[Form]:
        for cols in _lengths():
            for places in _places(itemsize):
                count, edges = config.lanes(itemsize, cols, places, columns=columns)
                yield config.row_form(cols, itemsize, count, rule, mode.form(edges), mode.residual)

    return _those_that_need_most(forms())


def run_forms(itemsize: int, rule: Rule, mode: Mode) -> tuple[Form, ...]:
    """The forms of several runs, up to LONGEST elements, that a team holds; whatever their alignment."""

    def forms() -> Iterator[Form]:
        for inner in (1, 7, 49, 64, 196, 784, 3136):
            for runs in (n for n in _lengths() if n * inner <= LONGEST):
                for places in _places(itemsize):
                    count, edges = config.run_lanes(itemsize, inner, places)
                    form = mode.form(edges)
                    form = config.run_form(runs, inner, itemsize, count, rule, form, mode.residual)
                    if all(config.together(form, device) for device in DEVICES.values()):
                        yield form

    return _those_that_need_most(forms())


def piece_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of pieces of runs: of several samples where the mode has a depth, else of one."""
    many, deep = 1 << 20, "depth" not in mode.absent

    def forms() -> Iterator[Form]:
        for inner in _lengths():
            for places in _places(itemsize):
                count, edges = config.lanes(itemsize, inner, places)
                form = replace(mode.form(edges), lanes=count)
                pieces = config.run_pieces(many, many, inner, itemsize, form, 1, deep)
                if deep == (pieces.depth > 1):
                    yield pieces.form

    return _those_that_need_most(forms())


def merging_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of teams that merge partial results, of which the dtype of tensors knows nothing."""
    return _those_that_need_most(config.merging_form(n) for n in _lengths())


def walk_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of local response normalization."""
    return _those_that_need_most(
        walks.walk_form(itemsize, inner, places, walks.WALK)
        for inner in range(1, 64)
        for places in _places(itemsize)
    )


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
    from .column_families import of_columns, of_strips
    from .layouts import ELEMENTWISE

    return [
        *_of_rows(),
        *_of_resident_runs(),
        *_of_pieces(),
        *of_columns(),
        *of_strips(),
        *_of_windows(),
        *_copies(ELEMENTWISE),
    ]


def _of_rows() -> list[Family]:
    from . import rows

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
    ]


def _of_resident_runs() -> list[Family]:
    from . import channels, groups

    renorm = ("r", "d")
    return [
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
                "renorm": Mode(("residual",), renorm=True),
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
    ]


def _of_pieces() -> list[Family]:
    from . import runs

    renorm, running = ("r", "d"), ("running_mean", "running_var")
    operands = ("residual", "bias", "dresidual")
    return [
        Family(runs.moments, piece_forms, {"": Mode(("depth",)), "deep": Mode()}, first=("x",)),
        Family(
            runs.merged,
            merging_forms,
            {
                "": Mode(("var", *renorm)),
                "renorm": Mode(("var",)),
                "moments": Mode(("rstd", *running, *renorm)),
            },
        ),
        Family(
            runs.normalize,
            piece_forms,
            {
                "": Mode(("depth", "residual")),
                "deep": Mode(("residual",)),
                "deep, residual, relu": Mode(activation="relu"),
                "residual, gelu": Mode(("depth",), activation="gelu"),
                "renorm": Mode(("depth", "residual"), parameters="float64"),
            },
        ),
        Family(
            runs.dots,
            piece_forms,
            {
                "": Mode(("depth", *operands)),
                "deep": Mode(operands),
                "deep, residual, relu": Mode(activation="relu"),
                "residual, gelu": Mode(("depth",), activation="gelu"),
            },
        ),
        Family(
            runs.merged_dots,
            merging_forms,
            {
                "": Mode(renorm),
                "renorm": Mode(),
                "groups": Mode((*renorm, "dweight", "dbias")),
                "parameters of groups": Mode(("weight", "c1", "c2", *renorm)),
            },
        ),
        Family(
            runs.gradient,
            piece_forms,
            {
                "": Mode(("depth", "residual", "bias")),
                "deep": Mode(("residual", "bias")),
                "deep, residual, relu": Mode(activation="relu"),
                "residual, gelu": Mode(("depth",), activation="gelu"),
                "evaluation": Mode(("depth", "x", "residual", "bias", "c1", "c2")),
            },
        ),
        Family(runs.composed, lambda itemsize, mode: (Form(teams=4),), {"": Mode()}),
        Family(runs.running, merging_forms, {"": Mode()}),
    ]


def _of_windows() -> list[Family]:
    from . import local_response

    kernels = local_response.forward, local_response.terms, local_response.gradient
    return [Family(k, walk_forms, {"": Mode()}) for k in kernels]


def _copies(form: Form) -> list[Family]:
    from . import copies

    return [
        Family(k, lambda itemsize, mode: (form,), {"": Mode()}, by_vector=False)
        for k in (copies.strided, copies.given)
    ]
