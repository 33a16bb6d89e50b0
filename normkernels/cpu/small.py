"""Small calls: a pass over arrays too small for threads, as a function of these arrays alone.

What is prepared here does what the functions of the same names in `launch_rows` and `launch_channels` do, for
plain arrays in C order, by the entry point of the compiled kernel: numba's dispatcher asks every argument for
its type, which takes 0.8 µs (Sapphire Rapids).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._layout import Layout, RowPlan
from ..results import Array
from . import rows
from .jit import Kernel
from .launch_rows import backward_room, parameters
from .parallel import ALONE
from .run import PARALLEL_BYTES, PIECE, kind

Vector = Array | None


class _Finder:
    """In the place of an entry point: remembers that of the arguments it is called with."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.point: Any = None

    def __call__(self, *args: Any) -> None:
        self.point = self.kernel.entry(*args)


def fits(layout: Layout, nbytes: int, arrays: Sequence[Array | None]) -> bool:
    """Whether arrays of this layout are prepared for, beside others."""
    plain = all(a is None or (a.flags.c_contiguous and a.flags.aligned) for a in arrays)
    same = all(a is None or a.dtype == layout.dtype for a in arrays)
    small = 0 < nbytes < PARALLEL_BYTES
    return small and plain and same and layout.order is None and layout.storage is layout.dtype


def row_forward(
    plan: RowPlan, x: Array, weight: Vector, bias: Vector, eps: float, activation: str | None, keep: bool
) -> Callable[[Array, Vector, Vector], tuple[Array, Array]] | None:
    """(x, weight, bias) to y and the statistics that are kept, for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, (x, weight, bias)):
        return None
    n, m, shape, dtype, empty = plan.cols, plan.rows, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros, part, period = parameters(plan, weight, bias)
    block, fused, centred, kept, none = 1 + PIECE // n, kind(activation), plan.centred, (2, m), empty((0, m))
    pieces, shaped = -(-m // block), len(plan.parameter_shape) != 1

    def call(x: Array, weight: Vector, bias: Vector) -> tuple[Array, Array]:
        y, statistics = empty(shape, dtype), empty(kept) if keep else none
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        if shaped:
            w, b = w.ravel(), b if b is None else b.ravel()
        entry(ALONE, pieces, (
            x.ravel(), None, m, n, block, w, b, part, period, fused, centred, eps, None, None, y.ravel(),
            statistics, False,
        ))  # fmt: skip
        return y, statistics

    entry: Any = _Finder(rows.forward)
    call(x, weight, bias)
    entry = entry.point
    return call


def row_backward(
    plan: RowPlan, dy: Array, x: Array, weight: Vector, bias: Vector, activation: str | None
) -> Callable[[Array, Array, Array, Array, Vector, Vector], tuple[Array, Vector, Vector]] | None:
    """(dy, x, mean, rstd, weight, bias) to dx, dweight and dbias, for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, (dy, x, weight, bias)) or plan.period > 1:
        return None
    n, m, shape, dtype, empty = plan.cols, plan.rows, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros, part, period = parameters(plan, weight, bias, activation is not None)
    block, blocks, count, width = backward_room(plan, part, period)
    room, fused, centred = blocks * rows.gradient_room.py_func(n), kind(activation), plan.centred
    sums, wanted, both, shaped = (blocks, count, width), part == n, count == 2, len(plan.parameter_shape) != 1

    def call(
        dy: Array, x: Array, mean: Array, rstd: Array, weight: Vector, bias: Vector
    ) -> tuple[Array, Vector, Vector]:
        dx = empty(shape, dtype)
        dweight, dbias = empty(width, dtype) if wanted else None, empty(width, dtype) if both else None
        w, b = ones if weight is None else weight, zeros if bias is None or zeros is None else bias
        if shaped:
            w, b = w.ravel(), b if b is None else b.ravel()
        entry(
            ALONE, dy.ravel(), x.ravel(), m, n, block, w, b, part, period, fused,
            None if fused is None else empty(room, dtype), None, centred, mean, rstd, dx.ravel(),
            empty(sums, dtype), empty(sums), dweight, dbias, False,
        )  # fmt: skip
        if shaped:
            dweight = None if dweight is None else dweight.reshape(plan.parameter_shape)
            dbias = None if dbias is None else dbias.reshape(plan.parameter_shape)
        return dx, None if weight is None else dweight, None if bias is None else dbias

    entry: Any = _Finder(rows.backward)
    statistics = empty((2, m))
    call(dy, x, statistics[0], statistics[1], weight, bias)
    entry = entry.point
    return call
