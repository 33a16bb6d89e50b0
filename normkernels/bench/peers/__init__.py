"""Libraries to compare with on the CPU: each is one class, a `Peer`, and one line here."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .peer import Peer


@dataclass(frozen=True)
class Entry:
    """Where the class of a library is, and what it needs; naming it imports nothing."""

    title: str
    where: str
    """module:class"""
    needs: tuple[str, ...] = ()
    """Packages."""
    own_process: bool = True
    """Whether it has threads of its own: two pools in one process disturb each other."""

    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [name for name in self.needs if find_spec(name) is None]

    def make(self, threads: int) -> "Peer":
        """The library, imported into this process."""
        module, _, name = self.where.partition(":")
        peer: Peer = getattr(import_module(module), name)(threads)
        return peer


PEERS = {
    "numpy": Entry("NumPy", f"{__name__}.with_numpy:NumPy", own_process=False),
    "torch": Entry("PyTorch", f"{__name__}.with_torch:Torch", ("torch",)),
    "torch.compile": Entry("torch.compile", f"{__name__}.with_torch_compile:TorchCompile", ("torch",)),
    "onnxruntime": Entry("ONNX Runtime", f"{__name__}.with_onnxruntime:OnnxRuntime", ("onnx", "onnxruntime")),
    "openvino": Entry("OpenVINO", f"{__name__}.with_openvino:OpenVino", ("onnx", "openvino")),
    "jax": Entry("JAX", f"{__name__}.with_jax:Jax", ("jax",)),
}
