"""Kernels over an array seen as (rows, cols): statistics per row, weight and bias per column."""

from numba import prange

from .jit import kernel
from .primitives import as_scale, reciprocal_sd, row_moments, split
from .row_primitives import add, clear, flush, normalize_row, row_dots, rows_gradient
from .vectors import fence, offset, pointer

# Short rows are taken in batches of so many elements, statistics of all of them first: the divisions
# and the square root of one row then overlap with the loads of the next (measured on rows of 128: 67 ns
# to 45 ns). Batches of 4096 elements leave L1 before they are normalized: 10 to 20 % slower.
BATCH = 512

# Rows summed in the input's own precision before float64 takes over.
FLUSH = 128

# Columns of dweight and dbias that stay in L1 while four rows add to them.
COLUMNS = 1024


@kernel
def forward(x, rows, cols, block, weight, bias, eps, y, mean, rstd, stream):
    """y = (x - mean) * rstd * weight + bias; `block` rows are one piece of work."""
    inverse = 1.0 / cols
    batch = max(1, BATCH // cols)
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
    """dx, and the sums of dy * x_hat and of dy over all rows, in one sweep.

    scalars: (rows, 5) for hi, lo, rstd, c1, c2. sums: (blocks, 2, cols), of at most FLUSH rows at a
    time, both in the dtype of x. partials: (blocks, 2, cols) in float64; the first receives the result.
    """
    for b in prange((rows + block - 1) // block):
        start, end = b * block, min((b + 1) * block, rows)
        dweight, partial = offset(pointer(sums), 2 * b * cols), offset(pointer(partials), 2 * b * cols)
        dbias = offset(dweight, cols)
        clear(dweight, partial, 2 * cols)
        for first in range(start, end, 4):
            last = min(first + 4, end)
            for i in range(first, last):
                row, dy_row = offset(pointer(x), i * cols), offset(pointer(dy), i * cols)
                c1, c2 = row_dots(dy_row, row, cols, mean[i], rstd[i], pointer(weight))
                scalars[i, 0], scalars[i, 1] = split(row, mean[i])
                scalars[i, 2], scalars[i, 3], scalars[i, 4] = as_scale(row, rstd[i]), c1, c2
            for c in range(0, cols, COLUMNS):
                for i in range(first, last, 2):
                    k = i * cols + c
                    rows_gradient(
                        offset(pointer(dy), k), offset(pointer(x), k), min(COLUMNS, cols - c),
                        cols if i + 1 < last else 0, offset(pointer(scalars), 5 * i),
                        offset(pointer(weight), c), offset(pointer(dx), k),
                        offset(dweight, c), offset(dbias, c),
                        stream,
                    )  # fmt: skip
            if (last - start) % FLUSH == 0 or last == end:
                flush(dweight, partial, 2 * cols)
        if stream:
            fence()
    for b in range(1, len(partials)):
        add(pointer(partials), offset(pointer(partials), 2 * b * cols), 2 * cols)
