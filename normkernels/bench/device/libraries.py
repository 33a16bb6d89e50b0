"""The libraries that can be measured, by name; each is imported in the process of its own."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from .measure import Library


@dataclass(frozen=True)
class Source:
    """Where a library is measured from."""

    module: str
    needs: tuple[str, ...] = ()
    """Packages."""

    def missing(self) -> str | None:
        """A package that is not installed."""
        return next((name for name in self.needs if find_spec(name) is None), None)


OWN = "normkernels"
LIBRARIES = {
    OWN: Source("with_normkernels"),
    "torch": Source("with_torch", ("torch",)),
    "triton": Source("with_triton", ("torch", "triton")),
    "cupy": Source("with_cupy", ("cupy",)),
    # last: it compiles for seconds before each case
    "torch.compile": Source("with_torch_compile", ("torch", "triton")),
}
OTHERS = tuple(name for name in LIBRARIES if name != OWN)


def library(name: str) -> Library:
    found: Library = import_module(f"{__package__}.{LIBRARIES[name].module}").LIBRARY
    return found
