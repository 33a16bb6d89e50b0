"""Tensors of PyTorch as arrays, and back, without a copy."""

from typing import Any, TypeAlias

import numba
import numpy as np
import torch
from torch import Tensor

from .._layout import bfloat16
from ..norms import NORMS

MaybeTensor: TypeAlias = Tensor | None


def array(tensor: Tensor | None) -> Any:
    """The memory of a tensor as kernels take it: an ndarray, or on a CUDA device the tensor itself.

    It must not require a gradient where gradients are enabled.
    """
    if tensor is None:
        return None
    if tensor.is_cuda:
        return tensor.detach()
    if tensor.dtype is torch.bfloat16:  # NumPy has none
        return tensor.view(torch.int16).numpy().view(bfloat16())
    return tensor.numpy()


def tensor(array: Any) -> Tensor:
    """A result of kernels as a tensor."""
    if not isinstance(array, np.ndarray):
        return array if isinstance(array, Tensor) else torch.from_dlpack(array)
    if array.dtype.kind == "V":  # bfloat16; its name takes 5 µs
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def output(norm: str, options: dict[str, Any], x: Tensor) -> Tensor:
    """Memory for y: with the strides of x, but in C order after a norm over the last dimensions.

    That is as PyTorch has it, and code relies on it: a `view` may follow.
    """
    last = NORMS[norm].family == "rows" and options["dim"] is None
    return torch.empty(x.shape, dtype=x.dtype, device=x.device) if last else torch.empty_like(x)


def arguments(
    options: dict[str, Any], weight: MaybeTensor, bias: MaybeTensor, residual: MaybeTensor,
    running_mean: MaybeTensor, running_var: MaybeTensor,
) -> dict[str, Any]:  # fmt: skip
    """Keyword arguments of a norm, from its options and the tensors of a call beside x."""
    found = {**options, "threads": threads()}
    if weight is not None:
        found["weight"] = array(weight)
    if bias is not None:
        found["bias"] = array(bias)
    if residual is not None:
        found["residual"] = array(residual)
    if "momentum" in options:
        found["running_mean"], found["running_var"] = array(running_mean), array(running_var)
    return found


def threads() -> int:
    """As many threads as PyTorch uses, if numba has been made for so many."""
    return min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
