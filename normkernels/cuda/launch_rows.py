"""Plans of rows and flat arrays to kernel calls."""

from collections.abc import Sequence
from functools import lru_cache

from .._layout import RowPlan
from . import config, launch_long_rows, rows
from .arrays import DeviceArray
from .devices import properties
from .form import ACCESS_BYTES, Form
from .launch_columns import column_sums
from .layouts import dense_or_none, meeting, pair, vector
from .run import launch


def _form(
    rule: config.Rule,
    plan: RowPlan,
    like: DeviceArray,
    tensors: Sequence[DeviceArray | None],
    parameters: Sequence[DeviceArray | None],
    activation: str | None,
    residual: bool,
) -> Form:
    """The form for the rows of these tensors."""
    places, beside = (
        tuple([a.address % ACCESS_BYTES for a in arrays if a is not None]) for arrays in (tensors, parameters)
    )
    return _placed(rule, plan.cols, like.itemsize, places, beside, plan.centred, activation, residual)


@lru_cache(maxsize=1024)
def _placed(
    rule: config.Rule,
    cols: int,
    itemsize: int,
    places: Sequence[int],
    beside: Sequence[int],
    centred: bool,
    activation: str | None,
    residual: bool,
) -> Form:
    lanes, edges = config.lanes(itemsize, cols, places, beside)
    form = Form(edges=edges, centred=centred, activation=activation)
    return config.row_form(cols, itemsize, lanes, rule, form, residual)


def row_forward(
    plan: RowPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
    total: DeviceArray | None = None,
    keep: bool = True,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write y, and x + residual to total, where they are wanted; mean and rstd, where they are to be kept."""
    weight, bias = dense_or_none(weight, x), dense_or_none(bias, x)
    tensors, fused = (x, residual, total, y), residual is not None
    form = _form(config.FORWARD, plan, x, tensors, (weight, bias), activation, fused)
    device = properties(x.device)
    if not config.together(form, device):
        return launch_long_rows.row_forward(plan, x, weight, bias, eps, y, activation, residual, total)
    # Room for them takes 3 of the 18 µs of a small call (measured with a driver that does nothing).
    mean, rstd = pair(plan.rows, x) if keep or form.blocks > 1 else (None, None)
    blocks = config.row_grid(plan.rows, form, device)
    launch(
        rows.forward, form, blocks, x,
        x, residual, plan.rows, plan.cols, weight, bias, eps, total, y, mean, rstd, *meeting(form, blocks, x),
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
    threads: int | None,
    activation: str | None = None,
    dsum: DeviceArray | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx + dsum; dweight and dbias in the dtypes of weight and bias, None where these are."""
    n, wanted = plan.cols, [p for p in (weight, bias) if p is not None]
    w, b = dense_or_none(weight, dy), None if activation is None else dense_or_none(bias, dy)
    form = _form(config.BACKWARD, plan, dy, (dy, x, dsum, dx), (w, b), activation, dsum is not None)
    device = properties(dy.device)
    dweight, dbias = (None if p is None else vector(n, dy, p.dtype) for p in (weight, bias))
    blocks = config.sweep_grid(plan.rows, n, form, device) if config.together(form, device) else 0
    if not blocks:
        launch_long_rows.row_backward(plan, dy, x, mean, rstd, w, b, dx, activation, dsum, dweight, dbias)
        return dweight, dbias
    teams = blocks // form.blocks * form.teams
    partials = vector((2 if plan.centred else 1) * teams * n, dy) if wanted else None
    launch(
        rows.backward, form, blocks, dy,
        dy, x, plan.rows, n, w, b, mean, rstd, dsum, dx, partials, *meeting(form, blocks, dy),
    )  # fmt: skip
    if partials is not None:
        column_sums(partials, teams, n, dweight, dbias)
    return dweight, dbias
