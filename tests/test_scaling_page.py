"""The page on size and threads: its model finds what made the times, and stored results make the page."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("matplotlib")
pytest.importorskip("msgspec")

from normkernels.bench.machine import machine

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import scaling

    return scaling


@pytest.fixture
def results(scaling, rng):
    """Times of a machine with caches of 1 MB and 16 MB, whose memory feeds 1.5 of four cores."""
    made = scaling.Model(4e-6, 3e-6, 40.0, 20.0, 10.0, 70.0, 15.0)
    here = dataclasses.replace(
        machine(4), caches={"L1d": 1 << 15, "L2": 1 << 20, "L3": 1 << 24}, last_level_bytes=1 << 24
    )
    points = [
        scaling.Point(op, pass_, nbytes, threads, seconds * rng.uniform(0.97, 1.03))
        for op, pass_ in scaling.KINDS
        for nbytes in scaling.SIZES
        for threads in (1, 4)
        if (seconds := made.seconds(scaling.Computer(1 << 20, 1 << 24), 3 * nbytes, nbytes, threads))
    ]
    return made, scaling.Results(here, {"1": 12.0, "4": 30.0}, points, 0.0)


def test_the_model_finds_what_made_the_times(scaling, results):
    made, found = results
    computer = scaling.Computer.of(found.machine)
    points = found.of("layer_norm", "backward")
    model, error = scaling.fitted(points, computer)
    assert error < 0.03
    for name in ("call", "private", "memory", "all_memory"):
        assert getattr(model, name) == pytest.approx(getattr(made, name), rel=0.15), name
    for threads in (1, 2, 3, 4):  # two of these were not measured
        for nbytes in (1e4, 1e6, 3e7, 1e9):
            times = [m.seconds(computer, 3 * nbytes, nbytes, threads) for m in (model, made)]
            assert times[0] == pytest.approx(times[1], rel=0.15)


def test_what_many_cores_do_follows_from_the_assumptions(scaling, results):
    computer, there = scaling.on_many_cores(results[0], of_copy=0.5)
    moved = 3 * 2**35
    gbs = moved / there.seconds(computer, moved, 2**35, scaling.CORES) / 1e9
    memory = 0.5 * scaling.MEMORY_CHANNELS * scaling.CHANNEL_GBS * scaling.EFFICIENCY
    assert gbs == pytest.approx(memory, rel=0.05)
    small = scaling.PARALLEL // 2
    assert there.seconds(computer, 3 * small, small, 64) == there.seconds(computer, 3 * small, small, 1)


def test_the_page_is_built_from_stored_results(scaling, results, tmp_path, monkeypatch):
    page, stored = tmp_path / "scaling.md", tmp_path / "results.json"
    (tmp_path / "results").mkdir()
    page.write_text((ROOT / "docs" / "scaling.md").read_text(encoding="utf-8"), encoding="utf-8")
    stored.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(results[1], others=0.3))))
    monkeypatch.setattr("sys.argv", ["scaling.py", "--from", str(stored), "--into", str(page)])
    scaling.main()
    text = page.read_text(encoding="utf-8")
    assert text.count("| batch norm backward |") == 2
    assert "| 4 GB |" in text
    assert "30.0 GB/s by 4" in text
    assert "used 30% of the processors" in text
    picture = tmp_path / "results" / scaling.PICTURE
    first = picture.read_bytes()
    assert b"64 cores, expected" in first
    scaling.main()
    assert picture.read_bytes() == first


def test_shapes_have_the_bytes_of_their_size(scaling):
    for op in scaling.OPS:
        for nbytes in scaling.SIZES:
            assert 4 * np.prod(scaling.shape_of(op, nbytes), dtype=np.int64) == nbytes


def test_the_largest_size_leaves_three_quarters_of_the_memory_free(scaling):
    assert scaling.largest(24 << 30) == 2 << 30
    assert scaling.largest(20 << 30) == 1 << 30
    assert scaling.largest(1 << 40) == 4 << 30


def test_small_sizes_are_measured(scaling):
    found = scaling.measure(4096, 0.001)
    assert {(p.op, p.pass_) for p in found.points} == set(scaling.KINDS)
    assert {p.nbytes for p in found.points} == {1024, 4096}
    assert all(p.seconds > 0 for p in found.points)
