"""The page on data larger than memory: its program, and results that make it; a cluster loses a worker."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytest.importorskip("msgspec")

from normkernels.bench.machine import machine

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "large-data.md"
SCRIPT = ROOT / "benchmarks" / "large_data.py"


@pytest.fixture
def large_data(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import large_data

    return large_data


@pytest.fixture
def results(large_data):
    steps = [
        large_data.Step(name, workers, killed, 10.0 / workers, 300_000_000, f"{name}0123456789")
        for workers in (2, 4)
        for killed in (False, True)
        for name in large_data.STEPS
    ]
    return large_data.Results(machine(2), 2_048_000_000, 32_000_000, 512_000_000, steps, 1e-3, 0.0)


def test_the_page_is_built_from_stored_results(large_data, results, tmp_path, monkeypatch):
    page, stored = tmp_path / "page.md", tmp_path / "results.json"
    page.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    stored.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(results, others=0.3))))
    monkeypatch.setattr("sys.argv", ["large_data.py", "--from", str(stored), "--into", str(page)])
    large_data.main()
    text = page.read_text(encoding="utf-8")
    assert "| `moments` | 4 | yes | 2.5 s | 819 MB/s | 300 MB | `moments0` |" in text
    assert "4.0 times the limit of a worker, 512 MB" in text
    assert "used 30% of the processors" in text
    assert (
        "| scheduling | 100,000 chunks of 1 GB and their merges, 1 ms a task, as measured | 114 s |" in text
    )


def test_the_projection_follows_from_its_assumptions(large_data, results):
    p = large_data.projected(results)
    assert p.disk == 100e12 / (100 * 2e9) == 500
    assert p.arithmetic == pytest.approx(100e12 / (100 * 32 * 2.048e9 / 10))
    assert p.depth == 6  # 8**5 < 100 000 <= 8**6
    assert p.tasks == pytest.approx(100_000 * (1 + 1 / 7) * 1e-3)
    assert p.merged_bytes == pytest.approx(100_000 * (1 + 1 / 7) * 5 * 8 * 1000)
    assert p.seconds == pytest.approx(500 + p.merged_bytes / (100 * 25e9 / 8))


def test_the_page_has_what_was_measured():
    text = PAGE.read_text(encoding="utf-8")
    hashes = dict(re.findall(r"^\| (.*?) \| .* \| `(\w{8})` \|$", text, re.MULTILINE))
    rows = re.findall(r"^\| (.*?) \| (\d) \| (yes|no) \|.*`(\w{8})` \|$", text, re.MULTILINE)
    assert {(workers, killed) for _, workers, killed, _ in rows} == {
        (w, k) for w in "24" for k in ("yes", "no")
    }
    assert all(digest == hashes[name] for name, *_, digest in rows)


def test_the_program_of_the_page_runs():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    found = {}
    exec(code, found)
    assert abs(found["y"][:, 3].mean().compute()) < 1e-12


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_gives_the_same_bits(tmp_path):
    """In a process of its own, which is ended if it hangs: every step with a worker killed, and without."""
    stored = tmp_path / "results.json"
    options = ["--workers", "2", "--data", "60", "--chunk", "2", "--delay", "0.05", "--json", str(stored)]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    steps = json.loads(stored.read_text())["steps"]
    assert [s["killed"] for s in steps] == [False, False, True, True]
    for name in ("moments", "zscore"):
        assert len({s["digest"] for s in steps if s["name"] == name}) == 1
