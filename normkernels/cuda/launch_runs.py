"""Plans of channels and of groups with runs of several elements to kernel calls."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from .._layout import ChannelPlan, GroupPlan
from . import config, runs
from .arrays import DeviceArray
from .config import Pieces
from .devices import properties
from .form import Form
from .layouts import vector
from .run import launch

Pair = tuple[DeviceArray, DeviceArray]


class Runs(NamedTuple):
    """An array seen as (outer, channels, inner), and which runs share statistics."""

    outer: int
    channels: int
    inner: int
    groups: int
    """Statistics of a sample."""
    apart: int
    """By how much those of two samples are apart: `groups`, or 0."""

    @property
    def statistics(self) -> int:
        return self.outer * self.groups if self.apart else self.groups

    @property
    def per_group(self) -> int:
        return self.channels // self.groups

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.outer, self.channels, self.inner

    def pieces(
        self,
        *arrays: DeviceArray | None,
        parameters: Sequence[DeviceArray | None] = (),
        activation: str | None = None,
        centred: bool = True,
    ) -> Pieces:
        """How they are shared out for a kernel that reads and writes these arrays.

        parameters: those of which every element of a run has its own.
        """
        present = [a for a in arrays if a is not None]
        itemsize, device = present[0].itemsize, properties(present[0].device)
        lanes, edges = config.lanes(
            itemsize,
            self.inner,
            [a.address for a in present],
            [p.address for p in parameters if p is not None],
        )
        form = Form(lanes=lanes, edges=edges, centred=centred, activation=activation)
        return config.run_pieces(*self.shape, itemsize, form, device.multiprocessors, deep=not self.apart)


def _of_channels(plan: ChannelPlan) -> Runs:
    return Runs(plan.outer, plan.channels, plan.inner, plan.channels, 0)


def _of_groups(plan: GroupPlan) -> Runs:
    return Runs(plan.samples, plan.parameters, plan.inner, plan.groups, plan.groups)


def launch_pieces(kernel: Any, view: Runs, pieces: Pieces, like: DeviceArray, *args: Any) -> None:
    """A kernel in which a team has a piece."""
    launch(
        kernel, pieces.form, -(-pieces.number(view.outer, view.channels) // pieces.form.teams), like, *args
    )


def _merge(kernel: Any, statistics: int, partials: int, like: DeviceArray, *args: Any) -> None:
    """A kernel in which a team has the partial results of one statistic."""
    form = config.merging_form(partials)
    launch(kernel, form, -(-statistics // form.teams), like, *args)


def _each(kernel: Any, count: int, like: DeviceArray, *args: Any) -> None:
    """A kernel in which a thread has a channel."""
    form = Form(teams=4)
    launch(kernel, form, -(-count // form.block), like, *args)


def _sets(view: Runs, pieces: Pieces) -> tuple[int, int, int, int, int]:
    """How many statistics, of a sample, and stretches and spans of their partial results, and its pieces."""
    spans = 1 if view.apart else -(-view.outer // pieces.depth)
    stretch = view.per_group * pieces.tiles
    return view.statistics, view.groups, stretch, spans, view.channels * pieces.tiles


def merged_moments(
    view: Runs,
    x: DeviceArray,
    settings: Sequence[float],
    running: Sequence[DeviceArray],
    var: DeviceArray | None,
    rstd: DeviceArray | None,
    renorm: Sequence[DeviceArray | None] = (None, None),
    residual: DeviceArray | None = None,
    summed: DeviceArray | None = None,
    centred: bool = True,
) -> DeviceArray:
    """mean; var, rstd, running statistics, r and d, where they are wanted, are written.

    Of x + residual, which summed receives; not centred about 0.
    """
    pieces = view.pieces(x, residual, summed, centred=centred)
    partials = vector(4 * pieces.number(view.outer, view.channels), x)
    launch_pieces(runs.moments, view, pieces, x, x, residual, *view.shape, *pieces.cut, summed, partials)
    mean, sets = vector(view.statistics, x), _sets(view, pieces)
    _merge(
        runs.merged, view.statistics, sets[2] * sets[3], x,
        partials, *sets, *map(float, settings), mean, var, rstd, *(running or (None, None)), *renorm,
    )  # fmt: skip
    return mean


def _normalize(
    view: Runs,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    y: DeviceArray,
    activation: str | None,
    residual: DeviceArray | None,
) -> None:
    pieces = view.pieces(x, residual, y, activation=activation)
    launch_pieces(
        runs.normalize, view, pieces, x,
        x, residual, *view.shape, *pieces.cut, view.apart, view.per_group, mean, rstd, weight, bias, y,
    )  # fmt: skip


def channel_moments(plan: ChannelPlan, x: DeviceArray, threads: int | None = None) -> Pair:
    """mean and population variance of every channel."""
    var = vector(plan.channels, x)
    return merged_moments(_of_channels(plan), x, (0.0, 0.0, 1.0, 0.0), (), var, None), var


def channel_forward(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    settings: Sequence[float],
    running: Sequence[DeviceArray],
    y: DeviceArray,
    threads: int | None = None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> tuple[DeviceArray, DeviceArray, DeviceArray | None, DeviceArray | None]:
    """Write y; mean, rstd, r and d of every channel. Running statistics are updated in place.

    settings: eps, the weight of this batch in the running statistics, r_max, d_max of batch
    renormalization (1 and 0 for none: then r and d are None).
    """
    view, rstd, r, d = _of_channels(plan), vector(plan.channels, x), None, None
    if tuple(settings[2:]) != (1.0, 0.0):
        r, d = vector(plan.channels, x), vector(plan.channels, x)
    mean = merged_moments(view, x, settings, running, None, rstd, (r, d))
    if r is not None and d is not None:
        weight, bias = _composed(plan, x, weight, bias, r, d)
    _normalize(view, x, mean, rstd, weight, bias, y, activation, residual)
    return mean, rstd, r, d


def _composed(
    plan: ChannelPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    r: DeviceArray,
    d: DeviceArray,
) -> Pair:
    """weight and bias with the r and d of batch renorm."""
    scale, shift = vector(plan.channels, x), vector(plan.channels, x)
    _each(runs.composed, plan.channels, x, weight, bias, r, d, plan.channels, scale, shift)
    return scale, shift


def channel_normalize(
    plan: ChannelPlan,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    y: DeviceArray,
    threads: int | None = None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
) -> None:
    """Write y with given statistics."""
    _normalize(_of_channels(plan), x, mean, rstd, weight, bias, y, activation, residual)


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
    threads: int | None = None,
    activation: str | None = None,
    residual: DeviceArray | None = None,
    dresidual: DeviceArray | None = None,
    renorm: Pair | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx and dresidual; dweight and dbias in the dtype of what they belong to, None for None.

    In evaluation the statistics are constants. renorm: r and d of batch renorm, with which weight and bias
    are composed here.
    """
    dweight, dbias = _like(weight, dy), _like(bias, dy)
    if renorm is not None:
        weight, bias = _composed(plan, dy, weight, bias, *renorm)
    _backward(
        _of_channels(plan), dy, x, mean, rstd, weight, bias, float(plan.count) if training else None, dx,
        activation, residual, dresidual, renorm or (None, None), dweight, dbias,
    )  # fmt: skip
    return dweight, dbias


