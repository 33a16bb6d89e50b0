"""Prepared calls: a pass as a function of its arrays alone.

What is prepared here does what the functions of the same names in `launch_rows` and `launch_channels` do, for
dense arrays, by the entry point of the compiled kernel: numba's dispatcher asks every argument for its type,
which takes 0.8 µs (Sapphire Rapids).
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np

from .. import _buffers
from .._buffers import SMALLEST
from .._layout import ChannelPlan, GroupPlan, Layout, Plan, RowPlan
from ..results import Array, Grads, Saved
from . import tuning
from .groups import move_running
from .jit import Kernel
from .launch_channels import backward_kernel, forward_kernel, normalize_kernel
from .launch_rows import (
    for_each,
    group_backward_launch,
    group_forward_launch,
    moving,
    of_channels,
    row_backward_launch,
    row_forward_launch,
    short,
)
from .layouts import empty, fits, flat
from .parallel import ALONE
from .run import is_direct, parameter, run

Vector = Array | None


class _Recorder:
    """In the place of a launch: finds the entry point for arguments such as these, and runs nothing."""

    def __init__(self, kernel: Kernel, nbytes: int, threads: int | None, lead: tuple[int, ...] = ()) -> None:
        """lead: the pieces of a kernel that is one loop."""
        self.kernel, self.nbytes, self.threads, self.lead = kernel, nbytes, threads, lead
        self.launch: Callable[[tuple[Any, ...]], None]

    def __call__(self, args: tuple[Any, ...]) -> None:
        # The entry point of a loop takes its arguments as a tuple.
        point = self.kernel.entry(ALONE, *self.lead, args) if self.lead else self.kernel.entry(ALONE, *args)
        alone = self.nbytes < tuning.PARALLEL_BYTES or self.threads == 1
        call = partial(point, ALONE) if alone else partial(run, point, self.nbytes, self.threads)
        self.launch = partial(call, *self.lead) if self.lead else lambda args: call(*args)


def _prepared(layout: Layout, parameters: Sequence[Vector], out: Vector, *arrays: Array) -> bool:
    """Whether calls are prepared for arrays of this layout, with such parameters and such an output."""
    if out is not None:
        arrays = (*arrays, out)
        if not out.flags.writeable:
            return False
    simple = _is_simple(layout)
    return (
        layout.size > 0
        and all(a.dtype == layout.dtype and fits(layout, a) for a in arrays)
        and all(a.flags.carray for a in arrays if simple)
        and all(p is None or p.flags.carray for p in parameters)
    )


def _is_simple(layout: Layout) -> bool:
    """Whether kernels see arrays of a layout as NumPy does."""
    return layout.order is None and layout.storage is layout.dtype


def _seen(layout: Layout) -> Callable[[Array], Array]:
    """What gives an array of this layout as kernels see it."""
    return methodcaller("ravel") if _is_simple(layout) else lambda a: flat(layout, a, a)


def _output(layout: Layout) -> Callable[[], Array]:
    """What makes the output of a call."""
    shape, dtype, size = layout.shape, layout.dtype, layout.size
    if not _is_simple(layout):
        nothing = np.empty(0, dtype)
        return lambda: empty(layout, nothing)[0]
    if layout.nbytes < SMALLEST:
        return partial(np.empty, shape, dtype)
    return lambda: _buffers.empty(size, dtype).reshape(shape)


def _is_large(given: Vector, default: Vector) -> bool:
    """Whether the default of an absent parameter is too large to be kept for a signature."""
    return given is None and default is not None and default.size > tuning.ROWS_PIECE


def _absent(given: Vector, default: Vector) -> Any:
    """What stands for an absent parameter; nothing where it is given, or the caller's array would be kept."""
    return default if given is None else None


def _taken(given: Vector, plan: Plan) -> Callable[[Array], Array] | None:
    """What makes a parameter one as kernels take it; None if it is that already, or absent."""
    if given is None:
        return None
    spread = for_each(plan) if isinstance(plan, GroupPlan) and short(plan) else None
    if spread is None and given.ndim != 1:
        spread = methodcaller("ravel")
    if given.dtype == plan.layout.arithmetic:
        return spread
    wide = methodcaller("astype", plan.layout.arithmetic)
    return wide if spread is None else lambda a: spread(wide(a))


