"""What is measured: a literal list, so that a saved run stays comparable whatever the presets become."""

from normkernels.bench.cases import Case
from normkernels.bench.selection import PASSES
from normkernels.norms import NORMS

# For each norm a tensor that comes from memory and a small one.
SHAPES = {
    "layer_norm": ((8192, 768), (4, 4096)),  # BERT base, and GPT decoding four tokens
    "rms_norm": ((2048, 4096), (256, 768)),  # Llama
    "group_norm": ((8, 320, 64, 64), (8, 1280, 8, 8)),  # Stable Diffusion
    "instance_norm": ((1, 64, 256, 256), (1, 256, 64, 64)),  # CycleGAN
    "weight_norm": ((512, 4096), (128, 1408)),  # HiFi-GAN
    "local_response_norm": ((32, 96, 55, 55), (4, 256, 27, 27)),  # AlexNet
    "batch_norm": ((32, 64, 56, 56), (60, 100)),  # ResNet-50, and a multilayer perceptron
    "batch_renorm": ((4, 192, 71, 71), (4, 192, 17, 17)),  # Inception v3
}

CASES = [Case(op, pass_, shape) for op in NORMS for pass_ in PASSES for shape in SHAPES[op]]
