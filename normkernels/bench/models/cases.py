"""What `normkernels models` measures: models by name, and the cases of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from ..selection import BadOption

TRAINING, INFERENCE = PASSES = "training", "inference"
FLOAT32, BFLOAT16 = DTYPES = "float32", "bfloat16"
EAGER, COMPILE = MODES = "eager", "compile"


@dataclass(frozen=True)
class About:
    """A model: what it is called, the batch it is used with, and the modules that it needs beside PyTorch."""

    title: str
    batch: int
    needs: tuple[str, ...] = ()


# The usual batch is one whose step takes a second or two on two cores.
MODELS = {
    "resnet50": About("ResNet-50", 8, ("timm",)),
    "mobilenetv3": About("MobileNetV3-L", 16, ("timm",)),
    "unet": About("U-Net", 2),
    "convnext_t": About("ConvNeXt-T", 4, ("timm",)),
    "vit_s": About("ViT-S/16", 4, ("timm",)),
    "bert_block": About("BERT-base block", 8, ("transformers.models.bert.modeling_bert",)),
}
# For a run of seconds, and only by name.
SMALL = "unet_small"
ALL = {**MODELS, SMALL: About("small U-Net", 2)}


@dataclass(frozen=True)
class Case:
    """A model in one of its uses."""

    model: str
    pass_: str
    dtype: str
    batch: int
    mode: str

    @property
    def training(self) -> bool:
        return self.pass_ == TRAINING

    def __str__(self) -> str:
        return f"{self.model} {self.pass_}, {self.dtype}, batch {self.batch}, {self.mode}"


def chosen(
    models: Sequence[str],
    passes: Sequence[str],
    dtypes: Sequence[str],
    batches: Sequence[int],
    mode: str,
    quick: bool,
) -> list[Case]:
    """The cases that the options ask for; raises BadOption.

    Compiling takes minutes: without options for it a compiled model is in float32, with the usual batch.
    """
    names = list(dict.fromkeys(models)) or ([SMALL] if quick else list(MODELS))
    for name in names:
        if name not in ALL:
            raise BadOption(f"--model must be one of {', '.join(ALL)}, got {name}")
    for batch in batches:
        if not 1 <= batch <= 1024:
            raise BadOption(f"--batch must be between 1 and 1024, got {batch}")
    few = quick or mode == COMPILE
    uses = list(passes) or PASSES, list(dtypes) or (DTYPES[:1] if few else DTYPES)
    return [
        Case(name, pass_, dtype, batch, mode)
        for name in names
        for batch in dict.fromkeys(batches or ([] if few else [1]) + [ALL[name].batch])
        for pass_, dtype in product(*map(dict.fromkeys, uses))
    ]


def needed(cases: Sequence[Case]) -> tuple[str, ...]:
    """The modules that the models of some cases need beside PyTorch."""
    return tuple(dict.fromkeys(name for case in cases for name in ALL[case.model].needs))
