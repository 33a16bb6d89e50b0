"""Plans of rows that lie across memory, and flat arrays, to calls of the kernels of positions."""

import numpy as np

from .. import _buffers
from .._layout import RowPlan
from ..results import Array
from . import positions
from .parallel import team_size
from .run import kind, parameter, run, streams
from .tuning import CACHE_LINE, LEAST_POSITIONS, MOST_POSITIONS, PARTIALS, PIECE

# Elements of a cache line in the narrowest dtype, of which the tiles of a sample are multiples.
LINE = 32


def tile_of(plan: RowPlan) -> int:
    """Neighbouring positions that are taken together: set by the shape, like all that decides on bits."""
    wanted = min(MOST_POSITIONS, max(LEAST_POSITIONS, PIECE // plan.cols))
    tiles = max(1, round(plan.inner / wanted))
    return plan.inner if tiles == 1 else -(-plan.inner // (tiles * LINE)) * LINE


def _pieces(plan: RowPlan, tile: int) -> int:
    return plan.rows // plan.inner * -(-plan.inner // tile)


def _stores(plan: RowPlan, tile: int) -> tuple[bool, bool]:
    """Whether to write the output past the caches, and to gather it for that in whole cache lines."""
    whole = tile == plan.inner
    stream = streams(plan, plan.cols * tile if whole else tile)
    return stream, stream and whole and tile * plan.layout.dtype.itemsize % CACHE_LINE > 0


def _parameters(plan: RowPlan, weight: Array | None, bias: Array | None) -> tuple[Array, Array]:
    dtype = plan.layout.arithmetic
    return parameter(weight, plan.cols, 1.0, dtype), parameter(bias, plan.cols, 0.0, dtype)


def row_forward(
    plan: RowPlan,
    x: Array,
    weight: Array | None,
    bias: Array | None,
    eps: float,
    y: Array,
    threads: int | None,
    activation: str | None,
    residual: Array | None,
    total: Array | None,
    keep: bool,
) -> tuple[Array, Array]:
    """As that of `launch_rows`, of rows of which `inner` lie side by side."""
    tile = tile_of(plan)
    pieces = _pieces(plan, tile)
    workers = min(pieces, team_size(threads))
    statistics = np.empty((2 if keep else 0, plan.rows))
    run(
        positions.forward, plan.nbytes, threads, workers,
        x, residual, pieces, plan.cols, plan.inner, tile, workers, *_parameters(plan, weight, bias),
        kind(activation), plan.centred, eps,
        None if residual is None else _buffers.empty(workers * plan.cols * tile, x.dtype), total, y,
        plan.rows if keep else 0, statistics, *_stores(plan, tile),
    )  # fmt: skip
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
    activation: str | None,
    dsum: Array | None,
) -> tuple[Array, Array | None]:
    """As that of `launch_rows`; dweight and dbias in float64."""
    tile = tile_of(plan)
    pieces = _pieces(plan, tile)
    block = -(-pieces // PARTIALS)
    blocks = -(-pieces // block)
    workers, scratch = min(blocks, team_size(threads)), None
    if activation is not None:
        scratch = _buffers.empty(workers * plan.cols * tile, plan.layout.arithmetic)
    partials = np.empty((blocks, 2, plan.cols))
    run(
        positions.backward, plan.nbytes, threads,
        dy, x, pieces, plan.cols, plan.inner, tile, block, workers, *_parameters(plan, weight, bias),
        kind(activation), scratch, dsum, plan.centred, mean, rstd, dx, partials, *_stores(plan, tile),
    )  # fmt: skip
    dweight, dbias = partials[0].copy()
    return dweight, dbias if plan.centred else None
