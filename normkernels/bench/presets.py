"""Layer shapes of real models, read from presets.yaml."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from ..norms import NORMS


@dataclass(frozen=True)
class Layer:
    """One line of a preset: (channels, *spatial) or (rows, hidden), and how many such layers a model has."""

    sizes: tuple[int, ...]
    count: int

    def shape(self, batch: int) -> tuple[int, ...]:
        """The shape of x at a batch.

        (C, H, W) gives (batch, C, H, W), and (batch, C) where H = W = 1. (rows, hidden) states the rows
        of a whole default batch, so `batch` multiplies them.
        """
        if len(self.sizes) == 2:
            rows, hidden = self.sizes
            return (batch * rows, hidden)
        channels, *spatial = self.sizes
        return (batch, channels) if set(spatial) == {1} else (batch, channels, *spatial)


@dataclass(frozen=True)
class Preset:
    """Normalization layers of one model; `batch` is their default batch, 1 for (rows, hidden) layers."""

    op: str
    name: str
    batch: int
    layers: tuple[Layer, ...]
    layout: str | None = None
    """In which these layers are always, None for what the user asks for."""
    passes: tuple[str, ...] = ()
    """Which are measured unless the user names some; none for forward and backward."""


def _preset(op: str, name: str, entry: dict[str, Any]) -> Preset:
    layers = tuple(Layer(tuple(sizes), count) for *sizes, count in entry["layers"])
    return Preset(
        op, name, entry.get("batch", 1), layers, entry.get("layout"), tuple(entry.get("passes", ()))
    )


@cache
def presets() -> tuple[Preset, ...]:
    """The presets of every norm there is; several batches or layouts of one name are as many presets."""
    document = yaml.safe_load(files(__package__).joinpath("presets.yaml").read_text(encoding="utf-8"))
    return tuple(
        _preset(op, name, entry)
        for op, models in document.items()
        if op in NORMS
        for name, entries in models.items()
        for entry in (entries if isinstance(entries, list) else [entries])
        if isinstance(entry, dict)
    )
