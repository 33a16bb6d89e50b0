"""Plans of channels whose elements lie one below the other, to kernels that hold strips of columns."""

from collections.abc import Sequence

from .._layout import ChannelPlan
from . import config, strip_rules, strips
from .arrays import DeviceArray
from .devices import properties
from .form import Form
from .layouts import meeting, pair, vector
from .run import launch
from .strip_rules import Strips


def _held(
    plan: ChannelPlan,
    activation: str | None,
    renorm: bool,
    backward: bool,
    *tensors: DeviceArray | None,
) -> tuple[Form, int, Strips] | None:
    """The form of teams that hold a strip, blocks, and the cut; None where no team can."""
    given = [a for a in tensors if a is not None]
    x, found = given[0], properties(given[0].device)
    rules = strip_rules.strip_rules(backward, activation is not None)
    form = Form(renorm=renorm, activation=activation)
    addresses = [a.address for a in given]
    chosen = strip_rules.strip_form(plan.outer, plan.channels, x.itemsize, addresses, rules, found, form)
    if chosen is None:
        return None
    form, cut = chosen
    return form, config.row_grid(cut.strips, form, found), cut


def _met(
    form: Form, blocks: int, cut: Strips, like: DeviceArray
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """exchange and flags: two numbers of every column, twice."""
    return meeting(form, blocks, like, 4 * cut.across * form.lanes)


def channel_forward(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    settings: Sequence[float],
    running: Sequence[DeviceArray],
    y: DeviceArray,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> tuple[DeviceArray, DeviceArray, DeviceArray | None, DeviceArray | None] | None:
    """As `launch_columns.channel_forward`; None, and nothing done, where no team can hold a strip."""
    eps, factor, r_max, d_max = map(float, settings)
    renorm = (r_max, d_max) != (1.0, 0.0)
    held = _held(plan, activation, renorm, False, x, y, residual)
    if held is None:
        return None
    form, blocks, cut = held
    mean, rstd = pair(plan.channels, x)
    r, d = pair(plan.channels, x) if renorm else (None, None)
    launch(
        strips.forward, form, blocks, x,
        x, residual, plan.outer, plan.channels, *cut, weight, bias, eps, factor, r_max, d_max, y, mean, rstd,
        *(tuple(running) or (None, None)), r, d, *_met(form, blocks, cut, x),
    )  # fmt: skip
    return mean, rstd, r, d


def channel_backward(
    plan: ChannelPlan,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    dx: DeviceArray,
    activation: str | None = None,
    residual: DeviceArray | None = None,
    dresidual: DeviceArray | None = None,
    renorm: tuple[DeviceArray | None, DeviceArray | None] | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None] | None:
    """As `launch_columns.channel_backward` in training; None, and nothing done, where no team can."""
    if activation is None:
        residual = None  # on which nothing depends
    held = _held(plan, activation, False, True, dy, x, dx, residual, dresidual)
    if held is None:
        return None
    form, blocks, cut = held
    dweight, dbias = (None if p is None else vector(plan.channels, dy, p.dtype) for p in (weight, bias))
    launch(
        strips.backward, form, blocks, dy,
        dy, x, residual, plan.outer, plan.channels, *cut, weight, bias, *(renorm or (None, None)), mean, rstd,
        dx, dresidual, dweight, dbias, *_met(form, blocks, cut, dy),
    )  # fmt: skip
    return dweight, dbias
