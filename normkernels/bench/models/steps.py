"""One step of a model: training or inference, in float32 or bfloat16, eager or compiled."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...torch import replace_norms
from .architectures import ARCHITECTURES
from .cases import BFLOAT16, COMPILE, Case

LEARNING_RATE = 1e-3
SEED = 1

Step = Callable[[], Any]


def pair(case: Case) -> tuple[nn.Module, nn.Module]:
    """The model of a case, and the same with other norms."""
    before = made(case)
    return before, replace_norms(deepcopy(before), report=None)


def made(case: Case) -> nn.Module:
    """A model in the mode of a case; for inference in bfloat16 it has weights in bfloat16."""
    torch.manual_seed(SEED)
    return ARCHITECTURES[case.model].make().train(case.training).to(_dtype(case))


def data(case: Case, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    """Input and target, in another dtype if one is given."""
    torch.manual_seed(SEED)
    x, target = ARCHITECTURES[case.model].data(case.batch)
    x = x.detach().to(_dtype(case)).to(dtype).requires_grad_(case.training and x.requires_grad)
    return x, target.to(dtype) if target.is_floating_point() else target


def _dtype(case: Case) -> torch.dtype:
    """Of the weights and of the input: a training step in bfloat16 is autocast."""
    return torch.bfloat16 if case.dtype == BFLOAT16 and not case.training else torch.float32


def autocast(case: Case) -> Any:
    """In which a step computes."""
    return torch.autocast("cpu", torch.bfloat16, enabled=case.training and case.dtype == BFLOAT16)


def forward(model: Callable[..., Any], x: Tensor, case: Case) -> Tensor:
    """The output of a model, or the first of several."""
    wide = x.dtype is torch.float64  # what is compared with
    with torch.set_grad_enabled(case.training), nullcontext() if wide else autocast(case):
        y = model(x)
    return y[0] if isinstance(y, tuple) else y


def loss(y: Tensor, target: Tensor) -> Tensor:
    """Cross entropy of classes, mean square of numbers."""
    y = y if y.dtype is torch.float64 else y.float()
    error = nn.functional.mse_loss if target.is_floating_point() else nn.functional.cross_entropy
    return error(y, target)


def compiled(model: nn.Module, case: Case) -> Callable[..., Any]:
    """The model as a case calls it."""
    return torch.compile(model) if case.mode == COMPILE else model


def step_of(model: nn.Module, call: Callable[..., Any], case: Case) -> Step:
    """Forward and, in training, loss, backward and a step of SGD; `call` is the model, perhaps compiled."""
    x, target = data(case)
    if not case.training:
        return lambda: forward(call, x, case)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step() -> None:
        loss(forward(call, x, case), target).backward()
        optimizer.step()
        optimizer.zero_grad()
        x.grad = None

    return step
