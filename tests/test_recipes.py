"""The programs of docs/recipes.md run, each where its library is installed."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE))
PROGRAMS = {
    title: program
    for title, text in SECTIONS.items()
    for program in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
}
# In a process of their own, because they start processes or threads that a fork would lose.
APART = ("JAX", "A PyTorch `DataLoader`")


def program(title):
    slow = [pytest.mark.slow] if title.startswith(APART) else []
    return pytest.param(title, marks=slow, id=re.sub(r"\W+", "-", title))


def libraries(source):
    """What a program imports, beside this package."""
    for node in ast.walk(ast.parse(source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[0] for name in names if not name.startswith("normkernels"))


@pytest.mark.parametrize("title", [program(title) for title in PROGRAMS])
def test_a_recipe_runs(title, tmp_path, monkeypatch):
    for name in libraries(PROGRAMS[title]):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "program.py"
    file.write_text(PROGRAMS[title], encoding="utf-8")
    if title.startswith(APART):
        subprocess.run([sys.executable, str(file)], check=True, timeout=300)
    else:
        runpy.run_path(str(file), run_name="__main__")


def test_every_recipe_is_a_program_or_says_how_to_build():
    assert len(SECTIONS) >= 7
    assert [title for title in SECTIONS if title not in PROGRAMS] == ["Kernels in a container image"]


def test_the_image_compiles_by_a_command_that_exists(normkernels):
    assert "RUN normkernels compile" in SECTIONS["Kernels in a container image"]
    assert normkernels("compile", "--help").code == 0
