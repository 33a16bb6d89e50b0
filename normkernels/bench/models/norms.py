"""The norms of a model by themselves: a step in which there is nothing else.

Hooks see with which tensors a step calls its norms. The step of the norms calls them all, one after the
other, each with a tensor of its own, and then takes all gradients, last to first: data come from memory as
in the model, and autograd runs once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .cases import Case
from .steps import Step, autocast


@dataclass(frozen=True)
class Call:
    """A call of the norms at the same place of both models, and the input it had."""

    modules: tuple[nn.Module, nn.Module]
    like: Tensor
    """On no device: shape, strides and dtype."""
    followed: bool
    """Whether autograd wants the gradient of the input."""


def calls_of(models: tuple[nn.Module, nn.Module], step: Step) -> list[Call]:
    """All calls of norms that have another class in the second model, in a step of the first."""
    found: list[Call] = []
    with ExitStack() as hooks:
        for both in zip(*(model.modules() for model in models), strict=True):
            if type(both[0]) is not type(both[1]):

                def see(_: nn.Module, given: tuple[Tensor, ...], both: Any = both) -> None:
                    (x,) = given
                    found.append(Call(both, torch.empty_like(x, device="meta"), x.requires_grad))

                hooks.callback(both[0].register_forward_pre_hook(see).remove)
        step()
    return found


def step_of_norms(calls: Sequence[Call], case: Case) -> tuple[Step, Step]:
    """The step of the norms alone, before and after, on the same tensors."""
    xs = [torch.empty_like(call.like, device="cpu").normal_().requires_grad_(call.followed) for call in calls]
    dys: dict[Any, Tensor] = {}

    def step(variant: int) -> None:
        modules = [call.modules[variant] for call in calls]
        with torch.set_grad_enabled(case.training), autocast(case):
            ys = [module(x) for module, x in zip(modules, xs, strict=True)]
        if case.training:
            given = [_gradient(y, dys) for y in ys]
            leaves = [x for x in xs if x.requires_grad]
            leaves += {p: None for module in modules for p in module.parameters()}
            torch.autograd.grad(ys, leaves, given)

    return lambda: step(0), lambda: step(1)


def _gradient(y: Tensor, made: dict[Any, Tensor]) -> Tensor:
    """One for all outputs that lie in memory as y does."""
    key = y.shape, y.stride(), y.dtype
    if key not in made:
        made[key] = torch.randn_like(y.detach())
    return made[key]
