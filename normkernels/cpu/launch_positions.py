"""Plans of rows that lie across memory to launches of the kernels of positions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _buffers
from .._layout import RowPlan
from ..results import Array
from . import positions
from .jit import Kernel
from .parallel import team_size
from .run import ForwardLaunch, kind, streams
from .tuning import CACHE_LINE, LEAST_POSITIONS, MOST_POSITIONS, PARTIALS, PIECE

# Elements of a cache line in the narrowest dtype, of which the tiles of a sample are multiples.
LINE = 32


def tile_of(plan: RowPlan) -> int:
    """Neighbouring positions that are taken together: set by the shape, like all that decides on bits."""
    wanted = min(MOST_POSITIONS, max(LEAST_POSITIONS, PIECE // plan.cols))
    tiles = max(1, round(plan.inner / wanted))
    return plan.inner if tiles == 1 else -(-plan.inner // (tiles * LINE)) * LINE


def _stores(plan: RowPlan, tile: int) -> tuple[bool, bool]:
    """Whether to write the output past the caches, and to gather it for that in whole cache lines."""
    whole = tile == plan.inner
    stream = streams(plan, plan.cols * tile if whole else tile)
    return stream, stream and whole and tile * plan.layout.dtype.itemsize % CACHE_LINE > 0


def _positions(plan: RowPlan, blocks: int | None, threads: int | None) -> tuple[Any, ...]:
    """What kernels take as `Positions`, their workers, elements of a room for a piece of each of these, and
    whether to write past the caches; blocks: of pieces at most, None for one of each piece."""
    tile = tile_of(plan)
    pieces = plan.rows // plan.inner * -(-plan.inner // tile)
    block = 1 if blocks is None else -(-pieces // blocks)
    workers = min(-(-pieces // block), team_size(threads))
    stream, gather = _stores(plan, tile)
    norm = pieces, plan.cols, plan.inner, tile, block, workers, plan.centred, gather
    return norm, workers, workers * plan.cols * tile, stream


def forward(
    plan: RowPlan, weight: Array, bias: Array | None, activation: str | None, kept: int, threads: int | None
) -> ForwardLaunch:
    """As `launch_rows.row_forward_launch`, of rows of which `inner` lie side by side."""
    norm, workers, room, stream = _positions(plan, None, threads)
    rows = plan.rows if kept else 0
    return positions.forward, (workers,), weight, bias, kind(activation), norm, rows, stream, room


def backward(
    plan: RowPlan, activation: str | None, threads: int | None
) -> tuple[Kernel, Callable[..., tuple[Any, Any, Any]]]:
    """As `launch_rows.row_backward_launch`; dweight and dbias in float64."""
    fused = kind(activation)
    norm, _, room, stream = _positions(plan, PARTIALS, threads)

    def arguments(dy: Any, x: Any, dsum: Any, dx: Any, statistics: Any, weight: Any, bias: Any) -> Any:
        dz = None if fused is None else _buffers.empty(room, plan.layout.arithmetic)
        dweight, dbias = np.empty(plan.cols), np.empty(plan.cols)
        arrays, affine = (dy, x, dz, dsum, dx, stream), (weight, bias, fused, dweight, dbias)
        return (arrays, affine, norm, statistics), dweight, dbias if plan.centred else None

    return positions.backward, arguments
