"""Kernels over an array seen as (rows, cols): statistics per row, weight and bias per column."""

from numba import prange

from .jit import kernel
from .primitives import as_scale, reciprocal_sd, row_moments, split
from .row_primitives import normalize_row, row_dots, rows_gradient
from .vectors import fence, offset, pointer

# Rows are taken in small batches, statistics of all of them first: the divisions and the square root
# of one row then overlap with the loads of the next (measured on rows of 128: 67 ns to 45 ns).
BATCH = 16

# Rows summed in the input's own precision before float64 takes over.
FLUSH = 128


@kernel
def forward(x, rows, cols, block, weight, bias, eps, y, mean, rstd, stream):
    """y = (x - mean) * rstd * weight + bias; `block` rows are one piece of work."""
    inverse = 1.0 / cols
    batch = BATCH if cols <= 2048 else 1
    for b in prange((rows + block - 1) // block):
        end = min((b + 1) * block, rows)
        for first in range(b * block, end, batch):
            last = min(first + batch, end)
            for i in range(first, last):
                mean[i], rstd[i] = row_moments(offset(pointer(x), i * cols), cols)
            for i in range(first, last):
                rstd[i] = reciprocal_sd(rstd[i] * inverse, eps)
            for i in range(first, last):
                row, y_row = offset(pointer(x), i * cols), offset(pointer(y), i * cols)
                normalize_row(row, cols, mean[i], rstd[i], pointer(weight), pointer(bias), y_row, stream)
        if stream:
            fence()


@kernel
def backward(dy, x, rows, cols, block, weight, mean, rstd, dx, scalars, sums, partials, stream):
    """dx, and the sums of dy * x_hat and of dy over every block of rows, in one sweep.

    dots: (rows, 2) for c1 and c2. sums: (blocks, 2, cols) in the dtype of x, of at most FLUSH rows at
    a time. partials: (blocks, 2, cols) in float64.
    """
    batch = 4
    for b in prange((rows + block - 1) // block):
        start, end = b * block, min((b + 1) * block, rows)
        sums[b] = 0
        partials[b] = 0
        dweight, dbias = offset(pointer(sums), 2 * b * cols), offset(pointer(sums), (2 * b + 1) * cols)
        for first in range(start, end, batch):
            last = min(first + batch, end)
            for i in range(first, last):
                row, dy_row = offset(pointer(x), i * cols), offset(pointer(dy), i * cols)
                c1, c2 = row_dots(dy_row, row, cols, mean[i], rstd[i], pointer(weight))
                scalars[i, 0], scalars[i, 1] = split(row, mean[i])
                scalars[i, 2], scalars[i, 3], scalars[i, 4] = as_scale(row, rstd[i]), c1, c2
            at = offset(pointer(scalars), 5 * first)
            k = first * cols
            rows_gradient(
                offset(pointer(dy), k), offset(pointer(x), k), last - first, cols, at, pointer(weight),
                offset(pointer(dx), k), dweight, dbias, stream,
            )  # fmt: skip
            if (last - start) % FLUSH == 0 or last == end:
                partials[b] += sums[b]
                sums[b] = 0
        if stream:
            fence()
