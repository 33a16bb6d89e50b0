"""The kernels, and what they are compiled for.

A new kernel is one entry of `families`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .chosen import (
    Mode,
    long_forms,
    merging_forms,
    piece_forms,
    row_forms,
    run_forms,
    walk_forms,
)
from .config import BACKWARD, FORWARD, GROUPS, GROUPS_BACKWARD
from .form import Form
from .jit import Kernel


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


def families() -> list[Family]:
    """Every kernel."""
    from .column_families import of_columns, of_strips
    from .layouts import ELEMENTWISE

    return [
        *_of_rows(),
        *_of_long_rows(),
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

    def kept(itemsize: int, mode: Mode) -> tuple[Form, ...]:
        """Teams of several blocks always keep statistics."""
        found = row_forms(itemsize, FORWARD, mode)
        return tuple(f for f in found if f.blocks == 1 or "rstd" not in mode.absent)

    return [
        Family(
            rows.forward,
            kept,
            {
                "": Mode(operands),
                "residual": Mode(residual=True),
                "gelu": Mode(operands, activation="gelu"),
                "rms": Mode((*operands, "bias", "mean"), centred=False),
                "float32 parameters": Mode(operands, parameters="float32"),
                "nothing kept": Mode((*operands, "mean", "rstd")),
            },
            first=("x", "residual"),
            by_element=both,
        ),
        Family(
            rows.backward,
            lambda itemsize, mode: row_forms(itemsize, BACKWARD, mode),
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


def _of_long_rows() -> list[Family]:
    from . import long_rows

    both, gradients = ("weight", "bias"), ("dweight", "dbias")

    def summed(itemsize: int, mode: Mode) -> tuple[Form, ...]:
        """Where rows have edges gradients are made of sums, else they are written."""
        return tuple(f for f in long_forms(itemsize, mode) if f.edges == (mode.sums is not None))

    return [
        Family(
            long_rows.normalize,
            long_forms,
            {
                "": Mode(("residual",)),
                "residual": Mode(),
                "residual, gelu": Mode(activation="gelu"),
                "rms": Mode(("residual", "bias"), centred=False),
                "float32 parameters": Mode(("residual",), parameters="float32"),
            },
            by_element=both,
        ),
        Family(
            long_rows.dots,
            piece_forms,
            {
                "": Mode(("bias",)),
                "gelu": Mode(activation="gelu"),
                "rms": Mode(("bias",), centred=False),
                "float32 parameters": Mode(("bias",), parameters="float32"),
            },
            by_element=both,
        ),
        Family(
            long_rows.gradient,
            summed,
            {
                "": Mode(("bias", "dsum")),
                "residual, gelu": Mode(activation="gelu"),
                "rms": Mode(("bias", "dsum", "dbias"), centred=False),
                "float32 parameters": Mode(("bias", "dsum"), parameters="float32"),
                "sums": Mode(("bias", "dsum"), sums="float64"),
                "sums, residual, gelu": Mode(activation="gelu", sums="float64"),
            },
            by_element=(*both, *gradients),
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
                "no parameters": Mode(("weight", "bias", "partials")),
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
    operands, added = ("residual", "bias", "dresidual"), ("residual", "summed")
    return [
        Family(
            runs.moments,
            piece_forms,
            {
                "": Mode(("depth", *added)),
                "deep": Mode(added),
                "rows, residual": Mode(("depth",)),
                "rows, residual, not kept": Mode(("depth", "summed")),
                "rms": Mode(("depth", *added), centred=False),
                "rms, residual": Mode(("depth",), centred=False),
            },
            first=("x", "residual"),
        ),
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
                "": Mode(("depth", "dx", *operands)),
                "deep": Mode(("dx", *operands)),
                "deep, residual, relu": Mode(("dx",), activation="relu"),
                "residual, gelu": Mode(("depth", "dx"), activation="gelu"),
                "deep, evaluation": Mode(operands),
                "deep, evaluation, residual, gelu": Mode(activation="gelu"),
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
                "rows": Mode(("weight", *renorm, "dweight", "dbias")),
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
