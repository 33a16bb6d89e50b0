"""Kernels over an array seen as (rows, channels of a group, inner): statistics per row, parameters per run.

Row i is group i % groups of a sample; its channels are runs of `inner` elements, each with a weight
and a bias of its own. Group norm; with one channel per group instance norm; not centred and with a
divisor of 1 weight norm.

constants: (rows, 5) in the dtype of x, of the run at hand. An activation `kind` that is not None follows the
norm; its backward needs the bias, `affine`, as constants, and keeps a row of dz in `dz`.
"""

from .channel_primitives import dot_constants, forward_constants, normalize_run, run_gradient, tile_dots
from .fusion import first_of
from .jit import loop
from .primitives import TILE, centring, reciprocal_sd
from .row_primitives import row_moments, row_squares
from .vectors import as_element, fence, offset, pointer


@loop
def forward(
    b, x, rows, groups, channels, inner, block, divisor, weight, bias, kind, centred, eps, constants,
    y, mean, rstd, var, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias), var = m2 / divisor; `block` rows are one piece of work.

    var, which only running statistics need, may be rstd.
    """
    cols = channels * inner
    for i in range(b * block, min((b + 1) * block, rows)):
        a = offset(pointer(constants), 5 * i)
        if centred:
            mean[i], m2 = row_moments(offset(pointer(x), i * cols), cols)
        else:
            mean[i], m2 = 0.0, row_squares(offset(pointer(x), i * cols), cols)
        var[i] = m2 / divisor
        rstd[i] = reciprocal_sd(var[i], eps)
        for j in range(channels):
            c, k = i % groups * channels + j, i * cols + j * inner
            forward_constants(pointer(x), mean[i], rstd[i], weight[c], bias[c], a, 1)
            normalize_run(offset(pointer(x), k), inner, a, None, kind, offset(pointer(y), k), stream)
    if stream:
        fence()


@loop
def backward(
    b, dy, x, rows, groups, channels, inner, workers, divisor, weight, bias, kind, centred, mean, rstd,
    constants, affine, dz, dx, dweight, dbias, stream,
):  # fmt: skip
    """dx, and per row and channel the sums of dy * x_hat and of dy; dweight, dbias: (rows, channels).

    The sums of a run give dweight and dbias, and weighted by weight c1 and c2: one pass for all four.
    The rows are shared out among `workers`, each with room in dz for one of them.
    """
    cols = channels * inner
    own = offset(pointer(dz), b * cols)
    for i in range(b * rows // workers, (b + 1) * rows // workers):
        a, z = offset(pointer(constants), 5 * i), offset(pointer(affine), 5 * i)
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        r = rstd[i] if cols > 1 or not centred else 0.0
        c1 = c2 = 0.0
        for j in range(channels):
            c = i % groups * channels + j
            dot_constants(pointer(x), mean[i], r, weight[c], bias[c], a, z, 1)
            dot = s = 0.0
            for t in range(0, inner, TILE):
                first, n = j * inner + t, min(TILE, inner - t)
                dots = tile_dots(
                    offset(pointer(dy), i * cols + first), offset(pointer(x), i * cols + first), 1, 1, n,
                    a[0], a[1], z, None, kind, offset(own, first),
                )  # fmt: skip
                dot += dots[0]
                s += dots[1]
            dweight[i, j], dbias[i, j] = dot + (a[0] - mean[i]) * a[1] * s, s
            c1 += weight[c] * dweight[i, j]
            c2 += weight[c] * s
        c2 = c2 / divisor if centred else 0.0
        _, lo, a[3] = centring(pointer(x), mean[i], -rstd[i] * (c1 / divisor))
        a[2] = as_element(pointer(x), c2 - lo)
        for j in range(channels):
            k = i * cols + j * inner
            run_gradient(
                first_of(offset(own, j * inner), offset(pointer(dy), k)), offset(pointer(x), k), inner, a,
                weight[i % groups * channels + j], offset(pointer(dx), k), stream,
            )  # fmt: skip
    if stream:
        fence()
