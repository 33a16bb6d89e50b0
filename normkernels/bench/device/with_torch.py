"""PyTorch's own functions; the backward is that of autograd, which is what a user gets."""

from collections.abc import Callable
from typing import Any

import torch

from ..cases import Case
from ..inputs import Inputs
from ..peers.torch_functions import CALLS, copies, tensors, through_autograd
from ..timing import Contender
from .measure import Contending, Library

torch.set_grad_enabled(False)


def contending(wrapped: Callable[[Any], Any]) -> Contending:
    """PyTorch's functions as `wrapped` returns them."""

    def contender(case: Case, inputs: Inputs, slots: int) -> Contender | None:
        if case.op not in CALLS or case.fuse:
            return None
        x, dy, a = tensors(case, inputs)
        xs = copies(x, slots)
        if case.pass_ == "backward":
            pairs = list(zip(xs, copies(dy, slots), strict=True))
            return through_autograd(case.op, pairs, a, wrapped)
        function, call = CALLS[case.op](x, a)
        return Contender(wrapped(function), [(each, *call) for each in xs], {})

    return contender


LIBRARY = Library(contending(lambda function: function))
