"""The forms that launch rules choose for what a kernel computes, whatever the alignment."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from . import config, strip_rules, walks
from .config import Rule
from .form import ACCESS_BYTES, WARP, Form
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
    sums: str | None = None
    """That of the sums that their gradients are made of, where these are not written at once."""
    renorm: bool = False
    unread: tuple[str, ...] = ()
    """Tensors that are given and on which nothing depends."""

    def form(self, edges: bool) -> Form:
        return Form(edges=edges, centred=self.centred, renorm=self.renorm, activation=self.activation)


def row_forms(itemsize: int, rule: Rule, mode: Mode) -> tuple[Form, ...]:
    """The forms of rows up to LONGEST, whatever their alignment."""

    def forms() -> Iterator[Form]:
        for cols in _lengths():
            for places in _places(itemsize):
                count, edges = config.lanes(itemsize, cols, places)
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


def long_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of kernels that walk over rows which no team can hold."""

    def forms() -> Iterator[Form]:
        for cols in range(1, 64):
            for places in _places(itemsize):
                count, edges = config.lanes(itemsize, cols, places)
                yield config.long_form(itemsize, count, mode.form(edges))

    return _those_that_need_most(forms())


def merging_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of teams that merge partial results, of which the dtype of tensors knows nothing."""
    return _those_that_need_most(config.merging_form(n) for n in _lengths())


def column_forms(itemsize: int, mode: Mode, *tensors: str) -> tuple[Form, ...]:
    """The forms of kernels over columns that meet these tensors, where they are given."""
    met = [name for name in tensors if name not in mode.absent]
    rule = config.column_rule(len(met), mode.activation)

    def forms() -> Iterator[Form]:
        for size in range(1, 64):
            for places in _places(itemsize):
                form, _ = config.column_form(itemsize, size, places, rule)
                yield replace(form, activation=mode.activation)

    return _those_that_need_most(forms())


def walk_forms(itemsize: int, mode: Mode) -> tuple[Form, ...]:
    """The forms of local response normalization."""
    return _those_that_need_most(
        walks.walk_form(itemsize, inner, places, walks.WALK)
        for inner in range(1, 64)
        for places in _places(itemsize)
    )


def strip_forms(itemsize: int, mode: Mode, backward: bool) -> tuple[Form, ...]:
    """The forms of teams that hold strips of columns, of one block and of several."""
    rules = strip_rules.strip_rules(backward, mode.residual or mode.activation is not None)
    channels, form = 64 * ACCESS_BYTES, mode.form(False)

    def forms() -> Iterator[Form]:
        for rows in _lengths():
            for device in DEVICES.values():
                found = strip_rules.strip_form(rows, channels, itemsize, (), rules, device, form)
                if found is not None:
                    yield found[0]

    return _those_that_need_most(forms())


def without_edges(forms: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(form for form in forms if not form.edges)


def _places(itemsize: int) -> tuple[tuple[int, ...], ...]:
    """Where two tensors begin within 16 bytes: both at the start, both elsewhere, each somewhere."""
    return (0, 0), (itemsize, itemsize), (0, itemsize)


def _those_that_need_most(forms: Iterator[Form]) -> tuple[Form, ...]:
    """Of forms that take the same paths in a kernel the one with most elements and fewest registers."""
    kept: dict[Any, Form] = {}
    for form in forms:
        key = (form.lanes, form.edges, form.bounds, 2 if form.blocks > 1 else form.threads > WARP)
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
