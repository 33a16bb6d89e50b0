"""The pages: every link leads somewhere, no install is named that does not exist, one address."""

import re
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = (".github", "benchmarks", "docs", "examples", "normkernels", "tests")
# This file names what it looks for.
FILES = [
    file
    for folder in FOLDERS
    for file in (ROOT / folder).rglob("*")
    if file.suffix in {".cff", ".html", ".json", ".md", ".py", ".toml", ".yml"}
    if file != Path(__file__) and "node_modules" not in file.parts
] + [file for file in ROOT.iterdir() if file.suffix in {".cff", ".json", ".md", ".toml"}]
PAGES = [file for file in FILES if file.suffix == ".md"]
MARKDOWN = MarkdownIt().enable("table")


def tokens(page: Path) -> Iterator[Token]:
    """Blocks of a page and what is in their lines."""
    for block in MARKDOWN.parse(page.read_text(encoding="utf-8")):
        yield block
        yield from block.children or ()


def anchors(page: Path) -> set[str]:
    """Names that GitHub and Sphinx give a page's headings."""
    blocks = MARKDOWN.parse(page.read_text(encoding="utf-8"))
    headings = [
        "".join(part.content for part in text.children or ())
        for heading, text in pairwise(blocks)
        if heading.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    dead = []
    for token in tokens(page):
        link = token.attrGet("href") or token.attrGet("src")
        if not isinstance(link, str) or link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


def test_no_install_is_named_that_does_not_exist() -> None:
    """Until there is a release, no index has this package."""
    named = re.compile(r"(?:pip|uv|pipx|conda) (?:install|add|run)[^\n&]*[\s'\"=]normkernels\b(?!-)")
    found = [
        f"{file.relative_to(ROOT)}: {line}"
        for file in FILES
        for line in file.read_text(encoding="utf-8").splitlines()
        if named.search(line.replace("in a clone of normkernels", ""))
    ]
    assert not found


def test_every_extra_that_is_named_exists() -> None:
    named = {
        extra
        for file in FILES
        for extras in re.findall(r"-e '\.\[([\w,]+)\]'", file.read_text(encoding="utf-8"))
        for extra in extras.split(",")
    }
    assert named <= set(PROJECT["optional-dependencies"])


def test_every_mention_of_the_repository_is_the_address_in_pyproject() -> None:
    source = PROJECT["urls"]["Source"]
    assert re.fullmatch(r"https://github\.com/[\w-]+/normkernels", source)
    owner = source.split("/")[-2]
    hosts = (
        r"(?:github|raw\.githubusercontent)\.com/([\w-]+)/normkernels\b|//([\w-]+)\.github\.io/normkernels\b"
    )
    for file in FILES:
        for match in re.finditer(hosts, file.read_text(encoding="utf-8")):
            assert owner in match.groups(), f"{file.relative_to(ROOT)}: {match[0]}"
