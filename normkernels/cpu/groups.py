"""Kernels over an array seen as (rows, channels of a group, inner): statistics per row, parameters per run.

Row i is group i % groups of a sample; its channels are runs of `inner` elements, each with a weight
and a bias of its own. Group norm; with one channel per group instance norm; not centred and with a
divisor of 1 weight norm.

An absent parameter is one element, of which the stride is 0, for all channels. An activation `kind` that is
not None follows the norm; its backward keeps a row of dz in `dz`.
"""

from .channel_primitives import dot_constants, normalize_run, output_constants, run_dots, run_gradient
from .extremes import statistics_again, usual
from .fusion import first_of, where_given
from .jit import loop
from .pointers import as_element, fence, offset
from .primitives import centring, reciprocal_sd
from .row_primitives import row_moments, row_squares
from .tuning import TILE


@loop
def forward(
    b, x, rows, groups, channels, inner, block, divisor, weight, weight_stride, bias, bias_stride, kind,
    centred, eps, y, kept, statistics, stream,
):  # fmt: skip
    """y = act((x - mean) * rstd * weight + bias), var = m2 / divisor; `block` rows are one piece of work.

    statistics: the first `kept` of mean, rstd and var, rows of them, in float64.
    """
    cols = channels * inner
    for i in range(b * block, min((b + 1) * block, rows)):
        row = offset(x, i * cols)
        if centred:
            mean, m2 = row_moments(row, cols)
        else:
            mean, m2 = 0.0, row_squares(row, cols)
        var = m2 / divisor
        rstd = reciprocal_sd(var, eps)
        if not usual(rstd):
            mean, var, rstd = statistics_again(row, None, 1, 0, cols, divisor, eps, centred, mean, var, rstd)
        if kept >= 2:
            statistics[i], statistics[rows + i] = mean, rstd
        if kept == 3:
            statistics[2 * rows + i] = var
        for j in range(channels):
            c, k = i % groups * channels + j, i * cols + j * inner
            a = output_constants(x, mean, rstd, weight[c * weight_stride], bias[c * bias_stride])
            normalize_run(offset(x, k), inner, a, None, kind, offset(y, k), stream)
    if stream:
        fence()


@loop
def backward(
    b, dy, x, rows, groups, channels, inner, workers, divisor, weight, weight_stride, bias, bias_stride, kind,
    centred, mean, rstd, dz, dx, dweight, dbias, stream,
):  # fmt: skip
    """dx, and per row and channel the sums of dy * x_hat and of dy; dweight, dbias: (rows, channels).

    Not centred, no sum of dy is asked for, and dbias is not written.

    The sums of a run give dweight and dbias, and weighted by weight c1 and c2: one pass for all four.
    The rows are shared out among `workers`, each with room in dz for one of them.
    """
    cols = channels * inner
    own = offset(dz, b * cols)
    for i in range(b * rows // workers, (b + 1) * rows // workers):
        # A row of one element does not depend on it: with rstd = 0 its dx is exactly 0.
        r = rstd[i] if cols > 1 or not centred else 0.0
        hi, scale = dot_constants(x, mean[i], r)
        c1 = c2 = 0.0
        for j in range(channels):
            c = i % groups * channels + j
            w = weight[c * weight_stride]
            affine = where_given(output_constants(x, mean[i], r, w, bias[c * bias_stride]), kind)
            dot = s = 0.0
            for t in range(0, inner, TILE):
                first, n = j * inner + t, min(TILE, inner - t)
                dots = run_dots(
                    offset(dy, i * cols + first), offset(x, i * cols + first), n, (hi, scale), affine,
                    None, kind, offset(own, first),
                )  # fmt: skip
                dot += dots[0]
                s += dots[1]
            dot += (hi - mean[i]) * scale * s
            dweight[i * channels + j] = dot
            if centred:
                dbias[i * channels + j] = s
            c1 += w * dot
            c2 += w * s
        _, lo, k1 = centring(x, mean[i], r, -(c1 / divisor))
        a = hi, scale, as_element(x, (c2 / divisor if centred else 0.0) - lo), k1
        for j in range(channels):
            k, c = i * cols + j * inner, i % groups * channels + j
            run_gradient(
                first_of(offset(own, j * inner), offset(dy, k)), offset(x, k), inner, a,
                weight[c * weight_stride], offset(dx, k), stream,
            )  # fmt: skip
    if stream:
        fence()
