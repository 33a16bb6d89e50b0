"""Plans of groups and flat arrays to kernel calls; groups that no team can hold are read twice."""

from collections.abc import Sequence

from .._layout import GroupPlan
from . import config, groups, launch_runs
from .arrays import DeviceArray
from .devices import properties
from .form import ACCESS_BYTES, Form
from .launch_columns import column_sums
from .layouts import dense, dense_or_none, meeting, moved, pair, vector
from .run import launch


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
    keep: bool = True,
) -> tuple[DeviceArray, DeviceArray]:
    """Write y, and move running statistics of instances by `factor`; mean and rstd, always kept."""
    weight, bias = dense_or_none(weight, x), dense_or_none(bias, x)
    var = vector(plan.rows, x) if running else None
    form = _resident(config.GROUPS, plan, x, (x, y), activation)
    if form is None:
        mean, rstd = launch_runs.group_forward(plan, x, weight, bias, eps, y, threads, activation, var)
    else:
        mean, rstd = pair(plan.rows, x)
        blocks = config.row_grid(plan.rows, form, properties(x.device))
        launch(
            groups.forward, form, blocks, x,
            x, plan.rows, plan.groups, *_runs(plan, form), float(plan.divisor), weight, bias, eps, y, mean,
            rstd, var, *meeting(form, blocks, x),
        )  # fmt: skip
    if var is not None:
        moving = [dense(statistic, x) for statistic in running]
        launch_runs.instance_running(mean, var, moving, factor, plan.samples, plan.groups, plan.cols)
        moved(running, moving, x)
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
    weight, bias = dense_or_none(weight, dy), dense_or_none(bias, dy)
    form = _resident(config.GROUPS_BACKWARD, plan, dy, (dy, x, dx), activation)
    if form is None:
        return launch_runs.group_backward(plan, dy, x, mean, rstd, weight, bias, dx, threads, activation)
    parts = config.group_parts(plan.samples, plan.groups, form, properties(dy.device))
    blocks = config.row_grid(parts * plan.groups, form, properties(dy.device))
    wanted = weight is not None or bias is not None
    partials = vector(2 * parts * form.blocks * plan.parameters, dy) if wanted else None
    launch(
        groups.backward, form, blocks, dy,
        dy, x, plan.samples, plan.groups, parts, *_runs(plan, form), float(plan.divisor), weight,
        None if activation is None else bias, mean, rstd, dx, partials, *meeting(form, blocks, dy),
    )  # fmt: skip
    dweight, dbias = (None if p is None else vector(plan.parameters, dy, p.dtype) for p in (weight, bias))
    if partials is not None:
        column_sums(partials, parts * form.blocks, plan.parameters, dweight, dbias)
    return dweight, dbias


def _resident(
    rule: config.Rule,
    plan: GroupPlan,
    like: DeviceArray,
    tensors: Sequence[DeviceArray],
    activation: str | None,
) -> Form | None:
    """The form of teams that hold a row; None where the device has no room for one."""
    places = tuple([a.address % ACCESS_BYTES for a in tensors])
    return config.held_runs(
        plan.channels, plan.inner, like.itemsize, places, rule, properties(like.device), activation,
        plan.centred,
    )  # fmt: skip


def _runs(plan: GroupPlan, form: Form) -> tuple[int, int, int, int]:
    """The view of a group that the resident kernels take."""
    per_run = config.vectors_of(plan.inner, form.lanes, form.edges)
    return plan.channels, plan.inner, per_run, config.magic(per_run)