def group_forward(
    plan: GroupPlan,
    x: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    eps: float,
    y: DeviceArray,
    threads: int | None = None,
    activation: str | None = None,
    var: DeviceArray | None = None,
) -> Pair:
    """Write y, and var, where it is wanted; mean and rstd of every row. For rows beyond what teams hold."""
    view = _of_groups(plan)
    rstd = vector(plan.rows, x)
    mean = merged_moments(view, x, (eps, 0.0, 1.0, 0.0), (), var, rstd)
    _normalize(view, x, mean, rstd, weight, bias, y, activation, None)
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
    threads: int | None = None,
    activation: str | None = None,
) -> tuple[DeviceArray | None, DeviceArray | None]:
    """Write dx; dweight and dbias of every channel, as `channel_backward`; of a centred plan."""
    dweight, dbias = _like(weight, dy), _like(bias, dy)
    _backward(
        _of_groups(plan), dy, x, mean, rstd, weight, bias, float(plan.divisor), dx, activation, None, None,
        (None, None), dweight, dbias,
    )  # fmt: skip
    return dweight, dbias


def _like(parameter: DeviceArray | None, dy: DeviceArray) -> DeviceArray | None:
    return None if parameter is None else vector(parameter.size, dy, parameter.dtype)


def _backward(
    view: Runs,
    dy: DeviceArray,
    x: DeviceArray,
    mean: DeviceArray,
    rstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
    divisor: float | None,
    dx: DeviceArray,
    activation: str | None,
    residual: DeviceArray | None,
    dresidual: DeviceArray | None,
    renorm: Sequence[DeviceArray | None],
    dweight: DeviceArray | None,
    dbias: DeviceArray | None,
) -> None:
    """Write dx, dresidual, dweight and dbias; divisor: None for statistics that are constants."""
    if activation is None:
        residual = None
    statistics = view.apart, view.per_group, mean, rstd, weight
    fused = activation is not None
    c1 = c2 = None
    if divisor is not None or dweight is not None or dbias is not None or dresidual is not None:
        swept = dx if divisor is None else None  # where all is there for it at once
        pieces = view.pieces(dy, x, residual, dresidual, swept, activation=activation)
        partials = vector(2 * pieces.number(view.outer, view.channels), dy)
        launch_pieces(
            runs.dots, view, pieces, dy,
            dy, x, residual, *view.shape, *pieces.cut, *statistics, bias if fused else None, dresidual,
            swept, partials,
        )  # fmt: skip
        if divisor is not None:
            c1, c2 = vector(view.statistics, dy), vector(view.statistics, dy)
        sums = (*renorm, dweight, dbias)
        if view.per_group > 1 or view.apart:
            merged_dots(view, pieces, partials, weight, divisor, c1, c2, None, None, None, None)
            channels = view._replace(groups=view.channels, apart=0)
            merged_dots(channels, pieces, partials, None, None, None, None, *sums)
        else:
            merged_dots(view, pieces, partials, weight, divisor, c1, c2, *sums)
        if swept is not None:
            return
    if dresidual is not None and dresidual.itemsize >= 4:  # dz as it was, unrounded
        dy, activation, residual, fused = dresidual, None, None, False
    if c1 is None and not fused:
        pieces = view.pieces(dy, dx)
        source = None
    else:
        pieces = view.pieces(dy, x, residual, dx, activation=activation)
        source = x
    launch_pieces(
        runs.gradient, view, pieces, dy,
        dy, source, residual, *view.shape, *pieces.cut, *statistics, bias if fused else None, c1, c2, dx,
    )  # fmt: skip


def merged_dots(
    view: Runs,
    pieces: Pieces,
    partials: DeviceArray,
    weight: DeviceArray | None,
    divisor: float | None,
    *results: DeviceArray | None,
) -> None:
    """results: c1, c2, r, d, dweight, dbias; nothing to None."""
    if all(array is None for array in results):
        return
    sets = _sets(view, pieces)
    _merge(
        runs.merged_dots, view.statistics, sets[2] * sets[3], partials,
        partials, *sets, pieces.tiles, weight, 1.0 if divisor is None else divisor, *results,
    )  # fmt: skip


def instance_running(
    mean: DeviceArray,
    var: DeviceArray,
    running: Sequence[DeviceArray],
    factor: float,
    samples: int,
    channels: int,
    count: int,
) -> None:
    """Update running statistics, in place, by the means over samples of mean and of the unbiased variance."""
    unbiased = count / (count - 1)
    _merge(
        runs.running, channels, samples, mean,
        mean, var, samples, channels, unbiased, float(factor), *running,
    )  # fmt: skip
