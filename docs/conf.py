"""How the site is built: `sphinx-build -W --keep-going docs site`."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

from docutils import nodes
from math_core import LatexToMathML

import normkernels

MATH = LatexToMathML()
DOCS = Path(__file__).parent
SOURCE = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["urls"]["Source"]

project = "normkernels"
author = "normkernels developers"
copyright = author
version = release = normkernels.__version__

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
default_role = "py:obj"
# Docstrings say of arrays what annotations cannot: shapes and dtypes.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_docstring_signature = False
numpydoc_show_class_members = False

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_title = f"normkernels {release}"
html_math_renderer = "mathml"


def link_to_repository(app: Any, page: str, source: list[str]) -> None:
    """Links that lead out of docs/ lead to the repository."""
    folder = (DOCS / page).parent

    def target(link: re.Match[str]) -> str:
        path = os.path.relpath(os.path.normpath(folder / link[1]), DOCS.parent)
        return link[0] if path.split(os.sep)[0] == "docs" else f"]({SOURCE}/blob/main/{path}{link[2] or ''})"

    source[0] = re.sub(r"\]\((\.\./[^)#]*)(#[^)]*)?\)", target, source[0])


def escape_unpacking(app: Any, what: str, name: str, object: Any, options: Any, lines: list[str]) -> None:
    """`*shape` within a shape is no emphasis."""
    lines[:] = [re.sub(r"(?<=, )\*(?=\w+\))", r"\\*", line) for line in lines]


def skip_unexplained(app: Any, what: str, name: str, object: Any, skip: bool, options: Any) -> bool | None:
    """Fields of a named tuple of which nothing is said but their number."""
    return True if str(object.__doc__).startswith("Alias for field number") else None


def mathml(translator: Any, node: nodes.Element) -> None:
    """An equation in the browser's own words: no script, no network."""
    block = isinstance(node, nodes.math_block)
    translator.body.append(MATH.convert_with_local_state(node.astext(), displaystyle=block))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """What Sphinx calls."""
    app.connect("source-read", link_to_repository)
    app.connect("autodoc-process-docstring", escape_unpacking)
    app.connect("autodoc-skip-member", skip_unexplained)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
