"""The RMS norms of transformers by the kernels of this package: what `replace_norms` puts in their place.

The library has one class for every model, each in the file of that model. The classes here are made when they
are asked for, and can be pickled.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from . import functional as F

# Classes that compute weight * (x / sqrt(mean(x**2) + variance_epsilon)), and the models that have them.
_MODELS = {
    "DeepseekV3RMSNorm": "deepseek_v3",
    "LlamaRMSNorm": "llama",
    "MistralRMSNorm": "mistral",
    "MixtralRMSNorm": "mixtral",
    "Phi3RMSNorm": "phi3",
    "Qwen2RMSNorm": "qwen2",
    "Qwen2MoeRMSNorm": "qwen2_moe",
    "Qwen3RMSNorm": "qwen3",
    "Qwen3MoeRMSNorm": "qwen3_moe",
    "T5LayerNorm": "t5",
}


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    """Of the dtype that a product of weight and x has."""
    weight, x = self.weight, hidden_states
    if weight.dtype != x.dtype:
        dtype = torch.promote_types(weight.dtype, x.dtype)
        weight = weight.to(dtype)
        # Kernels take a half x beside a float32 weight: x need not be copied.
        if x.dtype not in (torch.float16, torch.bfloat16) or dtype is not torch.float32:
            x = x.to(dtype)
        return F.rms_norm(x, weight.shape, weight, self.variance_epsilon).to(dtype)
    return F.rms_norm(x, weight.shape, weight, self.variance_epsilon)


def _forward_t5(self: Any, hidden_states: Tensor) -> Tensor:
    """Of the dtype of a half weight."""
    y = _forward(self, hidden_states)
    return y.to(self.weight.dtype) if self.weight.dtype in (torch.float16, torch.bfloat16) else y


@cache
def _class_of(name: str) -> type:
    model = _MODELS[name]
    original = getattr(import_module(f"transformers.models.{model}.modeling_{model}"), name)
    forward = _forward_t5 if name == "T5LayerNorm" else _forward
    return type(name, (original,), {"forward": forward, "__module__": __name__, "__doc__": original.__doc__})


def __getattr__(name: str) -> type:
    if name in _MODELS:
        return _class_of(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def replacement_of(kind: type) -> type | None:
    """The class that takes the place of one of transformers'."""
    if kind.__name__ not in _MODELS or not kind.__module__.startswith("transformers."):
        return None
    found = _class_of(kind.__name__)
    return found if found.__base__ is kind else None
