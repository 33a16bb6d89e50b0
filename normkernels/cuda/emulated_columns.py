"""What `column_shares` offers kernels, in NumPy, for numba's simulator."""

from typing import Any

import numpy as np
from numba.cuda.simulator.kernel import _get_kernel_context

from .emulated import Pointer, arithmetic, narrowed, one_at_a_time, thread, widened
from .primitives import LARGE, SMALL


def _places(p: int, step: int, form: Any) -> Any:
    starts = int(p) + int(step) * np.arange(form.vectors)
    return (starts[:, None] + np.arange(form.lanes)).reshape(-1)


def _within(p: int, step: int, n: int, form: Any) -> Any:
    places = _places(p, step, form)
    within = (places >= 0) & (places < n)
    if not form.edges:  # the machine has one answer for a vector
        assert all(v.all() or not v.any() for v in within.reshape(-1, form.lanes))
    return within


def _aligned(x: Pointer, places: Any, form: Any) -> None:
    address = x.memory.ctypes.data // x.memory.itemsize + x.start
    assert not ((address + places[:: form.lanes]) % form.lanes).any()


def whole_rows(p: int, step: int, n: int, form: Any) -> bool:
    return bool(_within(p, step, n, form).all())


def load_rows(x: Pointer | None, p: int, step: int, n: int, form: Any) -> Any:
    if x is None:
        return None
    places, within = _places(p, step, form), _within(p, step, n, form)
    _aligned(x, places, form)
    values = np.zeros(len(places), arithmetic(x))
    values[within] = widened(x.memory[x.start + places[within]])
    return values


def store_rows(y: Pointer | None, p: int, step: int, n: int, form: Any, value: Any) -> None:
    if y is not None:
        places, within = _places(p, step, form), _within(p, step, n, form)
        _aligned(y, places, form)
        y.memory[y.start + places[within]] = narrowed(value[within], y.memory.dtype)


def inside_rows(value: Any, p: int, step: int, n: int, form: Any) -> Any:
    return np.where(_within(p, step, n, form), value, value.dtype.type(0))


def repeated(value: Any, form: Any) -> Any:
    return np.tile(value, form.vectors)


def first_of_rows(value: Any, form: Any) -> Any:
    return value[: form.lanes]


def over_rows(value: Any, form: Any) -> Any:
    return value.reshape(form.vectors, form.lanes).sum(0, dtype=value.dtype)


def zero_columns(x: Any, form: Any) -> Any:
    return np.zeros(form.lanes, arithmetic(x) if isinstance(x, Pointer) else x.dtype)


def wide(value: Any) -> Any:
    return None if value is None else value.astype(np.float64)


def as_elements(x: Pointer, value: Any) -> Any:
    return value.astype(arithmetic(x))


def within_range(value: Any, most: float) -> Any:
    return np.clip(value, -most, most)


def absolute(value: Any) -> Any:
    return np.abs(value)


def square_root(value: Any) -> Any:
    return np.sqrt(value)


def power(x: Any, exponent: float) -> Any:
    return x ** x.dtype.type(exponent)


def _usual(q: Any) -> Any:
    return (q > SMALL) & (q < LARGE)


def unusual(q: Any, spread: Any) -> bool:
    return bool((~_usual(q) & (spread != 0)).any())


def by_range(q: Any, small: float, large: float) -> Any:
    other = np.where(q <= SMALL, q.dtype.type(small), q.dtype.type(large))
    return np.where(_usual(q), q.dtype.type(1), other)


def load_channels(a: Pointer | None, first: int, channels: int, form: Any) -> Any:
    if a is None:
        return None
    return widened(a.memory[a.start + (int(first) + np.arange(form.lanes)) % channels])


def element(a: Pointer, i: int) -> Any:
    return np.float64(widened(a.memory[a.start + i : a.start + i + 1])[0])


def put_columns(a: Pointer, i: int, value: Any) -> None:
    at = a.start + int(i)
    a.memory[at : at + len(value)] = value


def _lanes_at(at: int, apart: int, form: Any) -> Any:
    return at + apart * np.arange(form.lanes)


def _room(size: int, form: Any) -> Any:
    """Each block of a team, of which the simulator makes one, has its own."""
    with one_at_a_time:  # numba's simulator would give two threads that ask at once two arrays
        rooms = _get_kernel_context().shared.array(size * form.blocks, np.float64)
    return Pointer(rooms, thread() // form.block * size)


def room(form: Any) -> Any:
    return _room((2 * form.lanes + 1) * (form.block // 2), form)


def strip_room(form: Any) -> Any:
    return _room(form.strip_room, form)


def give(room: Pointer, at: int, apart: int, form: Any, value: Any) -> None:
    room[_lanes_at(at, apart, form)] = value


def take(room: Pointer, at: int, apart: int, form: Any) -> Any:
    return room[_lanes_at(at, apart, form)]
