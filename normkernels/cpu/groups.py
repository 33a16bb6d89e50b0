"""Kernels over an array seen as (rows, channels of a group, inner): statistics per row, parameters per run.

Row i is group i % groups of a sample; its channels are runs of `inner` elements, each with a weight
and a bias of its own. Group norm; with one channel per group instance norm; not centred and with a
divisor of 1 weight norm.

constants: (blocks or workers, CONSTANTS) in the dtype of x, of the run at hand. An activation `kind` that is
not None follows the norm; its backward needs the bias, `affine`, as constants, and keeps a row of dz in `dz`.
"""

from .channel_primitives import dot_constants, forward_constants, normalize_run, run_gradient, tile_dots
from .extremes import statistics_again, usual
from .fusion import first_of
from .jit import loop, primitive
from .pointers import as_element, fence, offset, pointer
from .primitives import centring, reciprocal_sd
from .row_primitives import row_moments, row_squares
from .tuning import TILE

# Room for the constants of a run, such that those of two threads share no cache line.
CONSTANTS = 16


@primitive
def of_channel(parameter, c):
    """A parameter of channel c; one that is absent has a single element"""
    return parameter[min(c, len(parameter) - 1)]


@loop
def forward(
    b, x, rows, groups, channels, inner, block, divisor, weight, bias, kind, centred, eps, constants,
    y, statistics, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias), var = m2 / divisor; `block` rows are one piece of work.

    statistics: (0, rows), or mean and rstd to keep, (2, rows), or var too, (3, rows), in float64.
    """
    cols = channels * inner
    a = offset(pointer(constants), CONSTANTS * b)
    for i in range(b * block, min((b + 1) * block, rows)):
        row = offset(pointer(x), i * cols)
        if centred:
            mean, m2 = row_moments(row, cols)
        else:
            mean, m2 = 0.0, row_squares(row, cols)
        var = m2 / divisor
        rstd = reciprocal_sd(var, eps)
        if not usual(rstd):
            mean, var, rstd = statistics_again(row, None, 1, 0, cols, divisor, eps, centred, mean, var, rstd)
        if len(statistics) >= 2:
            statistics[0, i], statistics[1, i] = mean, rstd
        if len(statistics) == 3:
            statistics[2, i] = var
        for j in range(channels):
            c, k = i % groups * channels + j, i * cols + j * inner
            w, shift = of_channel(weight, c), of_channel(bias, c)
            forward_constants(pointer(x), mean, rstd, w, shift, a, 1)
            normalize_run(offset(pointer(x), k), inner, a, None, kind, offset(pointer(y), k), stream)
    if stream:
        fence()


@loop
def backward(
    b, dy, x, rows, groups, channels, inner, workers, divisor, weight, bias, kind, centred, mean, rstd,
    constants, affine, dz, dx, dweight, dbias, stream,
):  # fmt: skip
    """dx, and per row and channel the sums of dy * x_hat and of dy; dweight, dbias: (rows, channels).

    Not centred, no sum of dy is asked for, and dbias is not written.

    The sums of a run give dweight and dbias, and weighted by weight c1 and c2: one pass for all four.
    The rows are shared out among `workers`, each with room in dz for one of them.
    """
    cols = channels * inner
    own = offset(pointer(dz), b * cols)
    a, z = offset(pointer(constants), CONSTANTS * b), offset(pointer(affine), CONSTANTS * b)
    for i in range(b * rows // workers, (b + 1) * rows // workers):
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        r = rstd[i] if cols > 1 or not centred else 0.0
        c1 = c2 = 0.0
        for j in range(channels):
            c = i % groups * channels + j
            w, shift = of_channel(weight, c), of_channel(bias, c)
            dot_constants(pointer(x), mean[i], r, w, shift, a, z, 1)
            dot = s = 0.0
            for t in range(0, inner, TILE):
                first, n = j * inner + t, min(TILE, inner - t)
                dots = tile_dots(
                    offset(pointer(dy), i * cols + first), offset(pointer(x), i * cols + first), 1, 1, n,
                    a[0], a[1], z, None, kind, offset(own, first),
                )  # fmt: skip
                dot += dots[0]
                s += dots[1]
            dweight[i, j] = dot + (a[0] - mean[i]) * a[1] * s
            if centred:
                dbias[i, j] = s
            c1 += w * dweight[i, j]
            c2 += w * s
        c2 = c2 / divisor if centred else 0.0
        _, lo, a[3] = centring(pointer(x), mean[i], r, -(c1 / divisor))
        a[2] = as_element(pointer(x), c2 - lo)
        for j in range(channels):
            k = i * cols + j * inner
            run_gradient(
                first_of(offset(own, j * inner), offset(pointer(dy), k)), offset(pointer(x), k), inner, a,
                of_channel(weight, i % groups * channels + j), offset(pointer(dx), k), stream,
            )  # fmt: skip
    if stream:
        fence()
