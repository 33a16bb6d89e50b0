"""PyTorch's norms through torch.compile, which writes and compiles C++ for each case."""

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
import torch._inductor.config
from torch._inductor.cpp_builder import get_cpp_compiler

from ..cases import Case
from ..timing import Contender
from .torch_functions import through_autograd
from .with_torch import Torch


class TorchCompile(Torch):
    """What PyTorch has; the backward is that of the compiled forward."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        get_cpp_compiler()  # raises where there is none
        # One small graph at a time needs no pool of processes.
        torch._inductor.config.compile_threads = 1
        # Gradients are asked for again and again: what the forward has kept must stay.
        torch._functorch.config.donated_buffer = False

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Each case as if it were the only one: its sizes are compiled in."""
        torch._dynamo.reset()
        compiled: Callable[..., Any] = torch.compile(function, dynamic=False)
        return compiled

    def backward(
        self, case: Case, pairs: list[tuple[torch.Tensor, torch.Tensor]], a: dict[str, Any]
    ) -> Contender:
        return through_autograd(case.op, pairs, a, self.wrapped)
