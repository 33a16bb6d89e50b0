"""PyTorch, by the functions that `normkernels bench --baseline torch` calls. It has no batch renorm."""

from dataclasses import replace
from typing import Any

import numba
import torch

from normkernels.bench.cases import Case
from normkernels.bench.check import compare
from normkernels.bench.inputs import Inputs, copied
from normkernels.bench.torch_worker import CALLS, contender

__all__ = ["contender", "has", "verify"]

torch.set_grad_enabled(False)
torch.set_num_threads(numba.get_num_threads())


def has(case: Case) -> bool:
    return case.op in CALLS


def verify(case: Case, inputs: Inputs) -> float:
    """Of a backward the gradients alone: it takes statistics and moves none."""
    given = replace(inputs, arguments=copied(inputs.arguments))
    result = contender(case, given, slots=1).once()
    if case.pass_ == "forward":
        return compare(case, inputs, {"y": result.numpy()}, given.arguments)
    results: dict[str, Any] = {"dx": None, "dweight": None, "dbias": None}
    results |= zip(results, (gradient.numpy() for gradient in result), strict=False)
    if case.op == "weight_norm":  # g is (rows, 1) to PyTorch
        results["dweight"] = results["dweight"].reshape(-1)
    return compare(case, inputs, results, {})
