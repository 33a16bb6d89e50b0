"""What `vectors` and numba's CUDA module offer kernels, in NumPy, for numba's simulator.

A thread is a thread of Python, a vector an array. Shared memory stands in for warps, and a team of
several blocks is simulated as one block of as many threads.
"""

import math
import threading
from typing import Any

import numpy as np
from numba.cuda.simulator.kernel import _get_kernel_context

from .._formulas import merge
from .form import ACCESS_BYTES, MAGIC_BITS

one_at_a_time = threading.Lock()
_WIDE = {"uint16": np.float32, "int16": np.float32}


class Pointer:
    """A place in an array, indexed from there."""

    def __init__(self, memory: Any, start: int = 0) -> None:
        self.memory, self.start = memory, start

    def __getitem__(self, i: int) -> Any:
        return self.memory[self.start + i]

    def __setitem__(self, i: int, value: Any) -> None:
        self.memory[self.start + i] = value


def arithmetic(pointer: Pointer) -> Any:
    return _WIDE.get(pointer.memory.dtype.name, pointer.memory.dtype.type)


def _half(dtype: np.dtype[Any]) -> Any:
    import ml_dtypes

    return np.float16 if dtype == np.uint16 else ml_dtypes.bfloat16


def widened(values: Any) -> Any:
    if values.dtype.itemsize > 2:
        return values
    return values.view(_half(values.dtype)).astype(np.float32)


def narrowed(values: Any, dtype: np.dtype[Any]) -> Any:
    if dtype.itemsize > 2:
        return values
    with np.errstate(over="ignore"):
        return values.astype(_half(dtype)).view(dtype)


def thread() -> int:
    return int(_get_kernel_context().threadIdx.x)


def block() -> int:
    return int(_get_kernel_context().blockIdx.x)


def block_of_team(form: Any) -> int:
    return thread() // int(form.threads) % int(form.blocks)


def grid() -> int:
    return int(_get_kernel_context().gridDim.x)


def barrier() -> None:
    _get_kernel_context().syncthreads()


def meet(form: Any, flags: Any, step: int) -> None:
    barrier()


def member(form: Any) -> int:
    return thread() % form.members


def slot(form: Any) -> int:
    return thread() // form.members


def team_of_grid(form: Any) -> int:
    return block() * form.teams + slot(form)


def first_row(form: Any) -> int:
    return block() * form.teams


def rows_at_once(form: Any) -> int:
    return grid() * form.teams


def as_element(pointer: Pointer, value: Any) -> Any:
    with np.errstate(over="ignore"):
        return arithmetic(pointer)(value)


def as_elements(pointer: Pointer | None, value: Any) -> Any:
    with np.errstate(over="ignore"):
        return value if pointer is None else value.astype(arithmetic(pointer))


def as_type_of(like: Any, value: Any) -> Any:
    return type(like)(value)


def largest(pointer: Pointer) -> Any:
    return np.float64(np.finfo(arithmetic(pointer)).max)


def first_elements(x: Pointer, n: int) -> Any:
    return widened(x.memory[x.start + np.minimum(np.arange(4), n - 1)])


def lane(value: Any, k: int) -> Any:
    return value[k]


def afresh(i: int) -> int:
    return i


def offset(pointer: Pointer | None, elements: int) -> Pointer | None:
    return None if pointer is None else Pointer(pointer.memory, pointer.start + int(elements))


