"""Where the code that the gate measured came from: two checkouts, a work tree, an environment."""

import sys

import pytest

from normkernels.bench.ab import worker


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Files by arm; `imported` makes the worker believe that modules were imported."""
    folder = tmp_path / "places"
    for arm in ("head", "base"):
        for name in (
            "python/pkg/__init__.py",
            "python/pkg/fast.py",
            "python/flat.py",
            "python/space/inner.py",
        ):
            file = folder / arm / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        (folder / arm / "helper.py").write_text("")
        (folder / arm / "bench").mkdir()
        (folder / arm / "bench" / "shapes.py").write_text(arm)
        (folder / arm / "bench" / "cases.py").write_text("")
        for name, text in (("local", arm), ("alike", "")):
            (folder / arm / "bench" / name).mkdir()
            (folder / arm / "bench" / name / "__init__.py").write_text(text)
        (folder / arm / "pyproject.toml").write_text('[project]\nname = "a.name"\n')
    monkeypatch.setattr(worker, "imported", dict)
    monkeypatch.setattr(sys, "prefix", str(folder / "environment"))
    return folder


def asked(places, arm="head", **more):
    other = {"head": "base", "base": "head"}[arm]
    folders = {"root": places / arm, "other": places / other, "repository": places / "repository"}
    cases = {
        "file": str(places / "head/bench/cases.py"),
        "beside": str(places / "head/bench"),
        "isolated": False,
    }
    return {**{name: str(path) for name, path in folders.items()}, **cases, **more}


@pytest.mark.parametrize(
    ("arm", "name", "file", "right"),
    [
        ("head", "pkg", "head/python/pkg/__init__.py", True),
        ("head", "pkg", "environment/site-packages/pkg/__init__.py", False),
        ("head", "pkg.fast", "environment/site-packages/pkg/fast.py", False),
        ("head", "flat", "environment/site-packages/flat.py", False),
        ("head", "space.inner", "environment/site-packages/space/inner.py", False),
        ("head", "pkg", "repository/python/pkg/__init__.py", False),
        ("head", "else", "repository/else.py", False),
        ("base", "pkg", "head/python/pkg/__init__.py", False),  # sys.path led to it
        ("base", "shapes", "head/bench/shapes.py", True),  # as the cases, which are head's
        ("base", "pkg", "base/python/pkg/__init__.py", True),
        ("base", "local", "head/bench/local/__init__.py", False),  # a package beside them that differs
        ("base", "alike", "head/bench/alike/__init__.py", True),
        ("head", "numpy", "environment/site-packages/numpy/__init__.py", True),
        ("head", "fast", "environment/site-packages/fast.py", True),  # pkg is one: it has pkg.fast
    ],
)
def test_what_was_measured_came_from_the_checkout(places, monkeypatch, arm, name, file, right):
    """Whatever else did: here a helper is always imported from it."""
    modules = {
        "helper": places / arm / "helper.py",
        name: places / file,
        "ab_cases": places / "head/bench/cases.py",
    }
    monkeypatch.setattr(worker, "imported", lambda: modules)
    found = worker.origins(asked(places, arm))
    assert found["found"] is True
    assert found["stray"] == (None if right else str(places / file))
    assert found["shared"] == (["bench/shapes.py"] if name == "shapes" else [])


def test_an_extension_that_is_installed_is_not_of_the_checkout(places, monkeypatch):
    """It has no file in the checkout by its name; its distribution has the checkout's name."""
    site = places / "environment"
    (site / "a_name-1.dist-info").mkdir(parents=True)
    (site / "a_name-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: a-name\nVersion: 1\n")
    (site / "a_name-1.dist-info" / "RECORD").write_text("native.so,,\na_name-1.dist-info/METADATA,,\n")
    (site / "native.so").touch()
    monkeypatch.syspath_prepend(site)
    modules = {"helper": places / "head/helper.py", "native": site / "native.so"}
    monkeypatch.setattr(worker, "imported", lambda: modules)
    assert worker.origins(asked(places))["stray"] == str(site / "native.so")
    (places / "head/pyproject.toml").write_text("[project]\nname = 3\n")
    assert worker.origins(asked(places))["stray"] is None


def test_isolated_code_is_what_was_installed(places, monkeypatch):
    modules = {"pkg": places / "environment/lib/pkg/__init__.py"}
    monkeypatch.setattr(worker, "imported", lambda: modules)
    assert worker.origins(asked(places, isolated=True)) == {"found": True, "stray": None, "shared": []}
    modules["pkg"] = places / "head/python/pkg/__init__.py"
    assert worker.origins(asked(places, "base", isolated=True))["stray"] == str(modules["pkg"])
