"""Plans of rows and of groups, and flat arrays, to kernel calls."""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import methodcaller
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import GroupPlan, RowPlan
from ..results import Array
from . import groups, launch_positions, rows, tuning
from .jit import Kernel
from .parallel import ALONE, team_size
from .run import ForwardLaunch, direct, kind, parameter, run, run_forward, streams, update
from .tuning import FEW, LONG_ROW, PARTIALS, ROWS_PIECE, SHORT_RUN_OF_GROUP, TILE

Parameters = tuple[Array | None, Array | None]
"""weight and bias."""
BackwardLaunch = tuple[Array, Array | None, Kernel, Callable[..., tuple[Any, Any, Any]]]
"""weight and bias as a kernel takes them, the kernel, and what makes its arguments, dweight and dbias."""


def _parameters(plan: RowPlan, given: Parameters, biased: bool) -> tuple[Array, Array | None, int, int]:
    """weight and bias as kernels see them, how many elements of a row they are for, and their period.

    Where there is neither, ones and zeros for a part of a row serve all of it.
    """
    (weight, bias), dtype, part, period = given, plan.layout.arithmetic, plan.cols, plan.period
    if weight is None and bias is None and plan.inner == 1:
        part, period = min(part, ROWS_PIECE), 1
    size = period * part
    w, b = parameter(weight, size, 1.0, dtype), parameter(bias, size, 0.0, dtype) if biased else None
    return w, b, part, period


def _pooled(shape: tuple[int, ...], dtype: Any = np.float64) -> Array:
    return _buffers.empty(math.prod(shape), np.dtype(dtype)).reshape(shape)


