"""Element by element: copies between strides and dtypes, and statistics that are given."""

from .jit import kernel
from .primitives import block, grid, number, put, reciprocal_sd, thread


@kernel
def strided(
    x, y, at_x, at_y, count, n1, n2, n3, x0, x1, x2, x3, y0, y1, y2, y3, form,
):  # fmt: skip
    """y = x, of count elements in four axes, of which the last three have lengths n1, n2, n3; strides x0 ...

    Lengths and strides count elements, as do the places at_x and at_y where both begin.
    """
    for i in range(block() * form.threads + thread(), count, grid() * form.threads):
        d, rest = i % n3, i // n3
        c, rest = rest % n2, rest // n2
        b, a = rest % n1, rest // n1
        put(
            y,
            at_y + a * y0 + b * y1 + c * y2 + d * y3,
            number(x, at_x + a * x0 + b * x1 + c * x2 + d * x3, 0.0),
        )


@kernel
def given(running_mean, running_var, count, eps, mean, rstd, form):
    """mean and rstd in float64, from running statistics."""
    for i in range(block() * form.threads + thread(), count, grid() * form.threads):
        put(mean, i, number(running_mean, i, 0.0))
        put(rstd, i, reciprocal_sd(number(running_var, i, 0.0), eps))
