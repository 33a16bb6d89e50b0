"""Plans of rows and of groups, and flat arrays, to kernel calls."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import GroupPlan, RowPlan
from ..results import Array
from . import groups, rows
from .parallel import team_size
from .primitives import TILE
from .run import FEW, PARALLEL_BYTES, PIECE, kind, parameter, run, streams, update

# Partial sums of dweight and dbias: their number is set by the shape, never by the threads.
PARTIALS = 32
# Elements of a run below which every element of a sample gets a weight of its own.
SHORT_RUN = 32
# Longer rows leave the cache before they are normalized, so that it costs little to read them twice.
LONG = 1 << 20


def _parameters(
    plan: RowPlan, weight: Array | None, bias: Array | None, with_bias: bool = True
) -> tuple[Array, Array | None, int, int]:
    """weight and bias as kernels see them, how many elements of a row they are for, and their period.

    Where there is neither, ones and zeros for a part of a row serve all of it. RMS norm, which never has a
    bias, is spared reading zeros.
    """
    dtype, part, period = plan.layout.arithmetic, plan.cols, plan.period
    if weight is None and bias is None:
        part, period = min(part, PIECE), 1
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
    var: Array | None = None,
    keep: bool = True,
) -> tuple[Array, Array]:
    """Write y, x + residual to total, and var, where they are wanted; mean and rstd, kept or not."""
    n = plan.cols
    weight, bias, part, period = _parameters(plan, weight, bias)
    stream = streams(y, n)
    long = residual is not None and n > LONG
    if long or (n > PIECE and plan.rows < team_size(threads)):  # the same bits as below
        mean, rstd = np.empty(plan.rows), np.empty(plan.rows)
        run(
            rows.forward_tiles, plan.nbytes, threads,
            x, residual, plan.rows, n, weight, bias, part, period, kind(activation), plan.centred, eps,
            np.empty((plan.rows, -(-n // TILE), 4)), total, y, mean, rstd, rstd if var is None else var,
            stream,
        )  # fmt: skip
        return mean, rstd
    block, scratch = 1 + PIECE // n, None
    if residual is not None:
        team = 1 if plan.nbytes < PARALLEL_BYTES else team_size(threads)
        block = max(block, -(-plan.rows // team))  # one for each thread
        scratch = np.empty(-(-plan.rows // block) * rows.scratch_width.py_func(n), x.dtype)
    blocks = -(-plan.rows // block)
    batches = blocks * rows.batch_rows.py_func(n)
    keep = keep or plan.rows <= batches
    mean, rstd = np.empty((2, plan.rows if keep else batches))
    run(
        rows.forward, plan.nbytes, threads, blocks,
        x, residual, plan.rows, n, block, weight, bias, part, period, kind(activation), plan.centred, eps,
        scratch, total, y, keep, mean, rstd, np.empty(batches) if var is None else var, var is not None,
        stream,
    )  # fmt: skip
    return mean, rstd


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
) -> tuple[Array, Array | None]:
    """Write dx + dsum; dweight and dbias in float64, or in the dtype of x; RMS norm has no dbias."""
    n, dtype = plan.cols, plan.layout.arithmetic
    fused = activation is not None
    weight, bias, part, period = _parameters(plan, weight, bias, fused)
    if n > PIECE and plan.rows < FEW and period == 1:
        dweight, dbias = np.empty(part, dtype), np.empty(part, dtype) if plan.centred else None
        run(
            rows.backward_tiles, plan.nbytes, threads,
            dy, x, plan.rows, n, weight, bias, part, kind(activation),
            _buffers.empty(x.size, dtype) if fused else None, dsum, plan.centred, mean, rstd, dx,
            dweight, dbias, np.empty((-(-n // TILE), plan.rows, 2)), streams(dx, n),
        )  # fmt: skip
        return dweight, dbias
    samples = plan.rows // period
    block = max(-(-plan.rows // PARTIALS), -(-PIECE // n), min(16, -(-plan.rows // 2)))
    block = max(block, period * min(4, -(-samples // 2)))  # or the sums would take more room than x
    blocks = -(-plan.rows // block)
    width = period * (n if part == n else TILE)
    size, sums = blocks * width, 2 if plan.centred else 1
    dweight, dbias = _buffers.empty(size, dtype), _buffers.empty(size, dtype) if plan.centred else None
    partials = _buffers.empty(sums * size, np.dtype(np.float64)).reshape(blocks, sums, width)
    run(
        rows.backward, plan.nbytes, threads,
        dy, x, plan.rows, n, block, weight, bias, part, period, kind(activation),
        np.empty(blocks * rows.gradient_room.py_func(n), dtype) if fused else None, dsum, plan.centred, mean,
        rstd, dx, dweight, dbias, partials, streams(dx, n),
    )  # fmt: skip
    return partials[0, 0], partials[0, 1] if plan.centred else None


def _as_rows(plan: GroupPlan) -> RowPlan:
    """The same with a weight for every element of a sample."""
    shape = (plan.parameters * plan.inner,)
    return RowPlan(plan.layout, plan.rows, plan.cols, shape, plan.nbytes, plan.centred, plan.groups)


def _or_one(value: Array | None, default: float, dtype: np.dtype[Any]) -> Array:
    """A parameter of channels, or one element in the place of an absent one."""
    return parameter(value, 1 if value is None else value.size, default, dtype)


def _short(plan: GroupPlan) -> bool:
    """Whether every element of a sample is to have a weight of its own; not if these are very many."""
    return plan.centred and plan.inner < SHORT_RUN and plan.parameters * plan.inner <= LONG


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
    var = np.empty(plan.rows) if running else None
    keep = keep or var is not None
    mean, rstd = _group_forward(plan, x, weight, bias, eps, y, threads, activation, var, keep)
    if var is not None and factor != 0.0:  # the variance may be inf
        unbiased = var * (plan.cols / (plan.cols - 1))
        means = (s.reshape(plan.samples, plan.groups).mean(0) for s in (mean, unbiased))
        update(running, [(1 - factor) * old + factor * new for old, new in zip(running, means, strict=True)])
    return mean, rstd


def _group_forward(
    plan: GroupPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None,
    var: Array | None,
    keep: bool,
) -> tuple[Array, Array]:
    n, dtype = plan.inner, plan.layout.arithmetic
    if _short(plan):
        weight, bias = _for_each(weight, plan), _for_each(bias, plan)
        return row_forward(_as_rows(plan), x, weight, bias, eps, y, threads, activation, var=var, keep=keep)
    block = 1 + PIECE // plan.cols
    blocks = -(-plan.rows // block)
    mean, rstd = np.empty((2, plan.rows if keep else blocks))
    weight, bias = _or_one(weight, 1.0, dtype), _or_one(bias, 0.0, dtype)
    run(
        groups.forward, plan.nbytes, threads, blocks,
        x, plan.rows, plan.groups, plan.channels, n, block, plan.divisor, weight, bias, kind(activation),
        plan.centred, eps, np.empty((blocks, groups.CONSTANTS), dtype), y, keep, mean, rstd,
        rstd if var is None else var, streams(y, n),
    )  # fmt: skip
    return mean, rstd


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
) -> tuple[Array, Array]:
    """Write dx; dweight and dbias of every channel in float64."""
    n, dtype = plan.inner, plan.layout.arithmetic
    if _short(plan):
        given = weight is not None or bias is not None
        weight, bias = _for_each(weight, plan), _for_each(bias, plan)
        sums = row_backward(_as_rows(plan), dy, x, mean, rstd, weight, bias, dx, threads, activation)
        dweight, dbias = (s.reshape(-1, n).sum(1) if given else s for s in sums if s is not None)
        return dweight, dbias
    dweight = np.empty((plan.samples, plan.parameters))
    dbias = np.empty_like(dweight) if plan.centred else np.empty((1, plan.channels))
    workers, affine, dz = -(-plan.rows // (1 + PIECE // plan.cols)), None, None
    if activation is not None:
        workers = min(workers, team_size(threads))
        affine, dz = np.empty((workers, groups.CONSTANTS), dtype), np.empty(workers * plan.cols, dtype)
    run(
        groups.backward, plan.nbytes, threads, workers,
        dy, x, plan.rows, plan.groups, plan.channels, n, workers, plan.divisor,
        _or_one(weight, 1.0, dtype), _or_one(bias, 0.0, dtype), kind(activation), plan.centred, mean, rstd,
        np.empty((workers, groups.CONSTANTS), dtype), affine, dz, dx, dweight.reshape(plan.rows, -1),
        dbias.reshape(-1, plan.channels), streams(dx, n),
    )  # fmt: skip
    if plan.samples == 1:
        return dweight[0], dbias[0]
    return dweight.sum(0), dbias.sum(0)
