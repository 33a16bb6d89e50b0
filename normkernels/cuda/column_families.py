"""As `families`, of the kernels over columns."""

from collections.abc import Iterator
from dataclasses import replace

from . import columns, config, strip_rules, strips
from .families import Family, Mode, _lengths, _places, _those_that_need_most
from .form import Form
from .offline import DEVICES


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


def strip_forms(itemsize: int, mode: Mode, backward: bool) -> tuple[Form, ...]:
    """The forms of teams that hold strips of columns, of one block and of several."""
    rules = strip_rules.strip_rules(backward, mode.residual or mode.activation is not None)
    channels, form = 64 * config.ACCESS_BYTES, mode.form(False)

    def forms() -> Iterator[Form]:
        for rows in _lengths():
            for device in DEVICES.values():
                found = strip_rules.strip_form(rows, channels, itemsize, (), rules, device, form)
                if found is not None:
                    yield found[0]

    return _those_that_need_most(forms())


def of_columns() -> list[Family]:
    renorm, finish = ("r", "d"), Form(threads=config.FINISH.threads, resident=config.FINISH.resident)
    return [
        Family(
            columns.moments,
            # Vectors that are not whole are left to finish_moments.
            lambda itemsize, mode: _without_edges(column_forms(itemsize, mode, "x")),
            {"": Mode()},
        ),
        Family(
            columns.finish_moments,
            lambda itemsize, mode: (finish,),
            {
                "": Mode(("var", *renorm)),
                "renorm": Mode(("var",)),
                "moments": Mode(("rstd", "running_mean", "running_var", *renorm)),
            },
            by_vector=False,  # x is read where it is in no whole vector
        ),
        Family(
            columns.normalize,
            lambda itemsize, mode: column_forms(itemsize, mode, "x", "y", "residual"),
            {
                "": Mode(("residual", *renorm)),
                "residual": Mode(renorm),
                "residual, gelu": Mode(renorm, activation="gelu"),
                "renorm": Mode(("residual",)),
                "float32 parameters": Mode(("residual", *renorm), parameters="float32"),
            },
        ),
        Family(
            columns.dots,
            lambda itemsize, mode: column_forms(itemsize, mode, "x", "dy", "residual", "dresidual"),
            {
                "": Mode(("residual", "dresidual", *renorm)),
                "residual, relu": Mode(renorm, activation="relu"),
                "residual, gelu": Mode(renorm, activation="gelu"),
                "renorm": Mode(("residual", "dresidual")),
            },
        ),
        Family(
            columns.finish_sums,
            lambda itemsize, mode: (finish,),
            {
                "": Mode(renorm),
                "renorm": Mode(),
                "rows": Mode(("sums", *renorm)),
                "one sum": Mode(("plane", "sums", "b", *renorm)),
            },
        ),
        Family(
            columns.gradient,
            lambda itemsize, mode: column_forms(itemsize, mode, "x", "dy", "residual", "dx"),
            {
                "": Mode(("residual", *renorm)),
                "residual, relu": Mode(renorm, activation="relu"),
                "residual, gelu": Mode(renorm, activation="gelu"),
                "renorm": Mode(("residual",)),
                "evaluation": Mode(("residual", "sums", *renorm), unread=("x",)),
            },
        ),
    ]


def of_strips() -> list[Family]:
    renorm, operands = ("r", "d"), ("residual", "dresidual")
    return [
        Family(
            strips.forward,
            lambda itemsize, mode: strip_forms(itemsize, mode, False),
            {
                "": Mode(("residual", *renorm)),
                "residual": Mode(renorm, residual=True),
                "residual, gelu": Mode(renorm, activation="gelu", residual=True),
                "renorm": Mode(("residual",), renorm=True),
                "float32 parameters": Mode(("residual", *renorm), parameters="float32"),
            },
        ),
        Family(
            strips.backward,
            lambda itemsize, mode: strip_forms(itemsize, mode, True),
            {
                "": Mode((*operands, *renorm)),
                "residual": Mode(("residual", *renorm), residual=True),
                "residual, relu": Mode(renorm, activation="relu", residual=True),
                "residual, gelu": Mode(renorm, activation="gelu", residual=True),
                "renorm": Mode(operands),
            },
        ),
    ]


def _without_edges(forms: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple(form for form in forms if not form.edges)
