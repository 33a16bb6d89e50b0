"""Layer norm in Triton as its tutorial has it: a program per row, parameter gradients in two stages.

Partial sums of the gradients go to a bounded number of rows, each guarded by a lock; which program comes
first is left to chance, so the bits of dweight and dbias may change from run to run.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..cases import DTYPES, Case
from ..inputs import Inputs
from ..peers.torch_functions import copies, tensors
from ..timing import Contender
from .measure import Library

EPS = 1e-5
# A row has to fit into one block of a program.
MOST_BYTES = 65_536
SUM_ROWS, SUM_COLS = 32, 128

torch.set_grad_enabled(False)


@triton.jit
def _forward(x_ptr, y_ptr, w_ptr, b_ptr, mean_ptr, rstd_ptr, cols, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < cols
    x = tl.load(x_ptr + row * cols + at, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / cols
    d = tl.where(inside, x - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(d * d, axis=0) / cols + eps)
    tl.store(mean_ptr + row, mean)
    tl.store(rstd_ptr + row, rstd)
    w = tl.load(w_ptr + at, mask=inside).to(tl.float32)
    b = tl.load(b_ptr + at, mask=inside).to(tl.float32)
    tl.store(y_ptr + row * cols + at, d * rstd * w + b, mask=inside)


@triton.jit
def _backward(
    dy_ptr, x_ptr, w_ptr, mean_ptr, rstd_ptr, dx_ptr, dw_ptr, db_ptr, locks_ptr, cols,
    GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < cols
    dy = tl.load(dy_ptr + row * cols + at, mask=inside, other=0.0).to(tl.float32)
    x = tl.load(x_ptr + row * cols + at, mask=inside, other=0.0).to(tl.float32)
    w = tl.load(w_ptr + at, mask=inside, other=0.0).to(tl.float32)
    rstd = tl.load(rstd_ptr + row)
    x_hat = tl.where(inside, (x - tl.load(mean_ptr + row)) * rstd, 0.0)
    wdy = w * dy
    c1 = tl.sum(x_hat * wdy, axis=0) / cols
    c2 = tl.sum(wdy, axis=0) / cols
    tl.store(dx_ptr + row * cols + at, (wdy - x_hat * c1 - c2) * rstd, mask=inside)
    # the rows of a group add up what they have, one at a time
    group = row % GROUPS
    lock, used = locks_ptr + group, locks_ptr + GROUPS + group
    dw, db = dy * x_hat, dy
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    if tl.load(used) == 0:
        tl.atomic_xchg(used, 1)
    else:
        dw += tl.load(dw_ptr + group * cols + at, mask=inside)
        db += tl.load(db_ptr + group * cols + at, mask=inside)
    tl.store(dw_ptr + group * cols + at, dw, mask=inside)
    tl.store(db_ptr + group * cols + at, db, mask=inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


@triton.jit
def _sums(
    parts_w, parts_b, dw_ptr, db_ptr, cols, GROUPS: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0) * COLS + tl.arange(0, COLS)
    dw = tl.zeros((ROWS, COLS), dtype=tl.float32)
    db = tl.zeros((ROWS, COLS), dtype=tl.float32)
    for first in range(0, GROUPS, ROWS):
        i = first + tl.arange(0, ROWS)
        inside = (i[:, None] < GROUPS) & (at[None, :] < cols)
        place = i[:, None] * cols + at[None, :]
        dw += tl.load(parts_w + place, mask=inside, other=0.0)
        db += tl.load(parts_b + place, mask=inside, other=0.0)
    tl.store(dw_ptr + at, tl.sum(dw, axis=0), mask=at < cols)
    tl.store(db_ptr + at, tl.sum(db, axis=0), mask=at < cols)


def _block(cols: int) -> tuple[int, int]:
    """Elements of a program, and its warps."""
    block = triton.next_power_of_2(cols)
    return block, min(max(block // 256, 1), 8)


def layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """y, mean and rstd"""
    rows, cols = x.shape
    y = torch.empty_like(x)
    mean, rstd = (torch.empty(rows, dtype=torch.float32, device=x.device) for _ in range(2))
    block, warps = _block(cols)
    _forward[(rows,)](x, y, weight, bias, mean, rstd, cols, EPS, BLOCK=block, num_warps=warps)
    return y, mean, rstd


def layer_norm_backward(
    dy: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, rstd: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """dx, dweight and dbias"""
    rows, cols = x.shape
    groups = 256 if cols <= 1024 else 128 if cols <= 4096 else 96 if cols <= 8192 else 64
    dx, dweight, dbias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
    locks = torch.zeros(2 * groups, dtype=torch.int32, device=x.device)
    parts = torch.empty((2, groups, cols), dtype=torch.float32, device=x.device)
    block, warps = _block(cols)
    _backward[(rows,)](
        dy, x, weight, mean, rstd, dx, parts[0], parts[1], locks, cols,
        GROUPS=groups, BLOCK=block, num_warps=warps,
    )  # fmt: skip
    grid = (triton.cdiv(cols, SUM_COLS),)
    _sums[grid](
        parts[0], parts[1], dweight, dbias, cols, GROUPS=min(groups, rows), ROWS=SUM_ROWS, COLS=SUM_COLS
    )
    return dx, dweight, dbias


def _contender(case: Case, inputs: Inputs, slots: int) -> Contender | None:
    fits = len(case.shape) == 2 and case.shape[-1] * DTYPES[case.dtype] <= MOST_BYTES
    if case.op != "layer_norm" or case.fuse or case.dtype == "float64" or not fits:  # it sums in float32
        return None
    x, dy, a = tensors(case, inputs)
    weight, bias = a["weight"], a["bias"]
    xs = copies(x, slots)
    if case.pass_ == "forward":
        return Contender(_first_of(layer_norm), [(each, weight, bias) for each in xs], {})
    arguments: list[tuple[Any, ...]] = []
    for each, gradient in zip(xs, copies(dy, slots), strict=True):
        _, mean, rstd = layer_norm(each, weight, bias)
        arguments.append((gradient, each, weight, mean, rstd))
    return Contender(layer_norm_backward, arguments, {})


def _first_of(function: Any) -> Any:
    return lambda *arguments: function(*arguments)[0]


LIBRARY = Library(_contender)
