"""The site: it builds without a warning, and has what can be called."""

import subprocess
import sys
from pathlib import Path

import pytest

import normkernels
from normkernels import jit

for package in ("furo", "math_core", "myst_parser", "numpydoc", "sklearn", "sphinx", "torch"):
    pytest.importorskip(package, reason="the extras docs, sklearn and torch are not installed")

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
def test_the_site_has_every_public_name_and_no_warning(tmp_path: Path) -> None:
    from sphinx.util.inventory import InventoryFile

    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert (built.returncode, built.stderr) == (0, "")
    with (tmp_path / "objects.inv").open("rb") as file:
        there = {name for kind in InventoryFile.load(file, "", lambda *parts: "").values() for name in kind}
    public = {f"normkernels.{name}" for name in normkernels.__all__} - {"normkernels.NORMS"}
    assert not public - there
    assert not {f"normkernels.jit.{name}" for name in jit.__all__} - there
    assert {f"normkernels.sklearn.{name}" for name in ("MinMax", "Whiten", "ZScore")} <= there
