"""Kernels that measuring needs: not among those of the norms, `KERNELS`."""

from ...cuda.jit import Kernel
from ...cuda.primitives import (
    block,
    first_row,
    load,
    member,
    offset,
    position,
    put,
    rows_at_once,
    store,
    thread,
)


@Kernel
def copied(x, y, size, cols, form):
    """y = x"""
    for i in range(first_row(form), -(-size // cols), rows_at_once(form)):
        n = min(cols, size - i * cols)
        row = offset(x, i * cols)
        p = position(row, member(form), form)
        store(offset(y, i * cols), p, n, form, load(row, p, n, form))


@Kernel
def spin(x, steps, form):
    """Keep one thread busy: each step needs the one before."""
    if block() == 0 and thread() == 0:
        v = steps * 0.5
        for _ in range(steps):
            v = v * 0.5 + 1.0
        put(x, 0, v)
