"""Plans of channels to the kernels that suit them.

A team has a channel in its registers where the device has room for it; else channels are read twice, in
pieces of runs. What becomes of channels side by side, as of (N, C), `launch_columns` says.
"""

from collections.abc import Sequence
from types import ModuleType

from .._layout import ChannelPlan
from . import channels, config, copies, launch_columns, launch_runs
from .arrays import DeviceArray
from .devices import properties
from .form import ACCESS_BYTES, Form
from .layouts import ELEMENTWISE, dense, dense_or_none, grid, meeting, moved, pair, vector
from .run import launch

Pair = tuple[DeviceArray, DeviceArray]


def _streaming(plan: ChannelPlan) -> ModuleType:
    return launch_columns if plan.inner == 1 else launch_runs


def _resident(
    plan: ChannelPlan,
    rule: config.Rule,
    like: DeviceArray,
    tensors: Sequence[DeviceArray | None],
    activation: str | None,
    renorm: bool = False,
) -> Form | None:
    """The form of teams that hold a channel; None where there are none."""
    if plan.inner == 1:
        return None
    places = tuple([a.address % ACCESS_BYTES for a in tensors if a is not None])
    return config.held_runs(
        plan.outer, plan.inner, like.itemsize, places, rule, properties(like.device), activation, True, renorm
    )


def _runs(plan: ChannelPlan, form: Form) -> tuple[int, int, int, int, int]:
    """The view of a plan that the resident kernels take."""
    per_run = config.vectors_of(plan.inner, form.lanes, form.edges)
    return plan.outer, plan.channels, plan.inner, per_run, config.magic(per_run)


def channel_forward(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    running: Sequence[DeviceArray],
    factor: float,
    limits: tuple[float, float] | None,
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> tuple[DeviceArray, DeviceArray, Pair | None]:
    """Write y, and move the running statistics by `factor`; mean and rstd of every channel, and r and d.

    limits: r_max and d_max of batch renormalization; None for none.
    """
    weight, bias = dense_or_none(weight, x), dense_or_none(bias, x)
    moving = [dense(statistic, x) for statistic in running]
    settings = eps, factor, *(limits or (1.0, 0.0))
    form = _resident(plan, config.GROUPS, x, (x, residual, y), activation, limits is not None)
    if form is None:
        mean, rstd, r, d = _streaming(plan).channel_forward(
            plan, x, weight, bias, settings, moving, y, threads, activation, residual
        )
        moved(running, moving, x)
        return mean, rstd, None if r is None else (r, d)
    mean, rstd = pair(plan.channels, x)
    renorm = None if limits is None else pair(plan.channels, x)
    blocks = config.row_grid(plan.channels, form, properties(x.device))
    launch(
        channels.forward, form, blocks, x,
        x, residual, *_runs(plan, form), weight, bias, *map(float, settings), y, mean, rstd,
        *(moving or (None, None)), *(renorm or (None, None)), *meeting(form, blocks, x),
    )  # fmt: skip
    moved(running, moving, x)
    return mean, rstd, renorm


def channel_backward(
    plan: ChannelPlan,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    renorm: Pair | None,
    training: bool,
    dx: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
    dresidual: DeviceArray | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx and dresidual; dweight and dbias in the dtypes of weight and bias, None where these are.

    In evaluation the statistics are constants. With r and d of batch renormalization
    y = (x_hat * r + d) * weight + bias.
    """
    weight, bias = dense_or_none(weight, dy), dense_or_none(bias, dy)
    tensors = dy, x, residual, dx, dresidual
    form = _resident(plan, config.GROUPS_BACKWARD, dy, tensors, activation) if training else None
    if form is None:
        sums: tuple[DeviceArray | None, DeviceArray | None] = _streaming(plan).channel_backward(
            plan, dy, x, mean, rstd, weight, bias, training, dx, threads, activation, residual, dresidual,
            renorm,
        )  # fmt: skip
        return sums
    dweight, dbias = (None if p is None else vector(plan.channels, dy, p.dtype) for p in (weight, bias))
    blocks = config.row_grid(plan.channels, form, properties(dy.device))
    launch(
        channels.backward, form, blocks, dy,
        dy, x, residual, *_runs(plan, form), weight, bias, *(renorm or (None, None)), mean, rstd, dx,
        dresidual, dweight, dbias, *meeting(form, blocks, dy),
    )  # fmt: skip
    return dweight, dbias


def channel_normalize(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    running: Sequence[DeviceArray],
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> Pair:
    """Write y with running statistics; mean and rstd of every channel."""
    like = running[0]
    mean, rstd = pair(like.size, like)
    if like.size:
        launch(
            copies.given, ELEMENTWISE, grid(like.size, like), like,
            *(dense_or_none(r, like) for r in running), like.size, eps, mean, rstd,
        )  # fmt: skip
    if x.size:
        weight, bias = dense_or_none(weight, x), dense_or_none(bias, x)
        normalize = _streaming(plan).channel_normalize
        normalize(plan, x, mean, rstd, weight, bias, y, threads, activation, residual)
    return mean, rstd


def channel_moments(plan: ChannelPlan, x: DeviceArray, threads: int | None) -> Pair:
    """mean and population variance of every channel."""
    found: Pair = _streaming(plan).channel_moments(plan, x, threads)
    return found
