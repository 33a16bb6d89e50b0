"""What `--against` names: the steps of fused cases, and libraries."""

from collections.abc import Sequence

from ..selection import BadOption
from . import PEERS

DEFAULT = ("numpy",)
STEPS = "steps"


def chosen(words: Sequence[str], fuses: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names of what to measure beside the kernels, and a line for each library that is not installed.

    Raises BadOption, also where nothing that was asked for is installed.
    """
    names = list(dict.fromkeys(name for word in words or DEFAULT for name in word.split(",")))
    rule = f"--against must be none, all, or of {STEPS}, {', '.join(PEERS)}, joined by commas"
    for name in names:
        if name not in ("none", "all", STEPS, *PEERS):
            raise BadOption(f"{rule}, got {name}")
    if len(names) > 1 and "none" in names:
        raise BadOption(f"{rule}, got {','.join(names)}")
    if STEPS in names and not fuses:
        raise BadOption("--against steps needs --fuse: a norm alone is one step")
    if "all" in names:
        names = [name for name in names if name == STEPS] + list(PEERS)
    asked = [name for name in names if name != "none"]
    missing = {name: PEERS[name].missing() for name in asked if name in PEERS}
    notes = [
        f"{PEERS[name].title} was not measured: it needs pip install {' '.join(packages)}"
        for name, packages in missing.items()
        if packages
    ]
    found = [name for name in asked if not missing.get(name)]
    if asked and not found:
        raise BadOption(f"--against must name a library that is installed; {'; '.join(notes)}")
    return found, notes
