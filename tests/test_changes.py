"""`normkernels compare` and `normkernels noise`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normkernels.bench import noise, results
from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.cases import Case
from normkernels.bench.machine import machine
from normkernels.bench.results import CopySpeed, Results, Row, Timing
from report_examples import gate_outcome, some_results


def stored(folder: Path, name: str, seconds: dict[str, float], **other: Any) -> str:
    """A file of results with a median for each norm."""
    speed = CopySpeed(10.0, 12.0)
    rows = []
    for op, median in seconds.items():
        timing = Timing(median, median, median, 1.0, 0.5)
        case = Case(op, "forward", (128, 256, 8))
        rows.append(Row(case, True, 7, 1, 0.0, timing, timing, speed, None))
    file = folder / name
    results.save(Results(replace(machine(2), **other), {}, speed, rows, []), file)
    return str(file)


@pytest.mark.parametrize(("limit", "code"), [("10%", 1), ("25", 0), (None, 0)])
def test_compare_fails_where_it_is_told_to(
    normkernels: Any, tmp_path: Path, limit: str | None, code: int
) -> None:
    files = [
        stored(tmp_path, "a.json", {"layer_norm": 1.0, "rms_norm": 1.0}),
        stored(tmp_path, "b.json", {"layer_norm": 0.5, "rms_norm": 1.2, "group_norm": 9.0}),
    ]
    done = normkernels("compare", *files, *(["--fail-on", limit] if limit else []))
    lines = done.out.splitlines()
    assert done.code == code
    assert [line.split()[0] for line in lines[:3]] == ["+20.0%", "-50.0%", "-22.5%"]
    assert "rms_norm/forward" in lines[0]
    assert lines[2].endswith("geometric mean of 2 cases")
    assert lines[3] == f"only in {files[1]}: group_norm/forward/shape/128x256x8/float32"
    assert lines[4:] == ["1 slower by more than 10%"] * code


@pytest.mark.parametrize(("limit", "code"), [("10%", 1), (None, 0)])
def test_a_case_that_is_gone_is_named_and_fails_where_asked(
    normkernels: Any, tmp_path: Path, limit: str | None, code: int
) -> None:
    a = stored(tmp_path, "a.json", dict.fromkeys(("layer_norm", "rms_norm", "batch_norm"), 1.0))
    b = stored(tmp_path, "b.json", {"layer_norm": 1.0})
    done = normkernels("compare", a, b, *(["--fail-on", limit] if limit else []))
    assert done.code == code
    gone = [f"only in {a}: {op}/forward/shape/128x256x8/float32" for op in ("rms_norm", "batch_norm")]
    assert done.out.splitlines()[2:] == [*gone, *[f"2 of {a} not in {b}"] * code]


def test_compare_takes_what_the_gate_wrote(normkernels: Any, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    outcomes.save(gate_outcome(1.0, 1.0, 1.0), Path(files[0]))
    outcomes.save(gate_outcome(1.0, 1.5, 0.5), Path(files[1]))
    done = normkernels("compare", *files, "--fail-on", "10%")
    assert done.code == 1
    assert [line.split()[0] for line in done.out.splitlines()] == ["+50.0%", "+0.0%", "-50.0%", "-9.1%", "1"]
    assert normkernels("compare", files[0], stored(tmp_path, "c.json", {"rms_norm": 1.0})).code == 2


def test_compare_says_first_where_a_machine_was_busy(normkernels: Any, tmp_path: Path) -> None:
    quiet, busy = tmp_path / "quiet.json", tmp_path / "busy.json"
    calm = some_results()
    results.save(calm, quiet)
    results.save(replace(calm, others=0.6), busy)
    assert "other work" not in normkernels("compare", str(quiet), str(quiet)).out
    first, second, *_ = normkernels("compare", str(quiet), str(busy)).out.splitlines()
    assert first.startswith(f"{busy}: other work used 1.2 of 2 cores meanwhile")
    assert second.split()[0] == "+0.0%"
    outcomes.save(gate_outcome(1.0, 1.0, 1.0), quiet)
    outcomes.save(gate_outcome(1.0, 1.0, 1.0, moved=["control: copy"]), busy)
    first, second, *_ = normkernels("compare", str(busy), str(quiet)).out.splitlines()
    assert first.startswith(f"{busy}: inconclusive: control: copy moved")
    assert second.split()[0] == "+0.0%"


def test_compare_refuses_other_machines(normkernels: Any, tmp_path: Path) -> None:
    files = [
        stored(tmp_path, "a.json", {"layer_norm": 1.0}, cpu="one"),
        stored(tmp_path, "b.json", {"layer_norm": 1.0}, cpu="another"),
    ]
    done = normkernels("compare", *files)
    assert done.code == 2
    assert done.err.startswith("normkernels: results must come from one machine: cpu is one and another")
    assert normkernels("compare", *files, "--any-machine").code == 0


@pytest.mark.parametrize(("content", "message"), [("{", "readable JSON file"), ("[1]", "must have schema")])
def test_compare_names_the_file_that_is_none(
    normkernels: Any, tmp_path: Path, content: str, message: str
) -> None:
    good, bad = stored(tmp_path, "a.json", {"layer_norm": 1.0}), tmp_path / "bad.json"
    bad.write_text(content)
    done = normkernels("compare", good, str(bad))
    assert done.code == 2
    assert message in done.err
    assert "bad.json" in done.err
    assert len(done.err.splitlines()) == 1


def test_compare_needs_a_case_in_common(normkernels: Any, tmp_path: Path) -> None:
    files = stored(tmp_path, "a.json", {"layer_norm": 1.0}), stored(tmp_path, "b.json", {"rms_norm": 1.0})
    assert normkernels("compare", *files).err == (
        "normkernels: two results must have a case in common, got none\n"
    )


def test_noise_says_what_can_be_detected(normkernels: Any) -> None:
    done = normkernels("noise", "--seconds", "1")
    assert done.code == 0
    assert len(done.out.splitlines()) == 1
    for word in ("jitter", "steal", "other processes", "copy speed drifts", "can be detected here"):
        assert word in done.out
    assert (
        normkernels("noise", "--seconds", "0").err
        == "normkernels: --seconds must be more than 0 and at most 3600, got 0\n"
    )


def turns(rng: np.random.Generator, scatter: float, drift: float = 0.0) -> list[list[float]]:
    return [list(np.exp(rng.normal(drift * i / 200, scatter, 20))) for i in range(200)]


def test_what_is_seen_is_what_is_there() -> None:
    rng = np.random.default_rng(0)
    quiet, drifting, noisy = turns(rng, 0.001), turns(rng, 0.001, drift=0.5), turns(rng, 0.2)
    still = noise.assess(quiet, quiet, 0.0, 0.0, 60.0)
    assert still.jitter < 0.01
    assert still.drift < 0.01
    assert still.detectable < 0.01
    moved = noise.assess(drifting, quiet, 0.0, 0.0, 60.0)
    assert moved.drift == pytest.approx(0.45, abs=0.05)
    assert moved.detectable < 0.01  # a slow drift is nothing to neighbours in time
    assert noise.assess(quiet, noisy, 0.0, 0.0, 60.0).jitter == pytest.approx(0.2 * 2.56, rel=0.1)
    assert noise.assess(quiet, noisy, 0.0, 0.0, 60.0).detectable > 5 * still.detectable
