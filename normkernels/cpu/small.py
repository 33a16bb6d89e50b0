"""Prepared calls: a pass as a function of its arrays alone.

What is prepared here does what the functions of the same names in `launch_rows` and `launch_channels` do, for
plain arrays in C order, by the entry point of the compiled kernel: numba's dispatcher asks every argument for
its type, which takes 0.8 µs (Sapphire Rapids).
"""

from collections.abc import Callable, Sequence
from functools import partial
from operator import methodcaller
from typing import Any

import numpy as np

from .. import _buffers
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
from .run import parameter, run

Vector = Array | None


class _Recorder:
    """In the place of a launch: finds the entry point for the arguments it is given, and runs nothing.

    So it is given x as the output, too: a new one may be large.
    """

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


def _plain(layout: Layout, *arrays: Vector) -> bool:
    """Whether arrays of this layout are prepared for, beside others, which may be absent."""
    plain = all(a is None or (a.flags.carray and a.dtype == layout.dtype) for a in arrays)
    return plain and layout.size > 0 and layout.order is None and layout.storage is layout.dtype


def _output(layout: Layout) -> Callable[[], Array]:
    """What makes the output of a call."""
    shape, dtype, size = layout.shape, layout.dtype, layout.size
    if layout.nbytes < SMALLEST:
        return partial(np.empty, shape, dtype)
    return lambda: _buffers.empty(size, dtype).reshape(shape)


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
    if not _plain(plan.layout, x, weight, bias, out):
        return None
    empty, make, kept = np.empty, _output(plan.layout), 2 if keep else 0
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
        y = make() if out is None else out
        statistics = empty(size) if keep else nothing
        w, b = absent[0] if weight is None else weight, absent[1] if bias is None else bias
        if flat is not None:
            w, b = w if weight is None else flat(weight), b if bias is None else flat(bias)
        launched((
            (x.ravel(), None, None, None, y.ravel(), stream), (w, b, fused), given, eps, kept, statistics
        ))  # fmt: skip
        if keep:
            mean, rstd = statistics[0], statistics[1]
            return y, Saved(x, mean, rstd, weight, bias, True, plan, norm, activation)
        return y, None

    launched: Any = _Recorder(kernel, plan.nbytes, threads, pieces)
    call(x, weight, bias, x)
    launched = launched.launch
    return call


def row_backward(
    dy: Array, saved: Saved[Any], threads: int | None, out: Vector
) -> Callable[..., Grads] | None:
    """(dy, saved, out) to the gradients, for arrays such as these; groups, too."""
    x, _, _, weight, bias, _, plan, _, activation, *_ = saved
    if not _plain(plan.layout, dy, x, weight, bias, out):
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
    make, both, recorder = (
        _output(plan.layout),
        np.empty((2, plan.rows)),
        _Recorder(kernel, plan.nbytes, threads),
    )
    sample, *_ = arguments(dy.ravel(), x.ravel(), None, dy.ravel(), (both[0], both[1]), ones, zeros)
    recorder(sample)
    launched = recorder.launch

    def call(dy: Any, saved: Saved[Any], out: Vector) -> Grads:
        x, mean, rstd, weight, bias = saved[:5]
        dx = make() if out is None else out
        w = absent[0] if weight is None else weight
        b = bias if biased and bias is not None else absent[1]
        if flat is not None:
            w, b = w if weight is None else flat(weight), b if bias is None or b is None else flat(bias)
        given, dweight, dbias = arguments(dy.ravel(), x.ravel(), None, dx.ravel(), (mean, rstd), w, b)
        launched(given)
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
    if not _plain(plan.layout, x, weight, bias, out):
        return None
    c, dtype, empty, make = plan.channels, plan.layout.dtype, np.empty, _output(plan.layout)
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    settings, kept = np.array((eps, factor, 1.0, 0.0)), (2, c)
    kernel, arguments = (
        forward_kernel(plan, activation, threads) if training else normalize_kernel(plan, activation)
    )

    def call(
        x: Array, weight: Vector, bias: Vector, running_mean: Vector, running_var: Vector, out: Vector
    ) -> tuple[Array, Array]:
        y, statistics = make() if out is None else out, empty(kept)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        parameters = w, b, settings, statistics, running_mean, running_var
        launch(arguments(x.ravel(), None, parameters, y.ravel()))
        return y, statistics

    launch: Any = _Recorder(kernel, plan.nbytes, threads)
    call(x, weight, bias, *running, x)
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
    if not _plain(plan.layout, dy, x, weight, bias, out):
        return None
    c, dtype, empty, make = plan.channels, plan.layout.dtype, np.empty, _output(plan.layout)
    ones, zeros = parameter(None, c, 1.0, dtype), parameter(None, c, 0.0, dtype)
    kernel, arguments = backward_kernel(plan, activation, 2, threads)

    def call(
        dy: Array, x: Array, mean: Array, rstd: Array, weight: Vector, bias: Vector, out: Vector
    ) -> tuple[Array, Array, Array]:
        dx = make() if out is None else out
        dweight, dbias = empty(c, dtype), empty(c, dtype)
        w, b = ones if weight is None else weight, zeros if bias is None else bias
        given = w, b, mean, rstd, training, dweight, dbias
        launch(arguments(dy.ravel(), x.ravel(), None, given, dx.ravel(), None))
        return dx, dweight, dbias

    launch: Any = _Recorder(kernel, plan.nbytes, threads)
    statistics = empty((2, c))
    call(dy, x, statistics[0], statistics[1], weight, bias, dy)
    launch = launch.launch
    return call