def _ways(
    plan: Plan, weight: Vector, bias: Vector
) -> tuple[Callable[[], Array], Callable[[Array], Array], Any, Any]:
    """What makes an output, shows an array as kernels see it, and weight and bias as they take them."""
    return _output(plan.layout), _seen(plan.layout), _taken(weight, plan), _taken(bias, plan)


def _like(given: Vector, plan: Plan) -> Callable[[Array], Array] | None:
    """What makes a gradient one of this parameter; None if kernels give it as it is to be."""
    if given is None or (given.ndim == 1 and given.dtype == plan.layout.arithmetic):
        return None
    shape, dtype = given.shape, given.dtype

    def like(gradient: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # as y and dx become inf without a warning
            return gradient.astype(dtype).reshape(shape)

    return like


def row_forward(
    norm: str,
    plan: RowPlan | GroupPlan,
    arrays: Sequence[Vector],
    eps: float,
    activation: str | None,
    keep: bool,
    threads: int | None,
    running: Sequence[Array] = (),
    factor: float = 0.0,
) -> Callable[..., tuple[Array, Any]] | None:
    """(x, weight, bias, out) to y, and with `keep` what is saved, for arrays such as these; groups, too.

    With running statistics of instances, which come after `out`, these are moved.
    """
    weight, bias, out = arrays[1:]
    x: Any = arrays[0]
    if isinstance(plan, RowPlan) and plan.inner > 1:
        return None
    if not _prepared(plan.layout, (weight, bias), out, x) or not all(map(is_direct, running)):
        return None
    room, kept = np.empty, 3 if running else 2 if keep else 0
    make, seen, of_weight, of_bias = _ways(plan, weight, bias)
    move: Any = None
    if isinstance(plan, RowPlan):
        launch = row_forward_launch(plan, (weight, bias), activation, kept, False, threads)
    else:
        launch = group_forward_launch(plan, (weight, bias), activation, kept, threads)
    kernel, pieces, ones, zeros, fused, given, _, stream, _ = launch
    if _is_large(weight, ones) or _is_large(bias, zeros):
        return None
    absent = _absent(weight, ones), _absent(bias, zeros)
    size, nothing = (kept, plan.rows), room((0, plan.rows))

    def call(x: Any, weight: Any, bias: Any, out: Vector, *running: Array) -> tuple[Array, Any]:
        y = make() if out is None else out
        statistics = room(size) if kept else nothing
        w, b = absent[0] if weight is None else weight, absent[1] if bias is None else bias
        if of_weight is not None:
            w = of_weight(w)
        if of_bias is not None:
            b = of_bias(b)
        launched((
            (seen(x), None, None, None, seen(y), stream), (w, b, fused), given, eps, kept, statistics
        ))  # fmt: skip
        if move is not None:
            move(ALONE, statistics, *where, *running)
        if keep:
            mean, rstd = statistics[0], statistics[1]
            return y, Saved(x, mean, rstd, weight, bias, True, plan, norm, activation)
        return y, None

    recorder = _Recorder(kernel, plan.nbytes, threads, pieces)
    flat = (seen(x), None, None, None, seen(x), stream)
    recorder((flat, (ones, zeros, fused), given, eps, kept, room((kept, 0))))
    launched = recorder.launch
    if isinstance(plan, GroupPlan) and running and factor != 0.0:
        where = moving(plan, factor)
        move = move_running.entry(ALONE, room((kept, 0)), *where, *running)
    return call


def row_backward(
    dy: Array, saved: Saved[Any], threads: int | None, out: Vector
) -> Callable[..., Grads] | None:
    """(dy, saved, out) to the gradients, for arrays such as these; groups, too."""
    x, _, _, weight, bias, _, plan, _, activation, *_ = saved
    if not _prepared(plan.layout, (weight, bias), out, dy, x):
        return None
    if (plan.parameters if isinstance(plan, GroupPlan) else plan.cols) > 2 * tuning.ROWS_PIECE:
        return None  # a sample of the gradients would take as much room as they do
    totals: Any = None
    if isinstance(plan, GroupPlan):
        launch = group_backward_launch(plan, (weight, bias), activation, threads)
        totals = None if weight is None and bias is None else of_channels(plan)
    elif plan.inner > 1:
        return None
    else:
        launch = row_backward_launch(plan, (weight, bias), activation, threads)
    make, seen, of_weight, of_bias = _ways(plan, weight, bias)
    like_weight, like_bias = _like(weight, plan), _like(bias, plan)
    ones, zeros, kernel, arguments = launch
    if _is_large(weight, ones) or _is_large(bias, zeros):
        return None
    absent, biased = (_absent(weight, ones), _absent(bias, zeros)), zeros is not None
    recorder, nothing = _Recorder(kernel, plan.nbytes, threads), np.empty(0)
    sample, *_ = arguments(seen(dy), seen(x), None, seen(dy), (nothing, nothing), ones, zeros)
    recorder(sample)
    launched = recorder.launch

    def call(dy: Any, saved: Saved[Any], out: Vector) -> Grads:
        x, mean, rstd, weight, bias = saved[:5]
        dx = make() if out is None else out
        w = absent[0] if weight is None else weight
        b = bias if biased and bias is not None else absent[1]
        if of_weight is not None:
            w = of_weight(w)
        if of_bias is not None and b is not None:
            b = of_bias(b)
        given, dweight, dbias = arguments(seen(dy), seen(x), None, seen(dx), (mean, rstd), w, b)
        launched(given)
        if totals is not None:
            dweight, dbias = totals(dweight, dbias)
        return Grads(
            dx,
            None if weight is None else dweight if like_weight is None else like_weight(dweight),
            None if bias is None else dbias if like_bias is None else like_bias(dbias),
        )

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
    if not _prepared(plan.layout, (weight, bias), out, x):
        return None
    if not all(s is None or is_direct(s) for s in running):
        return None
    c, dtype, room = plan.channels, plan.layout.arithmetic, np.empty
    make, seen, of_weight, of_bias = _ways(plan, weight, bias)
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    if _is_large(weight, ones) or _is_large(bias, zeros):
        return None
    settings, kept = np.array((eps, factor, 1.0, 0.0)), (2, c)
    kernel, arguments = (
        forward_kernel(plan, activation, threads) if training else normalize_kernel(plan, activation)
    )

    def call(
        x: Array, weight: Vector, bias: Vector, running_mean: Vector, running_var: Vector, out: Vector
    ) -> tuple[Array, Array]:
        y, statistics = make() if out is None else out, room(kept)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        if of_weight is not None:
            w = of_weight(w)
        if of_bias is not None:
            b = of_bias(b)
        parameters = w, b, settings, statistics, running_mean, running_var
        launch(arguments(seen(x), None, parameters, seen(y)))
        return y, statistics

    recorder = _Recorder(kernel, plan.nbytes, threads)
    recorder(arguments(seen(x), None, (ones, zeros, settings, room((2, 0)), *running), seen(x)))
    launch = recorder.launch
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
    if not _prepared(plan.layout, (weight, bias), out, dy, x):
        return None
    c, dtype, room = plan.channels, plan.layout.arithmetic, np.empty
    make, seen, of_weight, of_bias = _ways(plan, weight, bias)
    like_weight, like_bias = _like(weight, plan), _like(bias, plan)
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    if _is_large(weight, ones) or _is_large(bias, zeros):
        return None
    kernel, arguments = backward_kernel(plan, activation, 2, threads)

    def call(
        dy: Array, x: Array, mean: Array, rstd: Array, weight: Vector, bias: Vector, out: Vector
    ) -> tuple[Array, Array, Array]:
        dx = make() if out is None else out
        dweight, dbias = room(c, dtype), room(c, dtype)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        if of_weight is not None:
            w = of_weight(w)
        if of_bias is not None:
            b = of_bias(b)
        given = w, b, mean, rstd, training, dweight, dbias
        launch(arguments(seen(dy), seen(x), None, given, seen(dx), None))
        return (
            dx,
            dweight if like_weight is None else like_weight(dweight),
            dbias if like_bias is None else like_bias(dbias),
        )

    recorder, nothing, none = _Recorder(kernel, plan.nbytes, threads), room(0), room(0, dtype)
    given = ones, zeros, nothing, nothing, training, none, none
    recorder(arguments(seen(dy), seen(x), None, given, seen(dy), None))
    launch = recorder.launch
    return call
