"""Small calls: a pass over arrays too small for threads, as a function of these arrays alone.

What is prepared here does what the functions of the same names in `launch_rows` and `launch_channels` do, for
plain arrays in C order, by the entry point of the compiled kernel: numba's dispatcher asks every argument for
its type, which takes 0.8 µs (Sapphire Rapids).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from .._buffers import SMALLEST
from .._layout import ChannelPlan, GroupPlan, Layout, RowPlan
from ..results import Array
from . import groups, rows, tuning
from .jit import Kernel
from .launch_channels import backward_kernel, forward_kernel, normalize_kernel
from .launch_rows import as_rows, backward_room, parameters, short
from .parallel import ALONE
from .run import kind, parameter
from .tuning import ROWS_PIECE

Vector = Array | None


class _Recorder:
    """In the place of a launch: finds the entry point for the arguments it is given, and runs nothing."""

    def __init__(self, kernel: Kernel, lead: tuple[int, ...] = ()) -> None:
        """lead: the pieces of a kernel that is one loop."""
        self.kernel, self.lead = kernel, lead
        self.launch: Callable[[tuple[Any, ...]], None]

    def __call__(self, args: tuple[Any, ...]) -> None:
        if self.lead:
            self.launch = partial(self.kernel.entry(ALONE, *self.lead, args), ALONE, *self.lead)
        else:
            point = self.kernel.entry(ALONE, *args)
            self.launch = lambda args: point(ALONE, *args)


def fits(layout: Layout, nbytes: int, threads: int | None, out: Vector, arrays: Sequence[Vector]) -> bool:
    """Whether arrays of this layout are prepared for, beside others and an output, which may be absent."""
    given = (*arrays, out)
    plain = all(a is None or a.flags.carray for a in given)
    same = all(a is None or a.dtype == layout.dtype for a in given)
    limit = tuning.STREAM_BYTES if threads == 1 else min(tuning.PARALLEL_BYTES, tuning.STREAM_BYTES)
    if out is None:
        limit = min(limit, SMALLEST)  # larger outputs come from the pool
    return 0 < nbytes < limit and plain and same and layout.order is None and layout.storage is layout.dtype


def _absent(given: Vector, default: Vector) -> Any:
    """What stands for an absent parameter; nothing where it is given, or the caller's array would be kept."""
    return default if given is None else None


def row_forward(
    plan: RowPlan,
    x: Array,
    weight: Vector,
    bias: Vector,
    eps: float,
    activation: str | None,
    keep: bool,
    threads: int | None,
    out: Vector,
) -> Callable[..., tuple[Array, Array]] | None:
    """(x, weight, bias, out) to y and the statistics that are kept, for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, threads, out, (x, weight, bias)) or plan.inner > 1:
        return None
    n, m, shape, dtype, empty = plan.cols, plan.rows, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros, part, period = parameters(plan, weight, bias)
    absent = _absent(weight, ones), _absent(bias, zeros)
    block, fused, centred, kept = 1 + ROWS_PIECE // n, kind(activation), plan.centred, 2 if keep else 0
    pieces, shaped, none = -(-m // block), len(plan.parameter_shape) != 1, empty((0, m))

    def call(x: Array, weight: Vector, bias: Vector, out: Vector) -> tuple[Array, Array]:
        y = empty(shape, dtype) if out is None else out
        statistics = empty((kept, m)) if keep else none
        w, b = absent[0] if weight is None else weight, absent[1] if bias is None else bias
        if shaped:
            w, b = w.ravel(), b if b is None else b.ravel()
        launch((
            x.ravel(), None, m, n, block, w, b, part, period, fused, centred, eps, None, None, y.ravel(),
            kept, statistics, False,
        ))  # fmt: skip
        return y, statistics

    launch: Any = _Recorder(rows.forward, (pieces,))
    call(x, weight, bias, None)
    launch = launch.launch
    return call


def _like(parameter: Vector, gradient: Vector) -> Vector:
    """The gradient in the shape of its parameter, if there are both."""
    return None if parameter is None or gradient is None else gradient.reshape(parameter.shape)


def row_backward(
    plan: RowPlan,
    dy: Array,
    x: Array,
    weight: Vector,
    bias: Vector,
    activation: str | None,
    threads: int | None,
    out: Vector,
) -> Callable[..., tuple[Array, Vector, Vector]] | None:
    """(dy, x, mean, rstd, weight, bias, out) to dx, dweight and dbias, for arrays such as these."""
    # Longer rows have a kernel of their own.
    plain = plan.period == plan.inner == 1 and plan.cols <= ROWS_PIECE
    if not plain or not fits(plan.layout, plan.nbytes, threads, out, (dy, x, weight, bias)):
        return None
    n, m, shape, dtype, empty = plan.cols, plan.rows, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros, part, period = parameters(plan, weight, bias, activation is not None)
    absent, biased = (_absent(weight, ones), _absent(bias, zeros)), zeros is not None
    block, blocks, count, width = backward_room(plan, part, period)
    if 8 * blocks * count * width >= SMALLEST:  # the sums come from the pool, too
        return None
    room, fused, centred = blocks * rows.gradient_room.py_func(n), kind(activation), plan.centred
    sums, both, shaped = (blocks, count, width), count == 2, len(plan.parameter_shape) != 1

    def call(
        dy: Array, x: Array, mean: Array, rstd: Array, weight: Vector, bias: Vector, out: Vector
    ) -> tuple[Array, Vector, Vector]:
        dx = empty(shape, dtype) if out is None else out
        dweight, dbias = empty(width, dtype), empty(width, dtype) if both else None
        w = absent[0] if weight is None else weight
        b = bias if biased and bias is not None else absent[1]
        if shaped:
            w, b = w.ravel(), b if b is None else b.ravel()
        launch((
            dy.ravel(), x.ravel(), m, n, block, w, b, part, period, fused,
            None if fused is None else empty(room, dtype), None, centred, mean, rstd, dx.ravel(),
            empty(sums, dtype), empty(sums), dweight, dbias, False,
        ))  # fmt: skip
        if weight is None or bias is None or shaped:
            return dx, _like(weight, dweight), _like(bias, dbias)
        return dx, dweight, dbias

    launch: Any = _Recorder(rows.backward)
    statistics = empty((2, m))
    call(dy, x, statistics[0], statistics[1], weight, bias, None)
    launch = launch.launch
    return call


def channel_forward(
    plan: ChannelPlan,
    x: Array,
    weight: Vector,
    bias: Vector,
    running: tuple[Vector, Vector],
    training: bool,
    eps: float,
    factor: float,
    activation: str | None,
    threads: int | None,
    out: Vector,
) -> Callable[..., tuple[Array, Array]] | None:
    """(x, weight, bias, running_mean, running_var, out) to y and (mean, rstd), for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, threads, out, (x, weight, bias)):
        return None
    c, shape, dtype, empty = plan.channels, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    settings, kept = np.array((eps, factor, 1.0, 0.0)), (2, c)
    kernel, arguments = (forward_kernel if training else normalize_kernel)(plan, activation)

    def call(
        x: Array, weight: Vector, bias: Vector, running_mean: Vector, running_var: Vector, out: Vector
    ) -> tuple[Array, Array]:
        y, statistics = empty(shape, dtype) if out is None else out, empty(kept)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        parameters = w, b, settings, statistics, running_mean, running_var
        launch(arguments(x.ravel(), None, parameters, y.ravel()))
        return y, statistics

    launch: Any = _Recorder(kernel)
    call(x, weight, bias, *running, None)
    launch = launch.launch
    return call


