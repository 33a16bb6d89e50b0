"""Is the result on the device right? The whole of it: block by block, the first against float64."""

from typing import Any

import numpy as np

from ...cuda.foreign import from_foreign
from ...norms import NORMS
from ..cases import Case
from ..check import Mismatch, compare, tolerance
from ..inputs import Array, Inputs
from .inputs import block_of, blocks, part

TENSORS = ("y", "sum_out", "dx", "dresidual")


def named(case: Case, result: Any) -> dict[str, Any]:
    """The results of a pass by the names that the reference gives them; None for what there is none of."""
    names = ["dx", *NORMS[case.op].parameters.values()]
    if case.pass_ == "forward":
        return {"y": result}
    found = result._asdict() if hasattr(result, "_asdict") else dict(zip(names, result, strict=False))
    return dict.fromkeys(("dx", "dweight", "dbias", "dresidual")) | found


def judge(case: Case, inputs: Inputs, results: dict[str, Any], arguments: dict[str, Any]) -> float:
    """The worst error of the results of a case, whoever computed them; raises Mismatch.

    `inputs` are those of the block on the host. A tensor that is one block repeated has results that are
    one block repeated, but for the gradients of parameters, which are sums over all. Running statistics,
    in `arguments` as they are afterwards, depend on the number of values: they are compared where there is
    one block.
    """
    times, block = blocks(case), block_of(case)
    rows = block.array_shape[0]
    first: dict[str, Any] = {}
    worst = 0.0
    for name, result in results.items():
        if result is None or name not in TENSORS:
            first[name] = None if result is None else _sums(result, times)
            continue
        for i in range(times):
            got = _ordered(case, part(from_foreign(result), i * rows, rows))
            want = first.setdefault(name, got)
            if i and not np.array_equal(got.view(np.uint8), want.view(np.uint8)):
                worst = max(worst, _difference(got, want))
                if not worst <= tolerance(case):
                    raise Mismatch(f"{case.id}: {name} must repeat as x does, got {worst:.1e} in block {i}")
    after = {k: _host(a) for k, a in arguments.items()} if times == 1 else {}
    return max(worst, compare(block, inputs, first, after))


def _sums(result: Any, times: int) -> Array:
    found: Array = _host(result).reshape(-1)
    return found if times == 1 else found.astype(np.float64) / times


def _host(value: Any) -> Any:
    is_array = hasattr(value, "shape") and hasattr(value, "dtype")
    return from_foreign(value).copy_to_host() if is_array else value


def _ordered(case: Case, a: Array) -> Array:
    """In the order of memory, also where a library calls the last axis the second."""
    if a.shape[1:] != case.array_shape[1:]:
        a = np.moveaxis(a, 1, -1)
    return np.ascontiguousarray(a)


def _difference(got: Array, want: Array) -> float:
    a, b = (array.astype(np.float64) for array in (got, want))
    error = np.abs(a - b).max() / max(1.0, np.abs(b).max())
    return float(error) if np.isfinite(error) else np.inf
