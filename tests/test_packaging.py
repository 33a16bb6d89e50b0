"""What a release would publish: a wheel and an archive that an index takes, and the page it shows."""

import ast
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
from html.parser import HTMLParser
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

for package in ("build", "hatchling", "hatch_fancy_pypi_readme", "twine"):
    pytest.importorskip(package, reason="the extra dev is not installed")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> dict[str, bytes]:
    """The files of the wheel."""
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def in_metadata(wheel: dict[str, bytes], name: str) -> bytes:
    return next(data for file, data in wheel.items() if file.endswith(f".dist-info/{name}"))


@pytest.fixture(scope="module")
def metadata(wheel: dict[str, bytes]) -> Message:
    return message_from_bytes(in_metadata(wheel, "METADATA"))


def test_an_index_takes_it(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_page_has_no_link_into_a_folder(metadata: Message) -> None:
    """Rendered as the index does; that what the links name is there, tests/test_pages.py says."""
    markdown = pytest.importorskip("readme_renderer.markdown", reason="the extra dev is not installed")
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    html = markdown.render(text.decode())
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            links.extend(value or "" for name, value in attributes if name in ("href", "src"))

    Links().feed(html)
    assert len(links) > 20
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    pictures = [link for link in links if link.endswith(".png")]
    assert pictures
    assert all("raw.githubusercontent.com" in link for link in pictures)


def test_its_page_is_the_readme_otherwise(metadata: Message) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = metadata.get_payload(decode=True)
    assert isinstance(text, bytes)
    changed = set(text.decode().splitlines()) - set(readme.splitlines())
    assert all("github" in line for line in changed)


def test_every_entry_point_is_in_the_wheel(wheel: dict[str, bytes]) -> None:
    lines = in_metadata(wheel, "entry_points.txt").decode().splitlines()
    values = [line.partition("=")[2].strip() for line in lines if "=" in line]
    assert values
    for value in values:
        point = EntryPoint("", value, "")
        tree = ast.parse(wheel[f"{point.module.replace('.', '/')}.py"])
        assert point.attr in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: dict[str, bytes]) -> None:
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"normkernels"}
    files = subprocess.run(["git", "ls-files", "normkernels"], cwd=ROOT, capture_output=True, text=True)
    assert not set(files.stdout.split()) - set(wheel)


def test_the_metadata_says_where_things_are(metadata: Message) -> None:
    assert {url.split(",")[0] for url in metadata.get_all("Project-URL", [])} >= {
        "Source",
        "Documentation",
        "Changelog",
    }
    assert metadata["License-Expression"] == "BSD-3-Clause"
