"""benchmarks/pytest, and the table that `normkernels table` makes of its files. No test asserts a time."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("pytest_benchmark")

from normkernels.bench import check, markdown, ratios
from normkernels.bench.cases import Case
from normkernels.bench.inputs import make_inputs
from normkernels.bench.machine import Machine
from normkernels.bench.selection import PASSES
from normkernels.norms import NORMS

ROOT = Path(__file__).parent.parent
SUITE = ROOT / "benchmarks" / "pytest"
ID = re.compile(
    r"(?P<op>[a-z_]+)-(?P<pass_>[a-z]+)-(?P<shape>\d+(x\d+)+)-(?P<dtype>float32)-(?P<backend>[a-z]+)"
)
SMALLEST = "layer_norm-forward-4x4096"
PACKAGES = {"normkernels": "numba", "torch": "torch", "onnxruntime": "onnxruntime"}


def run(*options: str, suite: Path = SUITE, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The suite in a process of its own, with the project's own settings."""
    settings = ("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(cwd), "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", str(suite.relative_to(cwd)), *settings, *options]
    # Inside a worker of pytest-xdist too: benchmarks are disabled in those.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> list[re.Match[str]]:
    """The ids of the default run."""
    shown = run("--collect-only", "-q", f"--benchmark-storage={tmp_path_factory.mktemp('runs')}")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    matches = [ID.fullmatch(name) for name in re.findall(r"::test_norm\[(.*)\]", shown.stdout)]
    assert None not in matches, shown.stdout
    return [m for m in matches if m]


def test_every_norm_and_pass_is_collected(collected: list[re.Match[str]]) -> None:
    found = {m.group("op", "pass_", "backend") for m in collected}
    assert found == {
        (op, pass_, name) for op in NORMS for pass_ in PASSES for name in ("normkernels", "numpy")
    }
    assert len({m[0] for m in collected}) == len(collected)


@pytest.mark.parametrize(
    "backend", ["normkernels", *(pytest.param(b, marks=pytest.mark.slow) for b in [*PACKAGES][1:])]
)
def test_each_backend_runs(backend: str, tmp_path: Path) -> None:
    """Checked against the reference and called once."""
    if find_spec(PACKAGES[backend]) is None:
        pytest.skip(f"{PACKAGES[backend]} is optional and not installed")
    storage = f"--benchmark-storage={tmp_path}"
    shown = run("--backend", backend, "-k", SMALLEST, "--benchmark-disable", storage)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert f"{2 if backend == 'normkernels' else 1} passed" in shown.stdout


def test_a_backend_that_is_not_installed_is_named(tmp_path: Path) -> None:
    """In a copy of the suite, which looks for a package that nobody has."""
    suite = copied_suite(tmp_path)
    text = (suite / "backends.py").read_text()
    lacking = 'PEERS["torch"] = type(PEERS["torch"])("PyTorch", "", ("not_a_package",))'
    (suite / "backends.py").write_text(f"{text}\n\n{lacking}\n")
    shown = run("--backend", "torch", suite=suite, cwd=tmp_path)
    assert shown.returncode == 4
    assert "--backend torch needs: pip install not_a_package" in shown.stderr


def test_a_wrong_result_is_refused() -> None:
    case = Case("layer_norm", "forward", (8, 16))
    inputs = make_inputs(case)
    y = NORMS["layer_norm"].kernels.call(inputs.x, **inputs.arguments)
    assert check.compare(case, inputs, {"y": y}, {}) <= check.tolerance(case)
    y[3, 3] += 1e-3
    with pytest.raises(check.Mismatch):
        check.compare(case, inputs, {"y": y}, {})
    with pytest.raises(check.Mismatch):
        check.check(case, inputs, NORMS["rms_norm"].reference._replace(call=lambda x, **_: np.zeros_like(x)))


def test_the_json_says_what_was_measured(tmp_path: Path, normkernels: Any) -> None:
    file = tmp_path / "run.json"
    shown = run("-k", SMALLEST, f"--benchmark-json={file}", f"--benchmark-storage={tmp_path / 'runs'}")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    document = json.loads(file.read_text())
    by_backend = {b["extra_info"]["backend"]: b for b in document["benchmarks"]}
    assert by_backend.keys() == {"normkernels", "numpy"}
    assert {b["group"] for b in by_backend.values()} == {f"{SMALLEST}-float32"}
    for name, benchmark in by_backend.items():
        about = benchmark["extra_info"]
        assert about["baseline"] is (name == "numpy")
        assert (about["op"], about["pass"], about["shape"]) == tuple(SMALLEST.split("-"))
        assert about["dtype"] == "float32"
        assert about["bytes"] == 2 * 4 * 4096 * 4
        assert about["gbs"] == pytest.approx(about["bytes"] / benchmark["stats"]["median"] / 1e9)
        assert 0 <= about["error"] < 1e-4
        assert about["threads"] >= 1
        assert {"normkernels", "numba", "numpy"} <= about["versions"].keys()
    assert not [key for key in document["machine_info"]["cpu"] if key.startswith("hz")]

    shown = normkernels("table", str(file))
    assert shown.code == 0
    assert shown.out.startswith(f"Measured with `pytest benchmarks/pytest -k {SMALLEST}` on ")
    assert "| layer_norm, float32 | forward | 4x4096 | " in shown.out


# A benchmark whose clock moves by as much as the test says.
FAKE = """
import os, pytest
now = 0.0

def clock():
    global now
    now += float(os.environ.get("TICK", "1"))
    return now

@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("name", ["one", "two"])
def test_fake(name, benchmark):
    benchmark.pedantic(int, rounds=5)
"""
GATE = ("--benchmark-autosave", "--benchmark-compare", "--benchmark-compare-fail=median:10%")


def copied_suite(folder: Path) -> Path:
    """The suite's settings with a fake benchmark."""
    suite = folder / "suite"
    shutil.copytree(SUITE, suite, ignore=shutil.ignore_patterns("test_*.py", "__pycache__"))
    (suite / "test_fake.py").write_text(FAKE)
    return suite


@pytest.mark.slow
def test_runs_are_saved_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = copied_suite(tmp_path)

    def gate(*options: str) -> subprocess.CompletedProcess[str]:
        return run(*options, suite=suite, cwd=tmp_path)

    first = gate(*GATE, "-k", "one")
    assert first.returncode == 0, first.stdout + first.stderr
    assert [file.name[:5] for file in tmp_path.glob(".benchmarks/*/*.json")] == ["0001_"]

    other = gate(*GATE, "-k", "two")
    assert other.returncode == 4
    assert "must find a saved run of these benchmarks, got " in other.stderr

    monkeypatch.setenv("TICK", "1.05")
    same = gate(*GATE[1:], "-k", "one")
    assert same.returncode == 0, same.stdout + same.stderr
    assert "0001_" in same.stdout

    monkeypatch.setenv("TICK", "1.2")
    slower = gate(*GATE[1:], "-k", "one")
    assert slower.returncode == 1
    assert "Performance has regressed" in slower.stderr
    assert "20.0" in slower.stderr

    (saved,) = tmp_path.glob(".benchmarks/*/0001_*.json")
    saved.write_text(saved.read_text()[:99])
    cut = gate(*GATE[1:], "-k", "one")
    assert (cut.returncode, cut.stderr.count("\n")) == (4, 2)
    assert "--benchmark-compare must find saved runs that are whole, got " in cut.stderr

    unknown = gate("--benchmark-compare=0042", GATE[2], "-k", "one")
    assert unknown.returncode == 4
    assert "got none in" in unknown.stderr


MACHINE = Machine("A CPU", 2, 2, {"L2": 1}, 1, 2**34, 2, "omp", "os", "3.11", {"numpy": "2"}, "2026-01-02T03")


def document(*measured: tuple[str, float], command: str = "pytest b", **machine: Any) -> dict[str, Any]:
    """A file of the suite with one group."""
    about = {"op": "layer_norm", "pass": "forward", "shape": "8x16", "dtype": "float32"}
    return {
        "normkernels": ratios.stamp(dataclasses.replace(MACHINE, **machine), command),
        "benchmarks": [
            {
                "extra_info": {**about, "backend": backend, "baseline": backend == "numpy"},
                "stats": {"median": seconds},
            }
            for backend, seconds in measured
        ],
    }


def written(file: Path, content: Any) -> str:
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(file)


START, END = markdown.markers(ratios.BLOCK)
PAGE = f"# Title\n{markdown.START}\nother\n{markdown.END}\n{START}\nold\n{END}\nend\n"


def test_the_table_joins_files(normkernels: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    a = written(tmp_path / "a.json", document(("normkernels", 0.5), ("numpy", 2.0)))
    more = {"versions": {"numpy": "2", "torch": "3"}, "date": "2026-01-03T00"}
    b = written(tmp_path / "b.json", document(("torch", 50.0), command="pytest b --backend torch", **more))
    shown = normkernels("table", a, b, "--markdown", str(page))
    assert (shown.code, shown.err) == (0, f"normkernels: wrote {page}\n")
    text = shown.out.strip()
    assert page.read_text() == PAGE.replace("old", text)
    assert "`pytest b`, `pytest b --backend torch` on A CPU, 2 of 2 cores, 16 GB; numpy 2, torch 3; " in text
    assert "2026-01-02 to 2026-01-03" in text
    assert text.splitlines()[2:] == [
        "| norm | pass | shape | numpy | normkernels | torch |",
        "| --- | --- | --- | --: | --: | --: |",
        "| layer_norm, float32 | forward | 8x16 | 2 s | 4.0× | 0.04× |",
    ]


BOTH = document(("numpy", 1.0), ("normkernels", 1.0))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(BOTH)[:-9], ["b.json", "must be a readable JSON file"]),
        ("", ["b.json", "must be a readable JSON file"]),
        ([], ["schema 1, got schema None in ", "b.json"]),
        ({"benchmarks": []}, ["schema 1, got schema None in ", "b.json"]),
        ({**BOTH, "normkernels": {"schema": 99}}, ["schema 1, got schema 99 in ", "b.json"]),
        ({**BOTH, "benchmarks": [{}]}, ["b.json", "KeyError: 'extra_info'"]),
        (document(("torch", 0.0)), ["b.json", "a median of 0.0 s"]),
        (document(("torch", float("nan"))), ["b.json", "a median of nan s"]),
        (document(("torch", 10**400)), ["b.json", "OverflowError: "]),
        (document(("torch", 1e300)), ["b.json", "a median of 1e+300 s"]),
        (document(("torch", 1.0), memory_bytes=10**400), ["b.json", "memory_bytes must be int <= "]),
        (document(("torch", 1.0), threads="2"), ["b.json", "threads must be int, got '2'"]),
        (document((["torch"], 1.0)), ["b.json", "backend must be text, got ['torch']"]),
        (document(("torch", 1.0), cpu="B CPU"), ["one machine", "a.json and B CPU in ", "b.json"]),
        (document(("torch", 1.0), threads=1), ["one machine", "threads 2 in ", "b.json"]),
        (document(("torch", 1.0), versions={"numpy": "3"}), ["one version of numpy", "3 in ", "b.json"]),
        (document(("numpy", 1.0)), ["must be in one FILE", "a.json", "b.json"]),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_together(
    content: Any, words: list[str], normkernels: Any, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    a, b = written(tmp_path / "a.json", BOTH), written(tmp_path / "b.json", content)
    shown = normkernels("table", a, b, "--markdown", str(page))
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert all(word in shown.err for word in words), shown.err
    assert page.read_text() == PAGE


def test_what_else_the_table_needs(normkernels: Any, tmp_path: Path) -> None:
    alone = written(tmp_path / "alone.json", document(("torch", 1.0)))
    good = written(tmp_path / "good.json", BOTH)
    page = written(tmp_path / "page.md", f"{markdown.START}\n{markdown.END}\n")
    for arguments, word in [
        ([alone], "one baseline, got none"),
        ([str(tmp_path / "nowhere.json")], "nowhere.json"),
        ([str(tmp_path)], "must be a readable JSON file"),
        ([], "FILE..."),
        ([good, "--markdown", page], f"must hold {START}"),
        ([good, "--markdown", "nowhere.md"], "must name a readable page, got nowhere.md"),
    ]:
        shown = normkernels("table", *arguments)
        assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
        assert word in shown.err


def test_the_readme_has_the_table_that_the_code_would_write(collected: list[re.Match[str]]) -> None:
    """Its form, not its numbers: caption, columns, and a row for every norm, pass and shape."""
    _, block, _ = markdown.split(ROOT / "README.md", ratios.BLOCK)
    said, _, *table = block.strip().splitlines()
    commands = ["pytest benchmarks/pytest"]
    commands += [f"{commands[0]} --backend {name}" for name in ("torch", "onnxruntime")]
    expected = ratios.caption([ratios.Run(Path(), MACHINE, c, []) for c in commands], "numpy")
    variable = re.compile(r"(?<= on ).*, \d+ of \d+ cores, \d+ GB; .*; \d{4}-\d\d-\d\d( to [\d-]+)?(?=\.)")
    assert variable.sub("", said) == variable.sub("", expected)
    assert all(name in said for name in ("normkernels", "numba", "numpy", "torch", "onnxruntime"))

    assert table[:2] == ratios.header("numpy", ["normkernels", "torch", "onnxruntime"])
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table[2:]]
    groups = dict.fromkeys((f"{m['op']}, {m['dtype']}", m["pass_"], m["shape"]) for m in collected)
    assert [tuple(row[:3]) for row in rows] == list(groups)
    for row in rows:
        assert re.fullmatch(r"[\d.]+ (s|ms|µs)", row[3])
        assert re.fullmatch(r"[\d.]+×", row[4])
        assert all(re.fullmatch(r"[\d.]+×|–", cell) for cell in row[5:])
