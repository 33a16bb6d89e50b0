"""Which cases the options of `normkernels bench` ask for."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import click

from .._layout import ACTIVATIONS
from ..norms import NORMS
from .cases import COLD, CONDITIONS, DTYPES, IMAGE_NDIM, Case
from .presets import presets

PASSES = ("forward", "backward")
# The forward of batch norm and batch renorm after training, measured where it is asked for.
EVALUATION = "evaluation"
LAYOUTS = ("contiguous", "channels_last")

# preset -> batches of a run without options, its own where none is named: about two minutes on two cores.
DEFAULT: dict[str, tuple[int, ...]] = {
    "resnet50": (32,),
    "mlp": (60,),
    "bert_base": (1,),
    "gpt2": (1,),
    "vit_s16": (1,),
    "decode": (1,),
    "llama3_8b": (1,),
    "diffusion": (8,),
    "cyclegan": (1,),
    "inception_v3": (4,),
    "hifigan": (1,),
    "alexnet": (32,),
    "everyday": (),
}
QUICK: dict[str, tuple[int, ...]] = {
    "resnet18": (1,),
    "mlp": (60,),
    "vit_s16": (1,),
    "smoke": (1,),
    "qwen2_5_7b": (1,),
    "diffusion": (1,),
    "cyclegan": (1,),
    "inception_v3": (1,),
    "hifigan": (1,),
    "alexnet": (1,),
}


# On a device, beside the sweep of large tensors (device/plan.py).
DEVICE = {
    "resnet50": (32,),
    "mlp": (60,),
    "bert_base": (1,),
    "gpt2": (1,),
    "vit_s16": (1,),
    "decode": (1,),
    "llama3_8b": (1,),
    "deepseek_v3": (1,),
    "diffusion": (8,),
    "cyclegan": (1,),
    "inception_v3": (4,),
    "hifigan": (1,),
    "alexnet": (32,),
}
DEVICE_QUICK = {"bert_base": (1,), "decode": (1,), "llama3_8b": (1,), "resnet18": (16,)}


class BadOption(click.ClickException):
    """An option that cannot be followed; the message is one line for the user."""

    exit_code = 2


@dataclass(frozen=True)
class Selection:
    """The options that choose cases; what is empty is not restricted."""

    ops: Sequence[str] = ()
    passes: Sequence[str] = ()
    presets: Sequence[str] = ()
    shapes: Sequence[str] = ()
    batches: Sequence[int] = ()
    dtypes: Sequence[str] = ()
    layout: str = "contiguous"
    quick: bool = False
    fuses: Sequence[str] = ()
    device: bool = False
    conditions: Sequence[str] = ()

    @property
    def default(self) -> Mapping[str, tuple[int, ...]]:
        """Presets and batches where none are named."""
        if self.device:
            return DEVICE_QUICK if self.quick else DEVICE
        return QUICK if self.quick else DEFAULT


@dataclass(frozen=True)
class _Tensor:
    op: str
    shape: tuple[int, ...]
    preset: str = "shape"
    count: int = 1
    batch: int | None = None
    layout: str | None = None
    """That of the preset, which holds whatever --layout says."""
    passes: tuple[str, ...] = ()
    """Those of the preset, where --pass says nothing."""


def select(options: Selection) -> list[Case]:
    """The cases of a selection, without repetition; raises BadOption."""
    options = once(options)
    check_names(options.ops, options.dtypes)
    _one_of("--pass", options.passes, PASSES if options.device else (*PASSES, EVALUATION))
    _one_of("--preset", options.presets, ["all", *dict.fromkeys(preset.name for preset in presets())])
    _one_of("--layout", [options.layout], LAYOUTS)
    _one_of("--condition", options.conditions, CONDITIONS)
    for batch in options.batches:
        if batch < 1:
            raise BadOption(f"--batch must be 1 or more, got {batch}")
    if options.shapes and (options.presets or options.batches):
        raise BadOption("--shape states every size: give it without --preset and --batch")

    ops = _able_to_fuse(options)
    tensors = _from_shapes(ops, options) if options.shapes else _from_presets(ops, options)
    cases = [
        Case(
            t.op,
            "forward" if pass_ == EVALUATION else pass_,
            t.shape,
            dtype,
            t.layout or options.layout,
            t.preset,
            t.count,
            t.batch,
            fuse,
            pass_ == EVALUATION,
            condition,
        )
        for t in tensors
        for fuse in options.fuses or ("",)
        for pass_ in options.passes or t.passes or PASSES
        for dtype in options.dtypes or ("float32",)
        for condition in options.conditions or (COLD,)
        if fusible(t.op, fuse)
        and (pass_ != "backward" or fuse != "residual")  # whose backward fuses nothing
        and (pass_ != EVALUATION or (NORMS[t.op].family == "channels" and not options.device))
    ]
    if not cases and EVALUATION in options.passes:
        raise BadOption(f"--pass {EVALUATION} needs a norm over channels, not {' or '.join(ops)}")
    return list(dict.fromkeys(cases))


def once(options: Selection) -> Selection:
    """The same selection without what was given twice."""
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    lists: dict[str, Any] = {
        name: tuple(dict.fromkeys(values))
        for name, values in given.items()
        if isinstance(values, tuple | list)
    }
    return replace(options, **lists)


def check_names(ops: Sequence[str], dtypes: Sequence[str]) -> None:
    """Raise BadOption unless these are norms and dtypes."""
    _one_of("--op", ops, NORMS)
    _one_of("--dtype", dtypes, DTYPES)


def check_fuses(fuses: Sequence[str], ops: Sequence[str]) -> None:
    """Raise BadOption unless every norm takes every fusion."""
    for fuse in fuses:
        words = fuse.split("+")
        activations = [word for word in words if word in ACTIVATIONS]
        rest = set(words) - set(activations)
        if len(activations) > 1 or len(set(words)) < len(words) or not rest <= {"residual", "sum"}:
            names = f"residual, sum and one of {', '.join(ACTIVATIONS)}"
            raise BadOption(f"--fuse must be {names}, joined by +, got {fuse!r}")
        if "sum" in words and "residual" not in words:
            raise BadOption(f"--fuse sum needs residual, got {fuse}")
        for op in ops:
            if not fusible(op, fuse):
                raise BadOption(f"--fuse must be what {op} takes, {takes(op)}, got {fuse!r}")


def _able_to_fuse(options: Selection) -> tuple[str, ...]:
    """The norms asked for, or all that take one of the fusions."""
    check_fuses(options.fuses, options.ops)
    named = tuple(options.ops) or tuple(NORMS)
    return tuple(op for op in named if any(fusible(op, fuse) for fuse in options.fuses or ("",)))


def takes(op: str) -> str:
    """What can be fused with a norm."""
    spec = NORMS[op]
    words = {"before": ["residual", "sum"], "after": ["residual"], None: []}[spec.residual]
    return " ".join([*words, *(ACTIVATIONS if spec.activation else [])]) or "nothing"


def fusible(op: str, fuse: str) -> bool:
    """Whether a norm takes what is named, joined by +."""
    words, spec = fuse.split("+"), NORMS[op]
    return (
        ("residual" not in words or spec.residual is not None)
        and ("sum" not in words or spec.residual == "before")
        and (not set(words).intersection(ACTIVATIONS) or spec.activation)
    )


def parse_shape(text: str) -> tuple[int, ...]:
    """(32, 64, 56, 56) from "32x64x56x56"."""
    sizes = text.split("x")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise BadOption(f"--shape must be positive sizes joined by x, like 32x64x56x56, got {text}")
    return tuple(map(int, sizes))


def _one_of(option: str, values: Iterable[str], allowed: Iterable[str]) -> None:
    for value in values:
        if value not in allowed:
            raise BadOption(f"{option} must be one of {', '.join(allowed)}, got {value}")


def _from_shapes(ops: Sequence[str], options: Selection) -> Iterator[_Tensor]:
    """A shape goes to every norm asked for; when none was, to all that can take it."""
    for text in options.shapes:
        shape = parse_shape(text)
        problems = {op: _problem(op, shape, options.layout, options.device) for op in ops}
        able = [op for op, problem in problems.items() if problem is None]
        if not able or (options.ops and len(able) < len(ops)):
            raise BadOption(f"{next(filter(None, problems.values()))}, got {text}")
        yield from (_Tensor(op, shape) for op in able)


def _from_presets(ops: Sequence[str], options: Selection) -> Iterator[_Tensor]:
    able = [preset for preset in presets() if preset.op in ops]
    known = {preset.name for preset in able}
    for name in options.presets:
        if name not in known and name != "all":
            raise BadOption(f"--preset must belong to {' or '.join(ops)}, got {name}")
    default = options.default
    names = [preset.name for preset in able] if "all" in options.presets else options.presets or list(default)
    problem = None
    found = False
    for preset in (preset for name in dict.fromkeys(names) for preset in able if preset.name == name):
        own = default[preset.name] if not options.presets else ()
        for batch in options.batches or own or (preset.batch,):
            for layer in preset.layers:
                shape = layer.shape(batch)
                tensor = _Tensor(
                    preset.op, shape, preset.name, layer.count, batch, preset.layout, preset.passes
                )
                reason = _problem(tensor.op, tensor.shape, preset.layout or options.layout, options.device)
                if reason is None:
                    found = True
                    yield tensor
                problem = problem or (reason and f"{reason}, got {preset.name}")
    if not found:
        raise BadOption(problem or f"--op must have a preset, got {', '.join(ops)}")


def _problem(op: str, shape: tuple[int, ...], layout: str, device: bool) -> str | None:
    """Why a norm cannot be measured on a shape, or None."""
    spec = NORMS[op]
    if layout != "contiguous" and spec.family in ("rows", "windows"):
        return f"--layout {layout} needs a norm over channels, not {op}"
    if device and op in ("layer_norm", "rms_norm") and len(shape) >= IMAGE_NDIM:
        return f"--shape of {op} on a device must have the normalized axis last, and no images"
    if spec.family == "rows":
        return None
    if len(shape) < spec.min_ndim:
        return f"--shape of {op} must be NxC{'xH' * (spec.min_ndim - 2)} or NxCxHxW..."
    if layout == "channels_last" and len(shape) < 3:
        return "--shape for channels_last must have a size beside N and C"
    if spec.family == "windows":
        return None
    if math.prod(shape) == shape[1] or (op == "instance_norm" and math.prod(shape[2:]) == 1):
        return f"--shape of {op} must have more than one value per channel"
    return None