def channel_backward(
    plan: ChannelPlan,
    dy: Array,
    x: Array,
    weight: Vector,
    bias: Vector,
    training: bool,
    activation: str | None,
    threads: int | None,
    out: Vector,
) -> Callable[..., tuple[Array, Array, Array]] | None:
    """(dy, x, mean, rstd, weight, bias, out) to dx, dweight and dbias, for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, threads, out, (dy, x, weight, bias)):
        return None
    c, shape, dtype, empty = plan.channels, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    kernel, arguments = backward_kernel(plan, activation, 2, 1)

    def call(
        dy: Array, x: Array, mean: Array, rstd: Array, weight: Vector, bias: Vector, out: Vector
    ) -> tuple[Array, Array, Array]:
        dx, dweight, dbias = empty(shape, dtype) if out is None else out, empty(c), empty(c)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        given = w, b, mean, rstd, training, dweight, dbias
        launch(arguments(dy.ravel(), x.ravel(), None, given, dx.ravel(), None))
        with np.errstate(over="ignore", invalid="ignore"):  # as y and dx become inf without a warning
            return dx, dweight.astype(dtype), dbias.astype(dtype)

    launch: Any = _Recorder(kernel)
    statistics = empty((2, c))
    call(dy, x, statistics[0], statistics[1], weight, bias, None)
    launch = launch.launch
    return call


def group_forward(
    plan: GroupPlan,
    x: Array,
    weight: Vector,
    bias: Vector,
    eps: float,
    activation: str | None,
    keep: bool,
    threads: int | None,
    out: Vector,
) -> Callable[..., tuple[Array, Array]] | None:
    """(x, weight, bias, out) to y and the statistics that are kept, for arrays such as these."""
    if not fits(plan.layout, plan.nbytes, threads, out, (x, weight, bias)):
        return None
    n, dtype, shape, empty = plan.inner, plan.layout.dtype, plan.layout.shape, np.empty
    if short(plan):
        one_each = as_rows(plan)

        def repeated(p: Vector) -> Vector:
            return p if p is None or n == 1 else p.repeat(n)

        given = repeated(weight), repeated(bias), eps, activation, keep, threads, out
        rows_call = row_forward(one_each, x, *given)
        if rows_call is None:
            return None
        return lambda x, weight, bias, out: rows_call(x, repeated(weight), repeated(bias), out)
    one, zero = parameter(None, 1, 1.0, dtype), parameter(None, 1, 0.0, dtype)
    weight_stride, bias_stride = int(weight is not None), int(bias is not None)
    m, block, fused, kept = plan.rows, 1 + ROWS_PIECE // plan.cols, kind(activation), 2 if keep else 0

    def call(x: Array, weight: Vector, bias: Vector, out: Vector) -> tuple[Array, Array]:
        y, statistics = empty(shape, dtype) if out is None else out, empty((kept, m))
        launch((
            x.ravel(), m, plan.groups, plan.channels, n, block, plan.divisor,
            one if weight is None else weight, weight_stride, zero if bias is None else bias, bias_stride,
            fused, plan.centred, eps, y.ravel(), kept, statistics, False,
        ))  # fmt: skip
        return y, statistics

    launch: Any = _Recorder(groups.forward, (-(-m // block),))
    call(x, weight, bias, None)
    launch = launch.launch
    return call
