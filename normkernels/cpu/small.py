"""Small calls: a pass over arrays too small for threads, as a function of these arrays alone.

What is prepared here does what the functions of the same names in `launch_rows` and `launch_channels` do, for
plain arrays in C order, by the entry point of the compiled kernel: numba's dispatcher asks every argument for
its type, which takes 0.8 µs (Sapphire Rapids).
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np

from .._buffers import SMALLEST
from .._layout import ChannelPlan, GroupPlan, Layout, RowPlan
from ..results import Array, Grads, Saved
from . import tuning
from .jit import Kernel
from .launch_channels import backward_kernel, forward_kernel, normalize_kernel
from .launch_rows import (
    for_each,
    group_backward_launch,
    group_forward_launch,
    of_channels,
    row_backward_launch,
    row_forward_launch,
    short,
)
from .parallel import ALONE
from .run import parameter

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
    norm: str,
    plan: RowPlan | GroupPlan,
    arrays: Sequence[Vector],
    eps: float,
    activation: str | None,
    keep: bool,
    threads: int | None,
) -> Callable[..., tuple[Array, Any]] | None:
    """(x, weight, bias, out) to y, and with `keep` what is saved, for arrays such as these; groups, too."""
    x, weight, bias, out = arrays
    if isinstance(plan, RowPlan) and plan.inner > 1:
        return None
    if not fits(plan.layout, plan.nbytes, threads, out, (x, weight, bias)):
        return None
    shape, dtype, empty, kept = plan.layout.shape, plan.layout.dtype, np.empty, 2 if keep else 0
    flat: Any = None
    if isinstance(plan, RowPlan):
        launch = row_forward_launch(plan, (weight, bias), activation, kept, False, threads)
        if len(plan.parameter_shape) != 1:
            flat = methodcaller("ravel")
    else:
        launch = group_forward_launch(plan, (weight, bias), activation, kept, threads)
        if short(plan):
            flat = for_each(plan)
    kernel, pieces, ones, zeros, fused, given, _, stream, _ = launch
    absent = _absent(weight, ones), _absent(bias, zeros)
    size, nothing = (2, plan.rows), empty((0, plan.rows))

    def call(x: Any, weight: Any, bias: Any, out: Vector) -> tuple[Array, Any]:
        y = empty(shape, dtype) if out is None else out
        statistics = empty(size) if keep else nothing
        w, b = absent[0] if weight is None else weight, absent[1] if bias is None else bias
        if flat is not None:
            w, b = w if weight is None else flat(weight), b if bias is None else flat(bias)
        run((
            (x.ravel(), None, None, None, y.ravel(), stream), (w, b, fused), given, eps, kept, statistics
        ))  # fmt: skip
        if keep:
            mean, rstd = statistics[0], statistics[1]
            return y, Saved(x, mean, rstd, weight, bias, True, plan, norm, activation)
        return y, None

    run: Any = _Recorder(kernel, pieces)
    call(x, weight, bias, None)
    run = run.launch
    return call


def row_backward(
    dy: Array, saved: Saved[Any], threads: int | None, out: Vector
) -> Callable[..., Grads] | None:
    """(dy, saved, out) to the gradients, for arrays such as these; groups, too."""
    x, _, _, weight, bias, _, plan, _, activation, *_ = saved
    if not fits(plan.layout, plan.nbytes, threads, out, (dy, x, weight, bias)):
        return None
    flat: Any = None
    shaped: Any = None
    totals: Any = None
    if isinstance(plan, GroupPlan):
        if not plan.centred:  # weight norm
            return None
        launch = group_backward_launch(plan, (weight, bias), activation, threads)
        totals = None if weight is None and bias is None else of_channels(plan)
        if short(plan):
            flat = for_each(plan)
    elif plan.inner > 1:
        return None
    else:
        launch = row_backward_launch(plan, (weight, bias), activation, threads)
        if len(plan.parameter_shape) != 1:
            flat, shaped = methodcaller("ravel"), methodcaller("reshape", plan.parameter_shape)
    ones, zeros, kernel, arguments = launch
    absent, biased = (_absent(weight, ones), _absent(bias, zeros)), zeros is not None
    shape, dtype, empty = plan.layout.shape, plan.layout.dtype, np.empty
    both = empty((2, plan.rows))
    sample, *_ = arguments(dy.ravel(), x.ravel(), None, dy.ravel(), (both[0], both[1]), ones, zeros)
    entry = kernel.entry(ALONE, *sample)

    def call(dy: Any, saved: Saved[Any], out: Vector) -> Grads:
        x, mean, rstd, weight, bias = saved[:5]
        dx = empty(shape, dtype) if out is None else out
        w = absent[0] if weight is None else weight
        b = bias if biased and bias is not None else absent[1]
        if flat is not None:
            w, b = w if weight is None else flat(weight), b if bias is None or b is None else flat(bias)
        given, dweight, dbias = arguments(dy.ravel(), x.ravel(), None, dx.ravel(), (mean, rstd), w, b)
        entry(ALONE, *given)
        if totals is not None:
            dweight, dbias = totals(dweight, dbias)
        return Grads(
            dx,
            None if weight is None else shaped(dweight) if shaped else dweight,
            None if bias is None else shaped(dbias) if shaped else dbias,
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
    if not fits(plan.layout, plan.nbytes, threads, out, (x, weight, bias)):
        return None
    c, shape, dtype, empty = plan.channels, plan.layout.shape, plan.layout.dtype, np.empty
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    settings, kept = np.array((eps, factor, 1.0, 0.0)), (2, c)
    kernel, arguments = (
        forward_kernel(plan, activation, 1) if training else normalize_kernel(plan, activation)
    )

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
        dx = empty(shape, dtype) if out is None else out
        dweight, dbias = empty(c, dtype), empty(c, dtype)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        given = w, b, mean, rstd, training, dweight, dbias
        launch(arguments(dy.ravel(), x.ravel(), None, given, dx.ravel(), None))
        return dx, dweight, dbias

    launch: Any = _Recorder(kernel)
    statistics = empty((2, c))
    call(dy, x, statistics[0], statistics[1], weight, bias, None)
    launch = launch.launch
    return call
