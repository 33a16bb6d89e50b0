"""The norms of `torch.nn.functional`, by the kernels of this package.

Signatures and meaning are those of PyTorch; what is more is keyword-only: `residual`, `activation`, `dim`.
Autograd follows the results, to first derivatives. Tensors on the CPU are taken without a copy; they are
float32, float64, or float16 or bfloat16 with parameters of the same dtype or float32. Those on a CUDA device
go to the CUDA kernels. A channels-last tensor stays one. To `torch.compile`, `torch.export` and `torch.func`
a norm is the operator ``torch.ops.normkernels.norm``.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._layout import Activation
from ._norms import normalize

__all__ = [
    "batch_norm",
    "batch_renorm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "rms_norm",
]


def _sizes(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _axes(dim: int | Sequence[int] | None) -> Any:
    return tuple(dim) if isinstance(dim, list) else dim


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    dim: int | Sequence[int] | None = None,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Layer normalization: ``y = activation((h - mean) * rstd * weight + bias)``, ``h = input + residual``.

    Parameters
    ----------
    input : Tensor, shape (..., *normalized_shape)
        float32, float64, float16 or bfloat16.
    normalized_shape : int or sequence of int
        The last dimensions of the input, or those of `dim`.
    weight, bias : Tensor, shape normalized_shape, optional
        Of the dtype of the input, or float32 beside a half type. Absent: ones and zeros.
    eps : float
        Added to the variance.
    dim : int or sequence of int, optional
        The dimensions over which statistics go: 1 is the LayerNorm2d of ConvNeXt on NCHW.
    residual : Tensor, shape and dtype of the input, optional
        Added to the input first.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Follows the norm; gelu is the exact one.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.layer_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> x = torch.tensor([[1.0, 3.0]], requires_grad=True)
    >>> y = F.layer_norm(x, 2)
    >>> y.detach().round(decimals=3)
    tensor([[-1.,  1.]])
    """
    options = {
        "normalized_shape": _sizes(normalized_shape), "eps": eps, "dim": _axes(dim), "activation": activation,
    }  # fmt: skip
    return normalize("layer_norm", options, input, weight, bias, residual, None, None)


