"""The models themselves, with random weights, and data for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 1000


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padding and a batch norm after each convolution.

    With 32 channels at 256x256 pixels it is that of Buda et al. 2019, which PyTorch Hub has.
    """

    def __init__(self, width: int, depth: int = 4, classes: int = 2) -> None:
        super().__init__()
        widths = [width << level for level in range(depth + 1)]
        self.down = nn.ModuleList(map(_twice, [3, *widths], widths))
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.join = nn.ModuleList(_twice(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.down[0](x)]
        for block in list(self.down)[1:]:
            levels.append(block(self.pool(levels[-1])))
        x = levels.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat((levels.pop(), up(x)), 1))
        return self.head(x)


def _twice(before: int, after: int) -> nn.Sequential:
    """A convolution, its norm and its activation, twice."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            nn.Conv2d(channels, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Architecture:
    """How a model is made, and input and target of a batch."""

    make: Callable[[], nn.Module]
    data: Callable[[int], tuple[Tensor, Tensor]]


def _timm(name: str, **options: Any) -> Architecture:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, num_classes=CLASSES, **options)

    return Architecture(make, lambda n: (torch.randn(n, 3, 224, 224), torch.randint(CLASSES, (n,))))


def _unet(width: int, size: int) -> Architecture:
    return Architecture(
        lambda: UNet(width), lambda n: (torch.randn(n, 3, size, size), torch.randint(2, (n, size, size)))
    )


def _bert_block() -> nn.Module:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertLayer

    return BertLayer(
        BertConfig(
            attn_implementation="sdpa", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        )  # compilers have dropout of their own, which could not be compared
    )


def _tokens(n: int) -> tuple[Tensor, Tensor]:
    """What a layer before, which wants a gradient, gives to a block."""
    return torch.randn(n, 128, 768, requires_grad=True), torch.randn(n, 128, 768)


# Without the zeros and near-zeros that timm begins with, which keep gradients from what lies before them.
ARCHITECTURES = {
    "resnet50": _timm("resnet50", zero_init_last=False),
    "mobilenetv3": _timm("mobilenetv3_large_100"),
    "unet": _unet(width=32, size=256),
    "convnext_t": _timm("convnext_tiny", ls_init_value=1.0),
    "vit_s": _timm("vit_small_patch16_224"),
    "bert_block": Architecture(_bert_block, _tokens),
    "unet_small": _unet(width=4, size=32),
}
