"""Plans of rows and of groups, and flat arrays, to kernel calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import GroupPlan, RowPlan
from ..results import Array
from . import groups, launch_positions, rows, tuning
from .parallel import team_size
from .run import kind, parameter, run, streams, update
from .tuning import FEW, LONG_ROW, PARTIALS, ROWS_PIECE, SHORT_RUN_OF_GROUP, TILE

# Statistics that are not kept.
NOTHING = np.empty(0)


def parameters(
    plan: RowPlan, weight: Array | None, bias: Array | None, with_bias: bool = True
) -> tuple[Array, Array | None, int, int]:
    """weight and bias as kernels see them, how many elements of a row they are for, and their period.

    Where there is neither, ones and zeros for a part of a row serve all of it. RMS norm, which never has a
    bias, is spared reading zeros.
    """
    dtype, part, period = plan.layout.arithmetic, plan.cols, plan.period
    if weight is None and bias is None:
        part, period = min(part, ROWS_PIECE), 1
    w = parameter(weight, period * part, 1.0, dtype)
    with_bias = with_bias and plan.centred
    return w, parameter(bias, period * part, 0.0, dtype) if with_bias else None, part, period


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
    if plan.inner > 1:
        return launch_positions.row_forward(
            plan, x, weight, bias, eps, y, threads, activation, residual, total, keep
        )
    kept = 2 if keep else 0
    statistics = _row_forward(plan, x, weight, bias, eps, y, threads, activation, kept, residual, total)
    return (statistics[0], statistics[1]) if keep else (NOTHING, NOTHING)


def _row_forward(
    plan: RowPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None,
    kept: int,
    residual: Array | None = None,
    total: Array | None = None,
) -> Array:
    """As `row_forward`; the statistics that are kept: mean and rstd, var too, or none."""
    n = plan.cols
    weight, bias, part, period = parameters(plan, weight, bias)
    stream = streams(plan, n)
    long = residual is not None and n > LONG_ROW
    if long or (n > ROWS_PIECE and plan.rows < team_size(threads)):  # the same bits as below
        statistics = np.empty((3, plan.rows))
        run(
            rows.forward_tiles, plan.nbytes, threads,
            x, residual, plan.rows, n, weight, bias, part, period, kind(activation), plan.centred, eps,
            np.empty((plan.rows, -(-n // TILE), 4)), total, y, statistics, stream,
        )  # fmt: skip
        return statistics
    block, scratch = 1 + ROWS_PIECE // n, None
    if residual is not None:
        team = 1 if plan.nbytes < tuning.PARALLEL_BYTES else team_size(threads)
        block = max(block, -(-plan.rows // team))  # one for each thread
        scratch = np.empty(-(-plan.rows // block) * rows.scratch_width.py_func(n), x.dtype)
    statistics = np.empty((kept, plan.rows))
    run(
        rows.forward, plan.nbytes, threads, -(-plan.rows // block),
        x, residual, plan.rows, n, block, weight, bias, part, period, kind(activation), plan.centred, eps,
        scratch, total, y, kept, statistics, stream,
    )  # fmt: skip
    return statistics


def backward_room(plan: RowPlan, part: int, period: int) -> tuple[int, int, int, int]:
    """Rows of a block, blocks, and sums of a block and elements of each, in the backward of rows."""
    n, samples = plan.cols, plan.rows // period
    block = max(-(-plan.rows // PARTIALS), -(-ROWS_PIECE // n), min(16, -(-plan.rows // 2)))
    block = max(block, period * min(4, -(-samples // 2)))  # or the sums would take more room than x
    return block, -(-plan.rows // block), 2 if plan.centred else 1, period * (n if part == n else TILE)


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
    """Write dx + dsum; dweight and dbias in the dtype of the arithmetic; RMS norm has no dbias."""
    if plan.inner > 1:
        return launch_positions.row_backward(
            plan, dy, x, mean, rstd, weight, bias, dx, threads, activation, dsum
        )
    n, dtype = plan.cols, plan.layout.arithmetic
    fused = activation is not None
    weight, bias, part, period = parameters(plan, weight, bias, fused)
    if n > ROWS_PIECE and plan.rows < FEW and period == 1:
        sums = np.empty(part, dtype), np.empty(part, dtype) if plan.centred else None
        run(
            rows.backward_tiles, plan.nbytes, threads,
            dy, x, plan.rows, n, weight, bias, part, kind(activation),
            _buffers.empty(x.size, dtype) if fused else None, dsum, plan.centred, mean, rstd, dx,
            *sums, np.empty((-(-n // TILE), plan.rows, 2)), streams(plan, n),
        )  # fmt: skip
        return sums
    block, blocks, count, width = backward_room(plan, part, period)
    short, long = (
        _buffers.empty(blocks * count * width, np.dtype(d)).reshape(blocks, count, width)
        for d in (dtype, np.float64)
    )
    dweight, dbias = np.empty(width, dtype), np.empty(width, dtype) if count == 2 else None
    run(
        rows.backward, plan.nbytes, threads,
        dy, x, plan.rows, n, block, weight, bias, part, period, kind(activation),
        np.empty(blocks * rows.gradient_room.py_func(n), dtype) if fused else None, dsum, plan.centred, mean,
        rstd, dx, short, long, dweight, dbias, streams(plan, n),
    )  # fmt: skip
    return (dweight, dbias) if part == n else (None, None)


def as_rows(plan: GroupPlan) -> RowPlan:
    """The same with a weight for every element of a sample."""
    shape = (plan.parameters * plan.inner,)
    return RowPlan(plan.layout, plan.rows, plan.cols, shape, plan.nbytes, plan.centred, plan.groups)


def or_one(value: Array | None, default: float, dtype: np.dtype[Any]) -> tuple[Array, int]:
    """A parameter of channels and its stride; one element in the place of an absent one."""
    size, stride = (1, 0) if value is None else (value.size, 1)
    return parameter(value, size, default, dtype), stride


def short(plan: GroupPlan) -> bool:
    """Whether every element of a sample is to have a weight of its own; not if these are very many."""
    return plan.centred and plan.inner < SHORT_RUN_OF_GROUP and plan.parameters * plan.inner <= LONG_ROW


def _for_each(value: Array | None, plan: GroupPlan) -> Array | None:
    """A parameter of channels for every element of a sample."""
    return value if value is None or plan.inner == 1 else value.repeat(plan.inner)


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
    statistics = _group_forward(plan, x, weight, bias, eps, y, threads, activation, kept)
    if running and factor != 0.0:  # the variance may be inf
        unbiased = statistics[2] * (plan.cols / (plan.cols - 1))
        means = (s.reshape(plan.samples, plan.groups).mean(0) for s in (statistics[0], unbiased))
        update(running, [(1 - factor) * old + factor * new for old, new in zip(running, means, strict=True)])
    return (statistics[0], statistics[1]) if kept else (NOTHING, NOTHING)


def _group_forward(
    plan: GroupPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None,
    kept: int,
) -> Array:
    n, dtype = plan.inner, plan.layout.arithmetic
    if short(plan):
        weight, bias = _for_each(weight, plan), _for_each(bias, plan)
        return _row_forward(as_rows(plan), x, weight, bias, eps, y, threads, activation, kept)
    block = 1 + ROWS_PIECE // plan.cols
    statistics = np.empty((kept, plan.rows))
    run(
        groups.forward, plan.nbytes, threads, -(-plan.rows // block),
        x, plan.rows, plan.groups, plan.channels, n, block, plan.divisor, *or_one(weight, 1.0, dtype),
        *or_one(bias, 0.0, dtype), kind(activation), plan.centred, eps, y, kept, statistics,
        streams(plan, n),
    )  # fmt: skip
    return statistics


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
    """Write dx; dweight and dbias of every channel in float64."""
    n, dtype = plan.inner, plan.layout.arithmetic
    if short(plan):
        given = weight is not None or bias is not None
        weight, bias = _for_each(weight, plan), _for_each(bias, plan)
        sums = row_backward(as_rows(plan), dy, x, mean, rstd, weight, bias, dx, threads, activation)
        if given:
            dweight, dbias = (None if s is None else s.reshape(-1, n).sum(1, np.float64) for s in sums)
            return dweight, dbias
        return sums
    dweight = np.empty((plan.samples, plan.parameters))
    dbias = np.empty_like(dweight) if plan.centred else np.empty((1, 1))
    workers, dz = -(-plan.rows // (1 + ROWS_PIECE // plan.cols)), None
    if activation is not None:
        workers = min(workers, team_size(threads))
        dz = np.empty(workers * plan.cols, dtype)
    run(
        groups.backward, plan.nbytes, threads, workers,
        dy, x, plan.rows, plan.groups, plan.channels, n, workers, plan.divisor,
        *or_one(weight, 1.0, dtype), *or_one(bias, 0.0, dtype), kind(activation), plan.centred, mean, rstd,
        dz, dx, dweight, dbias, streams(plan, n),
    )  # fmt: skip
    if plan.samples == 1:
        return dweight[0], dbias[0]
    return dweight.sum(0), dbias.sum(0)