def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    dim: int | Sequence[int] | None = None,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """RMS normalization: ``y = activation(h / sqrt(mean(h**2) + eps) * weight)``, ``h = input + residual``.

    Parameters
    ----------
    input, normalized_shape, dim, residual, activation
        As for `layer_norm`.
    weight : Tensor, shape normalized_shape, optional
        Of any dtype; the result has that of the input.
    eps : float, optional
        Added to the mean square; by default the machine epsilon of the arithmetic.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.rms_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> F.rms_norm(torch.tensor([[3.0, 4.0]]), 2).round(decimals=2)
    tensor([[0.8500, 1.1300]])
    """
    options = {
        "normalized_shape": _sizes(normalized_shape), "eps": eps, "dim": _axes(dim), "activation": activation,
    }  # fmt: skip
    if weight is not None and weight.dtype != input.dtype:
        half = input.dtype in (torch.float16, torch.bfloat16)
        if not (half and weight.dtype == torch.float32):  # which kernels take
            weight = weight.to(input.dtype)
    return normalize("rms_norm", options, input, weight, None, residual, None, None)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Batch normalization: ``y = activation((input - mean) * rstd * weight + bias + residual)``.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...)
        Contiguous or channels-last.
    running_mean, running_var : Tensor, shape (C,), optional
        Moved in training, the variance with the unbiased one of the batch; in evaluation they are the
        statistics, and needed.
    weight, bias : Tensor, shape (C,), optional
        As for `layer_norm`.
    training : bool
        Whether to normalize with statistics of the batch.
    momentum : float
        Weight of the batch in the running statistics.
    eps : float
        Added to the variance.
    residual : Tensor, shape and dtype of the input, optional
        Added after the norm, before the activation.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Follows.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.batch_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> F.batch_norm(torch.tensor([[1.0], [3.0]]), None, None, training=True).round(decimals=3)
    tensor([[-1.],
            [ 1.]])
    """
    options = {"training": training, "momentum": momentum, "eps": eps, "activation": activation}
    return normalize("batch_norm", options, input, weight, bias, residual, running_mean, running_var)


def batch_renorm(
    input: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    r_max: float = 3.0,
    d_max: float = 5.0,
    *,
    residual: Tensor | None = None,
    activation: Activation | None = None,
) -> Tensor:
    """Batch renormalization (Ioffe 2017): batch normalization, brought near the running statistics.

    ``y = (x_hat * r + d) * weight + bias``, where r and d take the statistics of the batch to the running
    ones and are constants in the gradient.

    Parameters
    ----------
    input, running_mean, running_var, weight, bias, training, momentum, eps, residual, activation
        As for `batch_norm`; running statistics are needed.
    r_max, d_max : float
        Limits: ``1 / r_max <= r <= r_max``, ``-d_max <= d <= d_max``.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.batch_renorm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> mean, var = torch.zeros(1), torch.ones(1)
    >>> F.batch_renorm(torch.tensor([[1.0], [3.0]]), mean, var, training=True).round(decimals=3)
    tensor([[1.],
            [3.]])
    """
    options = {
        "training": training, "momentum": momentum, "eps": eps, "r_max": r_max, "d_max": d_max,
        "activation": activation,
    }  # fmt: skip
    return normalize("batch_renorm", options, input, weight, bias, residual, running_mean, running_var)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: Activation | None = None,
) -> Tensor:
    """Group normalization: ``y = activation((input - mean) * rstd * weight + bias)``, statistics per group.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...)
        A channels-last tensor is copied on the way.
    num_groups : int
        Groups of ``C / num_groups`` neighbouring channels.
    weight, bias : Tensor, shape (C,), optional
        As for `layer_norm`.
    eps : float
        Added to the variance.
    activation : {"relu", "sigmoid", "silu", "gelu"}, optional
        Follows the norm.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.group_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> F.group_norm(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), 2).round(decimals=3)
    tensor([[-1.,  1., -1.,  1.]])
    """
    options = {"num_groups": num_groups, "eps": eps, "activation": activation}
    return normalize("group_norm", options, input, weight, bias, None, None, None)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: Activation | None = None,
) -> Tensor:
    """Instance normalization: every channel of every sample on its own.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...)
        A channels-last tensor is copied on the way.
    running_mean, running_var : Tensor, shape (C,), optional
        Moved where `use_input_stats`; the statistics where not.
    weight, bias, eps, activation
        As for `group_norm`.
    use_input_stats : bool
        Whether to normalize with statistics of the instance.
    momentum : float
        Weight of the batch in the running statistics.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.instance_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> F.instance_norm(torch.tensor([[[1.0, 3.0], [5.0, 9.0]]])).round(decimals=3)
    tensor([[[-1.,  1.],
             [-1.,  1.]]])
    """
    options = {"use_input_stats": use_input_stats, "momentum": momentum, "eps": eps, "activation": activation}
    return normalize("instance_norm", options, input, weight, bias, None, running_mean, running_var)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """Local response normalization: ``y = input / (k + alpha * mean(input**2 over size channels))**beta``.

    Parameters
    ----------
    input : Tensor, shape (N, C, ...)
    size : int
        Neighbouring channels of the window; zeros beyond the ends.
    alpha, beta, k : float
        As in the equation.

    Returns
    -------
    Tensor, shape, dtype and strides of the input

    Raises
    ------
    TypeError, ValueError
        As `normkernels.local_response_norm` does.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional as F
    >>> F.local_response_norm(torch.ones(1, 2, 1), size=1, alpha=1.0).round(decimals=3)
    tensor([[[0.5950],
             [0.5950]]])
    """
    options = {"size": size, "alpha": alpha, "beta": beta, "k": k}
    return normalize("local_response_norm", options, input, None, None, None, None, None)
