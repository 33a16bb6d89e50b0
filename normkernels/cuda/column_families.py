"""As `families`, of the kernels over columns."""

from . import columns, config, strips
from .chosen import Mode, column_forms, strip_forms, without_edges
from .families import Family
from .form import Form


def of_columns() -> list[Family]:
    renorm, finish = ("r", "d"), Form(threads=config.FINISH.threads, resident=config.FINISH.resident)
    return [
        Family(
            columns.moments,
            # Vectors that are not whole are left to finish_moments.
            lambda itemsize, mode: without_edges(column_forms(itemsize, mode, "x")),
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
            lambda itemsize, mode: column_forms(itemsize, mode, "x", "dy", "residual", "dresidual", "dx"),
            {
                "": Mode(("residual", "dresidual", "dx", *renorm)),
                "residual, relu": Mode(("dx", *renorm), activation="relu"),
                "residual, gelu": Mode(("dx", *renorm), activation="gelu"),
                "renorm": Mode(("residual", "dresidual", "dx")),
                "evaluation": Mode(("residual", "dresidual", *renorm)),
                "evaluation, residual, gelu": Mode(renorm, activation="gelu"),
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
