"""PyTorch's functions through torch.compile; the backward is that of the compiled forward."""

from typing import Any

import torch._functorch.config
import torch._inductor.config

from .measure import Library
from .with_torch import contending

# One small graph at a time needs no pool of processes.
torch._inductor.config.compile_threads = 1
# Gradients are asked for again and again: what the forward has kept must stay.
torch._functorch.config.donated_buffer = False


def _compiled(function: Any) -> Any:
    """Each case as if it were the only one: its sizes are compiled in."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


LIBRARY = Library(contending(_compiled))
