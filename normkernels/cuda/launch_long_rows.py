"""Plans of rows that no team can hold to kernel calls."""

from collections.abc import Sequence

from .._layout import RowPlan
from . import config, long_rows
from .arrays import DeviceArray
from .form import Form
from .launch_columns import column_sums
from .launch_runs import Runs, launch_pieces, merged_dots, merged_moments
from .layouts import pair, vector
from .run import launch


def _of_rows(plan: RowPlan) -> Runs:
    return Runs(plan.rows, 1, plan.cols, 1, 1)


def _walk(
    plan: RowPlan,
    like: DeviceArray,
    tensors: Sequence[DeviceArray | None],
    parameters: Sequence[DeviceArray | None],
    activation: str | None,
) -> tuple[Form, int, int]:
    """Form, phases and blocks of a kernel that walks over these tensors."""
    places, beside = ([a.address for a in arrays if a is not None] for arrays in (tensors, parameters))
    lanes, edges = config.lanes(like.itemsize, plan.cols, places, beside)
    form = Form(edges=edges, centred=plan.centred, activation=activation)
    form = config.long_form(like.itemsize, lanes, form)
    phases = config.phases_of(plan.rows, plan.cols, form)
    return form, phases, config.long_grid(plan.cols, phases, form)


def row_forward(
    plan: RowPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    y: DeviceArray,
    activation: str | None,
    residual: DeviceArray | None,
    total: DeviceArray | None,
) -> tuple[DeviceArray, DeviceArray]:
    """Write y, and x + residual to total, where they are wanted; mean and rstd."""
    rstd = vector(plan.rows, x)
    mean = merged_moments(
        _of_rows(plan), x, (eps, 0.0, 1.0, 0.0), (), None, rstd,
        residual=residual, summed=total, centred=plan.centred,
    )  # fmt: skip
    h, residual = (x, residual) if total is None else (total, None)
    form, phases, blocks = _walk(plan, x, (h, residual, y), (weight, bias), activation)
    launch(
        long_rows.normalize, form, blocks, x,
        h, residual, plan.rows, plan.cols, phases, weight, bias, mean, rstd, y,
    )  # fmt: skip
    return mean, rstd


def row_backward(
    plan: RowPlan,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    dx: DeviceArray,
    activation: str | None,
    dsum: DeviceArray | None,
    dweight: DeviceArray | None,
    dbias: DeviceArray | None,
) -> None:
    """Write dx + dsum, dweight and dbias; bias: None where it is not needed."""
    view, sizes, parameters = _of_rows(plan), (plan.rows, plan.cols), (weight, bias, mean, rstd)
    pieces = view.pieces(dy, x, parameters=(weight, bias), activation=activation, centred=plan.centred)
    partials = vector(2 * pieces.number(plan.rows, 1), dy)
    launch_pieces(
        long_rows.dots, view, pieces, dy,
        dy, x, *sizes, pieces.width, pieces.tiles, *parameters, partials,
    )  # fmt: skip
    c1, c2 = pair(plan.rows, dy)
    merged_dots(view, pieces, partials, None, float(plan.cols), c1, c2, None, None, None, None)
    form, phases, blocks = _walk(plan, dy, (dy, x, dsum, dx), (weight, bias), activation)
    sums = [_sums(plan, form, phases, x, p) for p in (dweight, dbias)]
    launch(
        long_rows.gradient, form, blocks, dy,
        dy, x, *sizes, phases, *parameters, c1, c2, dsum, dx, *sums,
    )  # fmt: skip
    for parameter, made in zip((dweight, dbias), sums, strict=True):
        if made is not None and made is not parameter:
            column_sums(made, phases, plan.cols, parameter, None)


def _sums(
    plan: RowPlan, form: Form, phases: int, x: DeviceArray, parameter: DeviceArray | None
) -> DeviceArray | None:
    """What becomes the gradient of a parameter: it; with edges sums of each phase, which begin as x does."""
    if parameter is None or not form.edges:
        return parameter
    lead, size = x.address // x.itemsize % form.lanes, phases * plan.cols
    return vector(lead + size, parameter).part(lead, size)
