"""What fused passes save: residual and activation by themselves, as fast as they can be.

The baseline of fused passes: the norm as it is, and beside it sweeps with the same vectors, streaming
stores and threads.
"""

from .._plan import row_plan
from ..cpu.activations import slope
from ..cpu.fusion import activated, plus
from ..cpu.jit import loop
from ..cpu.layouts import empty
from ..cpu.layouts import flat as laid_out
from ..cpu.loops import each
from ..cpu.pointers import fence, offset
from ..cpu.run import kind, run, streams
from ..cpu.tracing import step
from ..norms import NORMS, Passes
from ..reference.fused import Elementwise
from .inputs import Array

PIECE = 65536


@step
def _swept_element(i, y, x, addend, dy, kind):
    z = plus(x[i], addend, i)
    y[i] = activated(z, kind) if dy is None else slope(z, dy[i], kind)


@loop
def sweep(p, x, addend, dy, n, kind, y, stream):
    """y = act(x + addend), or dy * act'(x) with a dy."""
    k = p * PIECE
    each(
        min(PIECE, n - k), stream, _swept_element, offset(y, k), offset(x, k),
        offset(addend, k), offset(dy, k), kind,
    )  # fmt: skip
    if stream:
        fence()


def _swept(
    x: Array, addend: Array | None, dy: Array | None, activation: str | None, out: Array | None = None
) -> Array:
    plan = row_plan(x.shape, x.strides, x.dtype, (x.ndim - 1,))
    y, flat = empty(plan.layout, x) if out is None else (out, laid_out(plan.layout, out, x))
    others = (None if a is None else laid_out(plan.layout, a, x) for a in (addend, dy))
    stream = streams(plan, x.size)
    run(
        sweep, x.nbytes, None, -(-x.size // PIECE),
        laid_out(plan.layout, x, x), *others, x.size, kind(activation), flat, stream,
    )  # fmt: skip
    return y


SWEEPS = Elementwise(
    add=lambda a, b, out=None: _swept(a, b, None, None, out),
    activate=lambda z, name: _swept(z, None, None, name),
    gradient=lambda z, dy, name: _swept(z, None, dy, name),
)


def in_steps(op: str) -> Passes:
    """The kernels of a norm, and what is fused with them in sweeps of their own."""
    return NORMS[op].in_steps(NORMS[op].kernels, SWEEPS)
