"""The norms of a model: their modules get the classes of this package, and their own classes back."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import nn

from . import modules
from .sync import SyncBatchNorm

Model = TypeVar("Model", bound=nn.Module)

# Of which packages there are replacements, in the module of this name here, which imports the package.
_LIBRARIES = "timm", "transformers"
_DTYPES = torch.float32, torch.float64, torch.float16, torch.bfloat16
_DEVICES = "cpu", "cuda", "meta"
_BEFORE = "_normkernels_class_before"

_known: dict[type[nn.Module], type[nn.Module]] = {
    getattr(nn, name): getattr(modules, name) for name in modules.__all__ if hasattr(nn, name)
}
_known[nn.SyncBatchNorm] = SyncBatchNorm


def register_norm(original: type[nn.Module], replacement: type[nn.Module]) -> None:
    """Have `replace_norms` give modules of a class another one.

    Parameters
    ----------
    original : type
        Class of the modules; subclasses are not meant.
    replacement : type
        A subclass of it, which computes the same of the same parameters and buffers.

    Raises
    ------
    TypeError
        If the replacement is no subclass of the original.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import functional, register_norm
    >>> class Scale(torch.nn.RMSNorm):
    ...     pass
    >>> class FastScale(Scale):
    ...     def forward(self, input):
    ...         return functional.rms_norm(input, self.normalized_shape, self.weight, self.eps)
    >>> register_norm(Scale, FastScale)
    """
    if not (
        isinstance(original, type) and isinstance(replacement, type) and issubclass(replacement, original)
    ):
        raise TypeError(f"replacement must be a subclass of {original!r}, got {replacement!r}")
    _known[original] = replacement


def replace_norms(model: Model, *, report: Callable[[str], object] | None = print) -> Model:
    """Have the norms of a model computed by the kernels of this package.

    The modules stay what they are, with their parameters, buffers, hooks, mode, dtype and device; they get
    another class, a subclass of their own. Norms that a model calls as functions are not seen.

    Parameters
    ----------
    model : torch.nn.Module
    report : callable, optional
        Is called with a line for each class of norms: how many were replaced, or why they were not.
        None: is not called.

    Returns
    -------
    torch.nn.Module
        The model itself.

    Raises
    ------
    TypeError
        If the model is no module.

    Examples
    --------
    >>> import torch
    >>> from normkernels.torch import replace_norms, restore_norms
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8))
    >>> model = replace_norms(model)
    replaced 1 LayerNorm
    >>> type(model[1]).__module__, type(restore_norms(model)[1]).__module__
    ('normkernels.torch.modules', 'torch.nn.modules.normalization')
    """
    found: dict[tuple[str, str], int] = {}
    for module in _modules(model):
        name = type(module).__name__
        _look_up(type(module))
        if _looks_like_a_norm(module):
            reason = _why_not(module)
            if reason is None:
                module.__dict__[_BEFORE] = type(module)
                module.__class__ = _known[type(module)]
            found[name, reason or ""] = found.get((name, reason or ""), 0) + 1
    if report is not None:
        for (name, reason), count in found.items():
            report(f"left {count} {name}: {reason}" if reason else f"replaced {count} {name}")
        if not found:
            report("found no norms")
    return model


def restore_norms(model: Model) -> Model:
    """Undo `replace_norms`.

    Parameters
    ----------
    model : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        The model itself.

    Raises
    ------
    TypeError
        If the model is no module.
    """
    for module in _modules(model):
        before = module.__dict__.get(_BEFORE)
        if before is not None and type(module) is _known.get(before):  # not where it was changed since
            del module.__dict__[_BEFORE]
            module.__class__ = before
    return model


def _modules(model: Any) -> list[nn.Module]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return list(model.modules())


def _look_up(kind: type[nn.Module]) -> None:
    """Take note of what takes the place of a class, if its library is known."""
    library = kind.__module__.partition(".")[0]
    if library in _LIBRARIES and kind not in _known:
        replacement = import_module(f".{library}", __package__).replacement_of(kind)
        if replacement is not None:
            _known[kind] = replacement


def _looks_like_a_norm(module: nn.Module) -> bool:
    kind = type(module)
    if kind in _known:
        return True
    named = "norm" in kind.__name__.lower() and next(module.children(), None) is None
    return kind not in _known.values() and (isinstance(module, tuple(_known)) or named)


def _why_not(module: nn.Module) -> str | None:
    """Why a norm keeps its class; None if it need not."""
    if type(module) not in _known:
        return "no replacement is registered for this class"
    if "forward" in module.__dict__:
        return "its forward is not that of its class"
    for t in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
        if t.is_floating_point() and t.dtype not in _DTYPES:
            return f"kernels do not take {t.dtype}"
        if t.device.type not in _DEVICES or (t.is_cuda and not _has_cuda()):
            return f"there are no kernels for device {t.device.type}"
        if t.is_cuda and isinstance(module, nn.SyncBatchNorm):
            return "PyTorch's own works on CUDA devices"
    return None


def _has_cuda() -> bool:
    """Whether the packages that CUDA kernels need are there."""
    try:
        import_module("..cuda.launch", __package__)
    except ImportError:
        return False
    return True
