"""Which backend runs a plan: a table look-up."""

from types import ModuleType

from .cpu import launch as cpu

BACKENDS: dict[str, ModuleType] = {"cpu": cpu}


def backend(device: str) -> ModuleType:
    """The module with `row_forward`, `channel_forward` and the rest for arrays on `device`."""
    return BACKENDS[device]
