"""Plans of rows and of groups, and flat arrays, to kernel calls."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .._layout import GroupPlan, RowPlan
from . import config, rows
from .arrays import DeviceArray

# from .columns import column_sums
from .devices import properties
from .form import SLOTS, Form

# from .launch_runs import instance_running, long_group_backward, long_group_forward
from .layouts import dense, vector, zeros
from .run import launch

INT64 = np.dtype(np.int64)


def _form(
    rule: config.Rule,
    plan: RowPlan | GroupPlan,
    like: DeviceArray,
    tensors: Sequence[DeviceArray | None],
    parameters: Sequence[DeviceArray | None],
    activation: str | None,
    columns: bool = False,
    residual: bool = False,
) -> Form:
    """The form for the rows of these tensors."""
    places, beside = (
        tuple([a.address % config.ACCESS_BYTES for a in arrays if a is not None])
        for arrays in (tensors, parameters)
    )
    return _placed(
        rule, plan.cols, like.itemsize, places, beside, plan.centred, columns, activation, residual
    )


@lru_cache(maxsize=1024)
def _placed(
    rule: config.Rule,
    cols: int,
    itemsize: int,
    places: Sequence[int],
    beside: Sequence[int],
    centred: bool,
    columns: bool,
    activation: str | None,
    residual: bool,
) -> Form:
    lanes, edges = config.lanes(itemsize, cols, places, beside, columns)
    form = Form(edges=edges, centred=centred, columns=columns, activation=activation)
    return config.row_form(cols, itemsize, lanes, rule, form, residual)


def _exchange(form: Form, blocks: int, like: DeviceArray) -> tuple[DeviceArray | None, DeviceArray | None]:
    """What the blocks of a team meet through; None for teams of one."""
    if form.blocks == 1:
        return None, None
    return vector(2 * SLOTS * blocks, like), zeros(blocks, like, INT64)


def _flat(parameter: DeviceArray | None, like: DeviceArray) -> DeviceArray | None:
    return None if parameter is None else dense(parameter, like)


def _statistics(count: int, like: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
    """Room for mean and rstd."""
    both = vector(2 * count, like)
    return both.part(0, count), both.part(count, count)


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
) -> tuple[DeviceArray, DeviceArray]:
    """Write y, and x + residual to total, where they are wanted; mean and rstd."""
    n = plan.cols
    weight, bias = _flat(weight, x), _flat(bias, x)
    mean, rstd = _statistics(plan.rows, x)
    form = _form(
        config.FORWARD, plan, x, (x, residual, total, y), (weight, bias), activation,
        residual=residual is not None,
    )  # fmt: skip
    blocks = config.row_grid(plan.rows, plan.cols, form, properties(x.device))
    launch(
        rows.forward, form, blocks, x,
        x, residual, plan.rows, n, weight, bias, None, 0, None, float(n), eps, total, y, mean, rstd, None,
        *_exchange(form, blocks, x),
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
    w, b = _flat(weight, dy), None if activation is None else _flat(bias, dy)
    form = _form(
        config.BACKWARD, plan, dy, (dy, x, dsum, dx), (w, b), activation,
        bool(wanted), dsum is not None,
    )  # fmt: skip
    blocks = config.row_grid(plan.rows, plan.cols, form, properties(dy.device))
    teams = blocks // form.blocks * form.teams
    partials = vector((2 if plan.centred else 1) * teams * n, dy) if wanted else None
    launch(
        rows.backward, form, blocks, dy,
        dy, x, plan.rows, n, w, b, None, 0, None, float(n), mean, rstd, dsum, dx, partials, None,
        *_exchange(form, blocks, dy),
    )  # fmt: skip
    dweight, dbias = (None if p is None else vector(n, dy, p.dtype) for p in (weight, bias))
    if partials is not None:
        column_sums(partials, teams, n, dweight, dbias)
    return dweight, dbias


def group_forward(
    plan: GroupPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    running: Sequence[DeviceArray] = (),
    factor: float = 0.0,
) -> tuple[DeviceArray, DeviceArray]:
    """Write y, and move running statistics of instances by `factor`; mean and rstd of every row."""
    n = plan.cols
    weight, bias = _flat(weight, x), _flat(bias, x)
    var = vector(plan.rows, x) if running else None
    form = _form(config.GROUPS_FORWARD, plan, x, (x, y), (), activation)
    if n > config.longest(form, properties(x.device)):
        mean, rstd = long_group_forward(plan, x, weight, bias, eps, y, activation, var)
    else:
        mean, rstd = _statistics(plan.rows, x)
        blocks = config.row_grid(plan.rows, plan.cols, form, properties(x.device))
        launch(
            rows.forward, form, blocks, x,
            x, None, plan.rows, n, weight, bias, plan.groups, plan.channels, config.magic(plan.inner),
            float(plan.divisor), eps, None, y, mean, rstd, var, *_exchange(form, blocks, x),
        )  # fmt: skip
    if var is not None:
        instance_running(mean, var, running, factor, plan.samples, plan.groups, n)
    return mean, rstd


def group_backward(
    plan: GroupPlan,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    dx: DeviceArray,
    threads: int | None,
    activation: str | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx; dweight and dbias of every channel in the dtypes of weight and bias."""
    n = plan.cols
    w, b = _flat(weight, dy), None if activation is None else _flat(bias, dy)
    form = _form(config.BACKWARD, plan, dy, (dy, x, dx), (), activation)
    if plan.channels > 1 or n > config.longest(form, properties(dy.device)):
        return long_group_backward(plan, dy, x, mean, rstd, weight, bias, dx, activation)
    blocks = config.row_grid(plan.rows, plan.cols, form, properties(dy.device))
    dots = vector(2 * plan.rows, dy)
    launch(
        rows.backward, form, blocks, dy,
        dy, x, plan.rows, n, w, b, plan.groups, 1, config.magic(n), float(plan.divisor), mean, rstd, None, dx,
        None, dots, *_exchange(form, blocks, dy),
    )  # fmt: skip
    dweight, dbias = (None if p is None else vector(plan.groups, dy, p.dtype) for p in (weight, bias))
    column_sums(dots, plan.samples, plan.groups, dweight, dbias)
    return dweight, dbias