def lead(x: Pointer, form: Any) -> int:
    if not form.edges:
        return 0
    return int(x.memory.ctypes.data // x.memory.itemsize + x.start) % int(form.lanes)


def _vectors(p: Any, form: Any) -> tuple[Any, Any]:
    """Of each vector of a share: where its run begins, and its first element there."""
    vectors = np.arange(form.vectors)
    if not isinstance(p, tuple):
        return np.zeros(form.vectors, np.int64), p + form.stride * vectors
    member, per_run, magic, outer, stride, first = p
    j = member + form.members * vectors
    o = (j * magic) >> MAGIC_BITS
    run = np.where(o < outer, o * stride, 0)
    at = (j - o * per_run) * form.lanes - ((first + run) % form.lanes if form.edges else 0)
    return run, np.where(o < outer, at, 1 << 60)


def _places(p: Any, n: int, form: Any) -> tuple[Any, Any]:
    """Where the elements of a share lie, and which of them are in the row."""
    run, at = _vectors(p, form)
    places = (at[:, None] + np.arange(form.lanes)).reshape(-1)
    return np.repeat(run, form.lanes) + places, (places >= 0) & (places < n)


def count_of(p: Any, n: int) -> int:
    return int(p[3]) * n if isinstance(p, tuple) else n


def _require_alignment(x: Pointer, p: Any, n: int, form: Any) -> None:
    """Of the vectors that a device meets at once; there it would be an illegal access."""
    run, at = _vectors(p, form)
    whole = (at >= 0) & (at + form.lanes <= n)
    at = run[whole] + at[whole] if form.edges else np.where(whole, run + at, 0)
    itemsize = x.memory.dtype.itemsize
    addresses = x.memory.ctypes.data + (x.start + at) * itemsize
    if (addresses % min(ACCESS_BYTES, form.lanes * itemsize)).any():
        raise ValueError(f"vectors of {form.lanes} elements must be aligned, got addresses {addresses}")


def load(x: Pointer | None, p: Any, n: int, form: Any) -> Any:
    if x is not None:
        _require_alignment(x, p, n, form)
    return _loaded(x, p, n, form)


def load_parameters(weight: Pointer | None, p: Any, n: int, form: Any) -> Any:
    if weight is not None and not form.edges:
        _require_alignment(weight, p, n, form)
    return _loaded(weight, p, n, form)


def _loaded(x: Pointer | None, p: Any, n: int, form: Any) -> Any:
    if x is None:
        return None
    places, within = _places(p, n, form)
    values = np.zeros(len(places), arithmetic(x))
    values[within] = widened(x.memory[x.start + places[within]])
    return values


def of_runs(weight: Pointer | None, p: Any, form: Any) -> Any:
    if weight is None:
        return None
    member, _, magic, outer, *_ = p
    o = ((member + form.members * np.arange(form.vectors)) * magic) >> MAGIC_BITS
    return np.repeat(widened(weight.memory[weight.start + np.where(o < outer, o, 0)]), form.lanes)


def store(y: Pointer | None, p: int, n: int, form: Any, value: Any) -> None:
    if y is None:
        return
    _require_alignment(y, p, n, form)
    places, within = _places(p, n, form)
    y.memory[y.start + places[within]] = narrowed(value[within], y.memory.dtype)


def number(pointer: Pointer | None, i: int, otherwise: float) -> Any:
    if pointer is None:
        return otherwise
    return np.float64(widened(pointer.memory[pointer.start + i : pointer.start + i + 1])[0])


def put(y: Pointer | None, i: int, value: Any) -> None:
    if y is not None:
        y.memory[y.start + i] = narrowed(np.asarray(value, arithmetic(y)), y.memory.dtype)


def accumulate(sums: Pointer | None, p: int, n: int, form: Any, value: Any, anew: bool) -> None:
    if sums is None:
        return
    places, within = _places(p, n, form)
    at = sums.start + places[within]
    sums.memory[at] = value[within] + (0.0 if anew else sums.memory[at])


def rounded(x: Pointer, value: Any) -> Any:
    return widened(narrowed(value, x.memory.dtype))


def inside(value: Any, p: int, n: int, form: Any) -> Any:
    return np.where(_places(p, n, form)[1], value, value.dtype.type(0))


def total(value: Any) -> Any:
    return value.sum(dtype=value.dtype)


def zeros(x: Pointer, form: Any) -> Any:
    return np.zeros(form.vectors * form.lanes, arithmetic(x))


def team_sums(a: Any, b: Any, form: Any, exchange: Any, flags: Any, step: int) -> Any:
    """The sums of a and of b over the team, the same bits for all of it."""
    with one_at_a_time:  # numba's simulator would give two threads that ask at once two arrays
        room = _get_kernel_context().shared.array((2, form.block * form.blocks), np.float64)
    room[0, thread()], room[1, thread()] = a, b
    barrier()
    first = slot(form) * form.members
    sums = [type(a)(np.asarray(room[k, first : first + form.members]).sum()) for k in range(2)]
    barrier()
    return sums


def team_merged(n: Any, mean: Any, m2: Any, form: Any) -> Any:
    """Count, mean and m2 of what the threads of a team have, which may be of nothing."""
    with one_at_a_time:
        room = _get_kernel_context().shared.array((3, form.block), np.float64)
    room[:, thread()] = n, mean, m2
    barrier()
    first = slot(form) * form.threads
    sets = list(room[:, first : first + form.threads].T.copy())
    barrier()
    while len(sets) > 1:
        sets = [_joined(a, b) for a, b in zip(sets[::2], sets[1::2], strict=True)]
    return tuple(sets[0])


def _joined(a: Any, b: Any) -> Any:
    return a if b[0] == 0 else (a[0] + b[0], *merge(*a, *b))


def where_negative(x: Any, a: Any, b: Any) -> Any:
    return np.where(x < 0, a, b)


def where_positive_or_nan(x: Any, a: Any, b: Any) -> Any:
    return np.where(~(x <= 0), a, b)


def filled(like: Any, value: float) -> Any:
    return np.full_like(like, value)


def exp(x: Any) -> Any:
    with np.errstate(under="ignore", over="ignore"):
        return np.exp(x)


def normal(x: Any) -> Any:
    return np.array([0.5 * math.erfc(-float(z) / math.sqrt(2)) for z in x], x.dtype)


def run_sums(a: Any, b: Any, p: Any, sums: Pointer, apart: int, own: bool, anew: bool, form: Any) -> None:
    """The simulated block of a team of several blocks writes what each of these would."""
    _, per_run, _, outer, *_ = p
    with one_at_a_time:
        room = _get_kernel_context().shared.array((2, form.vectors, form.block * form.blocks), np.float64)
    for k, value in enumerate((a, b)):
        room[k, :, thread()] = value.reshape(form.vectors, form.lanes).sum(1)
    barrier()
    if own and member(form) % form.threads == 0:
        first = slot(form) * form.members
        mine = member(form) + np.arange(form.threads)
        j = (mine + form.members * np.arange(form.vectors)[:, None]).reshape(-1)
        for o in range(outer):
            of_run = (j >= o * per_run) & (j < (o + 1) * per_run)
            for k in range(2):
                held = room[k][:, first + mine].reshape(-1)
                at = k * apart + o
                sums[at] = held[of_run].sum() + (0.0 if anew else sums[at])
    barrier()
