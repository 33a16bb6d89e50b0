"""The extras: what a plain `pytest` needs is small, and has nothing of CUDA, asv or a browser."""

import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Of `pip install -e '.[test]'` in a new virtual environment, which has pip and may have setuptools.
MOST_MEGABYTES, PIP = 450, 30


def required(extra: str) -> dict[str, Distribution]:
    """Distributions that an extra installs beside the package itself, by name."""
    asked = [*PROJECT["dependencies"], f"normkernels[{extra}]"]
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        requirement = Requirement(asked.pop())
        key = requirement.name.lower(), frozenset(requirement.extras)
        if key in seen:
            continue
        seen.add(key)
        if requirement.name == "normkernels":
            asked += [one for name in requirement.extras for one in PROJECT["optional-dependencies"][name]]
            continue
        found[key[0]] = distribution(requirement.name)
        for text in found[key[0]].requires or []:
            marker = Requirement(text).marker
            if marker is None or any(marker.evaluate({"extra": name}) for name in ("", *requirement.extras)):
                asked.append(text)
    return found


def test_tests_need_nothing_of_cuda_asv_or_a_browser() -> None:
    names = set(required("test"))
    assert {"numba", "numpy", "hypothesis", "pytest", "pytest-xdist"} <= names
    heavy = ("asv", "cuda", "nvidia", "scikit-learn", "scipy", "selenium", "sphinx", "torch")
    assert not [name for name in names if any(word in name for word in heavy)]


def test_tests_need_little_room() -> None:
    blocks = 0
    for found in required("test").values():
        sizes = [
            Path(str(file.locate())).stat().st_size for file in found.files or [] if file.locate().exists()
        ]
        blocks += sum(-(-size // 4096) for size in sizes)
    assert blocks * 4096 / 2**20 < MOST_MEGABYTES - PIP


def test_dev_has_every_extra() -> None:
    """But CUDA 12, which is there in place of CUDA 13, and those that bring PyTorch, which is large."""
    own = next(text for text in PROJECT["optional-dependencies"]["dev"] if text.startswith("normkernels["))
    assert Requirement(own).extras == set(PROJECT["optional-dependencies"]) - {
        "cuda12",
        "dev",
        "models",
        "peers",
        "torch",
    }


@pytest.mark.parametrize("extra", PROJECT["optional-dependencies"])
def test_what_an_extra_names_has_a_lower_bound(extra: str) -> None:
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        bounds = {bound.operator for bound in requirement.specifier}
        assert requirement.name.startswith(("normkernels", "types-")) or bounds == {">="}, text
