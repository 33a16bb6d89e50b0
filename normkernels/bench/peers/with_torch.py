"""PyTorch: its functional norms; a backward is the kernel's own where PyTorch has it as a function."""

from collections.abc import Callable
from typing import Any

import torch

from ..cases import Case
from ..check import Tensors
from ..inputs import Inputs
from ..timing import Contender
from .peer import Peer, gradients, in_layout
from .torch_functions import BACKWARDS, CALLS, copies, tensors, through_autograd


class Torch(Peer):
    """Every norm but batch renorm, both passes and evaluation; float32 and float64, both layouts."""

    def __init__(self, threads: int) -> None:
        torch.set_grad_enabled(False)
        torch.set_num_threads(threads)

    def has(self, case: Case) -> bool:
        return case.op in CALLS and not case.fuse and case.dtype in ("float32", "float64")

    def contender(self, case: Case, inputs: Inputs, slots: int) -> Contender:
        x, dy, a = tensors(case, inputs)
        xs = copies(x, slots)
        if case.pass_ == "forward":
            function, call = CALLS[case.op](x, a)
            made = Contender(self.wrapped(function), [(t, *call) for t in xs], {}, torch.Tensor.numpy)
            made.reads = [t.numpy() for t in xs]
            return made
        dys = copies(dy, slots)
        made = self.backward(case, list(zip(xs, dys, strict=True)), a)
        made.reads = [t.numpy() for t in dys]
        made.array = lambda result: result[0].numpy()
        return made

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """What is called in place of PyTorch's function."""
        return function

    def backward(
        self, case: Case, pairs: list[tuple[torch.Tensor, torch.Tensor]], a: dict[str, Any]
    ) -> Contender:
        """The backward over pairs of x and dy."""
        # they would copy channels-last tensors, or axes to be moved, before they are timed
        copied = (case.op, case.layout) == ("instance_norm", "channels_last") or "dim" in a
        if case.op in BACKWARDS and not copied:
            return BACKWARDS[case.op](pairs, a)
        return through_autograd(case.op, pairs, a)

    def results(self, case: Case, inputs: Inputs, result: Any) -> Tensors:
        if case.pass_ == "forward":
            moved = {name: a for name, a in inputs.arguments.items() if name.startswith("running")}
            return {"y": in_layout(case, result.numpy()), **moved}
        dx, *others = (gradient.numpy() for gradient in result)
        return gradients(case, [in_layout(case, dx), *others])
