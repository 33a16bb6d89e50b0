"""Do both models compute the same? Asked before anything is timed, of outputs and all gradients.

In a deep network of rectifiers any rounding changes gradients by percents (those of ResNet-50 in float32 are
3 % from those in float64), so a fixed tolerance would say little. Both models are compared with the first one
in float64: the second may be no further from it than the first is, times SLACK.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ..check import Mismatch
from .cases import BFLOAT16, Case
from .results import Errors
from .steps import SEED, data, forward, loss

SLACK = 2.0
# Errors below these, relative to the size of a tensor, are rounding whatever those of the first model are.
FLOORS = {"float32": 1e-4, BFLOAT16: 1e-2}
# A gradient so much smaller than the largest of a model is rounding: that of the keys' bias in attention.
NEGLIGIBLE = 1e-3

Results = dict[str, Tensor]


def check(case: Case, models: tuple[nn.Module, nn.Module], calls: tuple[Callable[..., Any], ...]) -> Errors:
    """The errors of both; raises Mismatch with the name of what is wrong after."""
    exact = deepcopy(models[0]).double()
    wanted = _results(case, exact, exact, torch.float64)
    before, after = (_results(case, *each) for each in zip(models, calls, strict=True))
    output, *gradients = (_checked(case, *kind) for kind in zip(wanted, before, after, strict=True))
    return Errors(output, *gradients)


def _checked(case: Case, wanted: Results, before: Results, after: Results) -> tuple[float, float]:
    """The worst errors of some results of one kind."""
    least = NEGLIGIBLE * max(map(_size, wanted.values()))

    def error(found: Results, name: str) -> float:
        off = _size(found[name].double() - wanted[name])
        return off / max(_size(wanted[name]), least, 1e-30)

    first = max(error(before, name) for name in wanted)
    allowed, worst = SLACK * max(first, FLOORS[case.dtype]), 0.0
    for name in wanted:
        own = error(after, name)
        if not own <= allowed:
            raise Mismatch(
                f"{case}: {name} must be as near to float64 after as before, {allowed:.1e}, got {own:.1e}"
            )
        worst = max(worst, own)
    return first, worst


def _results(
    case: Case, model: nn.Module, call: Callable[..., Any], dtype: torch.dtype | None = None
) -> list[Results]:
    """The output and, in training, the gradients by parameter, of a step that changes no parameter."""
    x, target = data(case, dtype)
    torch.manual_seed(SEED)  # of dropout
    y = forward(call, x, case)
    if not case.training:
        return [{"the output": y}]
    loss(y, target).backward()
    leaves = {"x": x, **dict(model.named_parameters())}
    gradients = {f"the gradient of {k}": t.grad for k, t in leaves.items() if t.grad is not None}
    model.zero_grad()
    return [{"the output": y.detach()}, gradients]


def _size(t: Tensor) -> float:
    """The root of the mean square."""
    return float(t.double().square().mean().sqrt())
