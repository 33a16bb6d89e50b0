"""Plans of channels whose elements lie one below the other, and flat arrays, to kernel calls."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .._layout import ChannelPlan
from . import columns, config, launch_strips
from .arrays import DeviceArray
from .config import Columns
from .devices import properties
from .form import Form
from .layouts import vector
from .run import launch


def _cut(plan: ChannelPlan, activation: str | None, *arrays: DeviceArray | None) -> tuple[Form, Columns]:
    """The form of a kernel that reads and writes these arrays, and the cut of all of their elements."""
    given = [a for a in arrays if a is not None]
    x, rule = given[0], config.column_rule(len(given), activation)
    form, lead = config.column_form(x.itemsize, x.size, tuple(a.address for a in given), rule)
    found = properties(x.device)
    form = replace(form, activation=activation)
    return form, config.split_columns(-lead, x.size, plan.channels, form, rule, found.multiprocessors)


def _finish(like: DeviceArray, channels: int, entries: int) -> tuple[Form, int, int]:
    """Form, channels of a block, blocks."""
    found = properties(like.device)
    form = Form(threads=config.FINISH.threads, resident=config.FINISH.resident)
    across = config.finish_across(channels, entries, form.block, found.multiprocessors)
    return form, across, -(-channels // across)


def _statistics(plan: ChannelPlan, x: DeviceArray, settings: Sequence[float], *results: Any) -> None:
    """From x to the results of `columns.finish_moments`; vectors that are not whole are left to that."""
    form, lead = config.column_form(x.itemsize, x.size, (x.address,), config.MOMENTS)
    start = -lead % form.lanes
    total = start + (x.size - start) // form.lanes * form.lanes
    form = replace(form, edges=False)
    found = properties(x.device)
    cut = config.split_columns(start, total, plan.channels, form, config.MOMENTS, found.multiprocessors)
    partials = vector(2 * cut.plane, x)
    launch(columns.moments, form, cut.blocks, x, x, *cut.arguments, cut.plane, partials)
    form, across, blocks = _finish(x, plan.channels, cut.pieces * (cut.width // plan.channels))
    launch(
        columns.finish_moments, form, blocks, x,
        partials, x, x.size, plan.channels, across, start, total, cut.width, cut.length, *settings, *results,
    )  # fmt: skip


def channel_moments(
    plan: ChannelPlan, x: DeviceArray, threads: int | None
) -> tuple[DeviceArray, DeviceArray]:
    """mean and population variance of every channel."""
    mean, var = vector(plan.channels, x), vector(plan.channels, x)
    _statistics(plan, x, (0.0, 0.0, 1.0, 0.0), None, None, mean, var, None, None, None)
    return mean, var


def channel_forward(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    settings: Sequence[float],
    running: Sequence[DeviceArray],
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> tuple[DeviceArray, DeviceArray, DeviceArray | None, DeviceArray | None]:
    """Write y and, in place, the running statistics; mean, rstd, and r and d where they are not 1 and 0.

    settings: eps, the weight of this batch in the running statistics, r_max, d_max of batch
    renormalization (1 and 0 for none).
    """
    held = launch_strips.channel_forward(plan, x, weight, bias, settings, running, y, activation, residual)
    if held is not None:
        return held
    eps, factor, r_max, d_max = map(float, settings)
    mean, rstd, r, d = vector(plan.channels, x), vector(plan.channels, x), None, None
    if (r_max, d_max) != (1.0, 0.0):
        r, d = vector(plan.channels, x), vector(plan.channels, x)
    moving = tuple(running) or (None, None)
    _statistics(plan, x, (eps, factor, r_max, d_max), *moving, mean, None, rstd, r, d)
    _normalize(plan, x, mean, rstd, weight, bias, r, d, y, activation, residual)
    return mean, rstd, r, d


def channel_normalize(
    plan: ChannelPlan,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    y: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> None:
    """Write y with given statistics."""
    _normalize(plan, x, mean, rstd, weight, bias, None, None, y, activation, residual)


def _normalize(
    plan: ChannelPlan,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    r: DeviceArray | None,
    d: DeviceArray | None,
    y: DeviceArray,
    activation: str | None,
    residual: DeviceArray | None,
) -> None:
    form, cut = _cut(plan, activation, x, y, residual)
    launch(
        columns.normalize, form, cut.blocks, x,
        x, residual, *cut.arguments, plan.channels, mean, rstd, weight, bias, r, d, y,
    )  # fmt: skip


def channel_backward(
    plan: ChannelPlan,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    training: bool,
    dx: DeviceArray,
    threads: int | None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
    dresidual: DeviceArray | None = None,
    renorm: tuple[DeviceArray | None, DeviceArray | None] | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx and dresidual; dweight and dbias in the dtypes of weight and bias, None where these are.

    In evaluation the statistics are constants. With batch renormalization's r and d, which are constants too,
    y = (x_hat * r + d) * weight + bias.
    """
    if training:
        held = launch_strips.channel_backward(
            plan, dy, x, mean, rstd, weight, bias, dx, activation, residual, dresidual, renorm
        )
        if held is not None:
            return held
    c, (r, d) = plan.channels, renorm or (None, None)
    parameters = c, mean, rstd, weight, bias, r, d
    dweight, dbias = (None if p is None else vector(c, dy, p.dtype) for p in (weight, bias))
    sums = vector(2 * c, dy) if training else None
    if any(wanted is not None for wanted in (sums, dweight, dbias, dresidual)):
        swept = None if training else dx  # where all is there for it at once
        form, cut = _cut(plan, activation, x, dy, residual, dresidual, swept)
        partials = vector(2 * cut.plane, dy)
        launch(
            columns.dots, form, cut.blocks, dy,
            dy, x, residual, *cut.arguments, *parameters, dresidual, swept, cut.plane, partials,
        )  # fmt: skip
        _finish_sums(partials, cut.pieces, cut.width, cut.start, c, r, d, sums, dweight, dbias)
        if swept is not None:
            return dweight, dbias
    if dresidual is not None and dresidual.itemsize > 2:  # dz, not rounded
        dy, residual, activation = dresidual, None, None
    form, cut = _cut(plan, activation, x, dy, residual, dx)
    launch(
        columns.gradient, form, cut.blocks, dy,
        dy, x, residual, *cut.arguments, c, float(plan.count), *parameters[1:], sums, dx,
    )  # fmt: skip
    return dweight, dbias


def _finish_sums(
    partials: DeviceArray,
    pieces: int,
    width: int,
    start: int,
    channels: int,
    r: DeviceArray | None,
    d: DeviceArray | None,
    sums: DeviceArray | None,
    a: DeviceArray | None,
    b: DeviceArray | None,
) -> None:
    groups = width // channels
    form, across, blocks = _finish(partials, channels, pieces * groups)
    plane = None if b is None and sums is None else pieces * width
    launch(
        columns.finish_sums, form, blocks, partials,
        partials, plane, pieces, groups, start, channels, across, r, d, sums, a, b,
    )  # fmt: skip


def column_sums(
    partials: DeviceArray, teams: int, cols: int, a: DeviceArray | None, b: DeviceArray | None
) -> None:
    """a and b, which may be None, are the sums over teams of partials, (2, teams, cols) in float64.

    Without b the second plane may be missing.
    """
    _finish_sums(partials, teams, cols, 0, cols, None, None, None, a, b)