def row_forward_launch(
    plan: RowPlan,
    parameters: Parameters,
    activation: str | None,
    kept: int,
    fused: bool,
    threads: int | None,
) -> ForwardLaunch:
    """The kernel that gives the first `kept` of mean, rstd and var; fused: whether there is a residual.

    RMS norm, which never has a bias, is spared reading zeros, but where rows lie side by side: there one
    serves many elements.
    """
    weight, bias, part, period = _parameters(plan, parameters, plan.centred or plan.inner > 1)
    if plan.inner > 1:
        return launch_positions.forward(plan, weight, bias, activation, kept, threads)
    n, m, stream, block = plan.cols, plan.rows, streams(plan, plan.cols), 1 + ROWS_PIECE // plan.cols
    if (fused and n > LONG_ROW) or (n > ROWS_PIECE and m < team_size(threads)):  # the same bits as below
        kernel, room = rows.forward_tiles, 0
        pieces: tuple[int, ...] = ()
    else:
        if fused:
            team = 1 if plan.nbytes < tuning.PARALLEL_BYTES else team_size(threads)
            block = max(block, -(-m // team))  # one for each thread
        kernel, pieces = rows.forward, (-(-m // block),)
        room = -(-m // block) * rows.scratch_width.py_func(n)
    norm = m, n, part, period, block, plan.centred
    return kernel, pieces, weight, bias, kind(activation), norm, kept, stream, room


def row_backward_launch(
    plan: RowPlan, parameters: Parameters, activation: str | None, threads: int | None
) -> BackwardLaunch:
    """The kernel of a backward, which takes what is made of (dy, x, dsum, dx, (mean, rstd), weight, bias).

    dweight and dbias are in the dtype of the arithmetic or in float64, and of any size where neither weight
    nor bias is given; RMS norm has no dbias.
    """
    fused = activation is not None
    w, b, part, period = _parameters(plan, parameters, (plan.centred and fused) or plan.inner > 1)
    if plan.inner > 1:
        return w, b, *launch_positions.backward(plan, activation, threads)
    n, m, act, stream = plan.cols, plan.rows, kind(activation), streams(plan, plan.cols)
    dtype, biased, samples = plan.layout.arithmetic, plan.centred, m // period
    block = max(-(-m // PARTIALS), -(-ROWS_PIECE // n), min(16, -(-m // 2)))
    block = max(block, period * min(4, -(-samples // 2)))  # or the sums would take more room than x
    norm, blocks = (m, n, part, period, block, plan.centred), -(-m // block)
    tiled, width = n > ROWS_PIECE and m < FEW and period == 1, period * (n if part == n else TILE)
    sums, room = (blocks, 2 if biased else 1, width), (blocks * rows.gradient_room.py_func(n),)
    if tiled:
        width, room = part, (m * n,)
    empty = np.empty if 8 * max(math.prod(sums), room[0]) < _buffers.SMALLEST else _pooled

    def arguments(dy: Any, x: Any, dsum: Any, dx: Any, statistics: Any, weight: Any, bias: Any) -> Any:
        dz = empty(room, dtype) if fused else None
        dweight, dbias = np.empty(width, dtype), np.empty(width, dtype) if biased else None
        arrays, affine = (dy, x, dz, dsum, dx, stream), (weight, bias, act, dweight, dbias)
        if tiled:
            return (arrays, affine, norm, statistics), dweight, dbias
        return (arrays, affine, norm, statistics, empty(sums, dtype), empty(sums)), dweight, dbias

    return w, b, rows.backward_tiles if tiled else rows.backward, arguments


def row_forward(
    plan: RowPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None = None,
    residual: Array | None = None,
    total: Array | None = None,
    keep: bool = True,
) -> tuple[Array, Array]:
    """Write y, and x + residual to total where it is wanted; mean and rstd, if they are kept."""
    statistics = np.empty((2 if keep else 0, plan.rows))
    launch = row_forward_launch(
        plan, (weight, bias), activation, len(statistics), residual is not None, threads
    )
    run_forward(plan, threads, launch, (x, residual, total, y), eps, statistics)
    return (statistics[0], statistics[1]) if keep else (statistics, statistics)


def row_backward(
    plan: RowPlan,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    dx: Array,
    threads: int | None,
    activation: str | None = None,
    dsum: Array | None = None,
) -> tuple[Array | None, Array | None]:
    """Write dx + dsum; dweight and dbias as `row_backward_launch` gives them."""
    w, b, kernel, arguments = row_backward_launch(plan, (weight, bias), activation, threads)
    given, dweight, dbias = arguments(dy, x, dsum, dx, (mean, rstd), w, b)
    run(kernel, plan.nbytes, threads, *given)
    return dweight, dbias


def short(plan: GroupPlan) -> bool:
    """Whether every element of a sample is to have a weight of its own; not if these are very many."""
    return plan.centred and plan.inner < SHORT_RUN_OF_GROUP and plan.parameters * plan.inner <= LONG_ROW


def as_rows(plan: GroupPlan) -> RowPlan:
    """The same with a weight for every element of a sample."""
    shape = (plan.parameters * plan.inner,)
    return RowPlan(plan.layout, plan.rows, plan.cols, shape, plan.nbytes, plan.centred, plan.groups)


def for_each(plan: GroupPlan) -> Callable[[Array], Array] | None:
    """What gives a parameter of channels for every element of a sample; None if it is that already."""
    return None if plan.inner == 1 else methodcaller("repeat", plan.inner)


def _each(plan: GroupPlan, parameters: Parameters) -> Parameters:
    """Parameters for every element of a sample."""
    (weight, bias), repeat = parameters, for_each(plan)
    if repeat is None:
        return parameters
    return None if weight is None else repeat(weight), None if bias is None else repeat(bias)


def group_forward_launch(
    plan: GroupPlan, parameters: Parameters, activation: str | None, kept: int, threads: int | None
) -> ForwardLaunch:
    """As `row_forward_launch`."""
    if short(plan):
        return row_forward_launch(as_rows(plan), _each(plan, parameters), activation, kept, False, threads)
    pieces, (weight, bias) = -(-plan.rows // (1 + ROWS_PIECE // plan.cols)), _of_channels(plan, parameters)
    norm, stream = _groups(plan, pieces), streams(plan, plan.inner)
    return groups.forward, (pieces,), weight, bias, kind(activation), norm, kept, stream, 0


def _groups(plan: GroupPlan, pieces: int) -> tuple[Any, ...]:
    """What kernels take as `Groups`."""
    return plan.rows, plan.groups, plan.channels, plan.inner, pieces, plan.divisor, plan.centred


def _of_channels(plan: GroupPlan, parameters: Parameters) -> tuple[Array, Array | None]:
    """weight and bias of every channel; weight norm has no bias."""
    weight, bias = parameters
    size, dtype = plan.parameters, plan.layout.arithmetic
    b = parameter(bias, size, 0.0, dtype) if plan.centred else None
    return parameter(weight, size, 1.0, dtype), b


def group_forward(
    plan: GroupPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None = None,
    running: Sequence[Array] = (),
    factor: float = 0.0,
    keep: bool = True,
) -> tuple[Array, Array]:
    """Write y, and move running statistics of instances by `factor`; mean and rstd, kept or not."""
    kept = 3 if running else 2 if keep else 0
    statistics = np.empty((kept, plan.rows))
    launch = group_forward_launch(plan, (weight, bias), activation, kept, threads)
    run_forward(plan, threads, launch, (x, None, None, y), eps, statistics)
    if running and factor != 0.0:  # the variance may be inf
        moved = [direct(s) for s in running]
        groups.move_running(ALONE, statistics, *moving(plan, factor), *moved)
        update(running, moved)
    return (statistics[0], statistics[1]) if kept else (statistics, statistics)


def moving(plan: GroupPlan, factor: float) -> tuple[tuple[int, int], tuple[float, float]]:
    """The shape and the settings of `groups.move_running`."""
    return (plan.samples, plan.groups), (plan.cols / max(1, plan.cols - 1), factor)


def group_backward_launch(
    plan: GroupPlan, parameters: Parameters, activation: str | None, threads: int | None
) -> BackwardLaunch:
    """As `row_backward_launch`, but for short runs: there `of_channels` makes dweight and dbias."""
    if short(plan):
        return row_backward_launch(as_rows(plan), _each(plan, parameters), activation, threads)
    act, stream, dtype = kind(activation), streams(plan, plan.inner), plan.layout.arithmetic
    pieces, dz_shape = -(-plan.rows // (1 + ROWS_PIECE // plan.cols)), 0
    if activation is not None:
        pieces = min(pieces, team_size(threads))
        dz_shape = pieces * plan.cols
    norm, size = _groups(plan, pieces), plan.parameters

    def arguments(dy: Any, x: Any, dsum: Any, dx: Any, statistics: Any, weight: Any, bias: Any) -> Any:
        dz = None if act is None else np.empty(dz_shape, dtype)
        dweight, dbias = np.empty(size, dtype), np.empty(size, dtype) if plan.centred else None
        arrays, affine = (dy, x, dz, dsum, dx, stream), (weight, bias, act, dweight, dbias)
        return (arrays, affine, norm, statistics), dweight, dbias

    return *_of_channels(plan, parameters), groups.backward, arguments


@lru_cache(maxsize=4)
def _add_runs(dtype: np.dtype[Any]) -> Callable[..., None]:
    """The entry point of `groups.add_runs`."""
    pair = np.empty(0, dtype), np.empty(0, dtype)
    return groups.add_runs.entry(ALONE, 1, pair, pair)


def of_channels(plan: GroupPlan) -> Callable[[Array, Array], tuple[Array, Array]] | None:
    """What makes dweight and dbias of channels of those of every element; None if they are that already."""
    size, inner, dtype = plan.parameters, plan.inner, plan.layout.arithmetic
    if inner == 1 or not short(plan):
        return None
    add = _add_runs(dtype)

    def totals(dweight: Array, dbias: Array) -> tuple[Array, Array]:
        sums = np.empty(size, dtype), np.empty(size, dtype)
        add(ALONE, inner, (dweight, dbias), sums)
        return sums

    return totals


def group_backward(
    plan: GroupPlan,
    dy: Array,
    x: Array,
    mean: Array,
    rstd: Array,
    weight: Array | None,
    bias: Array | None,
    dx: Array,
    threads: int | None,
    activation: str | None = None,
) -> tuple[Array | None, Array | None]:
    """Write dx; dweight and dbias of every channel, anything for a parameter that is not given."""
    w, b, kernel, arguments = group_backward_launch(plan, (weight, bias), activation, threads)
    given, dweight, dbias = arguments(dy, x, None, dx, (mean, rstd), w, b)
    run(kernel, plan.nbytes, threads, *given)
    totals = of_channels(plan)
    if totals is None or (weight is None and bias is None):
        return dweight, dbias
    return totals(dweight, dbias)
