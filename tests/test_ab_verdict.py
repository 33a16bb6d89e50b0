"""What the gate says of times: verdicts, exit codes, the table, and the file."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

pytest.importorskip("scipy", reason="the extra ab is not installed")

from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab import page, verdict, worker
from normkernels.bench.ab.outcome import Outcome, Plan, Side
from normkernels.bench.machine import machine
from normkernels.bench.schema import ResultsError

ROOT = Path(__file__).parents[1]
PLANTED = ("layer_norm/forward/1x1", "rms_norm/forward/1x1", "batch_norm/forward/1x1")


def noisy(rng, factor, sd=0.03, n=12):
    """Pairs of times that scatter, with head so many times slower."""
    base = np.exp(rng.normal(0, sd, n)) * 1e-3
    return list(zip(base, factor * base * np.exp(rng.normal(0, sd, n)), strict=True))


def test_verdicts_of_many_cases():
    rng = np.random.default_rng(0)
    taken = {f"same {i}": noisy(rng, 1.0) for i in range(30)}
    taken |= {"slower": noisy(rng, 1.2), "faster": noisy(rng, 0.8), "a little": noisy(rng, 1.05)}
    found = {c.name: c for c in verdict.compare(taken, 0.1)}
    assert {name: c.verdict for name, c in found.items() if c.verdict != "same"} == {
        "slower": "slower",
        "faster": "faster",
    }
    assert found["slower"].low < 1.2 < found["slower"].high
    assert found["a little"].ratio == pytest.approx(1.05, abs=0.04)


def test_a_large_but_unsteady_change_is_no_verdict():
    """Half of the pairs say slower, half say faster: the median is far from 1, and means nothing."""
    taken = {"x": [(1.0, 1.5)] * 7 + [(1.0, 0.6)] * 5}
    assert verdict.compare(taken, 0.1)[0].ratio == pytest.approx(1.5)
    assert verdict.compare(taken, 0.1)[0].verdict == "same"


def test_false_alarms_are_rare():
    """Of 200 runs of 20 cases without any change hardly one raises an alarm, on an unsteady machine too."""
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(200):
        taken = {str(i): noisy(rng, 1.0, sd=0.15) for i in range(20)}
        p = verdict.adjust([verdict._p(np.log([h / b for b, h in each])) for each in taken.values()])
        alarms += min(p) < verdict.FALSE_DISCOVERIES
    assert alarms <= 0.05 * 200 + 3 * math.sqrt(0.05 * 0.95 * 200)


def test_identical_times_are_no_change():
    found = verdict.compare({"x": [(1.0, 1.0)] * 12}, 0.1)[0]
    assert (found.ratio, found.low, found.high, found.p, found.verdict) == (1.0, 1.0, 1.0, 1.0, "same")


def outcome_of(slower=(), again=(), moved=(), names=("a", "b")):
    rng = np.random.default_rng(0)
    first = verdict.compare({n: noisy(rng, 1.5 if n in slower else 1.0) for n in names}, 0.1)
    rerun = verdict.compare({n: noisy(rng, 1.5 if n in again else 1.0) for n in slower}, 0.1)
    controls = verdict.compare({"control: copy": noisy(rng, 1.3 if moved else 1.0)}, 0.1)
    return Outcome(
        machine=machine(2),
        base=Side("main", "0" * 40),
        head=Side("<script>alert(1)</script>", "1" * 40),
        plan=Plan("main", "<script>", None, 12, 0.1, 10.0, False, 1, 0, False),
        seconds=60.0,
        first=first,
        again=rerun,
        controls=controls,
        moved=[c.name for c in controls if verdict.moved(c, 0.1)],
        only_head={},
    )


@pytest.mark.parametrize(
    ("outcome", "code", "headline"),
    [
        (outcome_of(), 0, "no change beyond 10% in 2 cases"),
        (outcome_of(slower=["a"], again=["a"]), 1, "1 slower by more than 10%, of 2 cases"),
        (outcome_of(slower=["a"]), 0, "no change beyond 10% in 2 cases"),
        (outcome_of(slower=["a"], again=["a"], moved=True), 3, "inconclusive: control: copy moved"),
    ],
)
def test_exit_codes(outcome, code, headline):
    assert outcome.exit_code == code
    assert outcome.headline.startswith(headline)


def test_results_survive(tmp_path):
    file, outcome = tmp_path / "ab.json", outcome_of(slower=["a"], again=["a"])
    outcomes.save(outcome, file)
    assert outcomes.load(file) == outcome
    whole = file.read_text()
    for text in (whole[:200], "[]", "{}", json.dumps({"schema": 1}), whole.replace('"first"', '"last"')):
        file.write_text(text)
        with pytest.raises(ResultsError, match=r"ab\.json"):
            outcomes.load(file)


def test_markdown_shows_names_as_text():
    text = page.markdown(outcome_of(slower=["a|b"], again=["a|b"], names=("a|b", "<b>*x*</b>", "@someone")))
    assert "<script>" not in text
    assert "<b>" not in text
    assert "@someone" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {len(page.HEADINGS) + 1}


def test_a_change_that_did_not_recur_is_said_so():
    assert "(slower, did not recur)" in page.markdown(outcome_of(slower=["a"]))


def test_what_the_intervals_leave_open_is_said():
    rng = np.random.default_rng(0)
    outcome = replace(outcome_of(), first=verdict.compare({"a": noisy(rng, 1.0, sd=0.3)}, 0.1))
    assert outcome.headline == "no change beyond 10% in 1 case, 1 of which cannot be told"


def test_a_time_is_never_below_the_fastest_sample():
    assert worker.typical([1.0, 6.0, 6.0, 6.0, 6.0, 6.0]) >= 1.0


def test_the_table_shows_names_as_they_are(capsys):
    page.show(outcome_of(names=["f[float32]", "f[/x]"]), Console(width=160))
    out = capsys.readouterr().out
    assert "f[float32]" in out
    assert "f[/x]" in out


@pytest.mark.parametrize(
    ("name", "outcome", "right"),
    [
        ("aa", outcome_of(names=["layer_norm/forward/1x1"]), True),
        ("aa", outcome_of(names=["layer_norm/forward/1x1"], moved=True), False),
        ("slower", outcome_of(names=["layer_norm/forward/1x1"]), False),
        (
            "slower",
            outcome_of(*[["layer_norm/forward/1x1", "rms_norm/forward/1x1"]] * 2, names=PLANTED),
            True,
        ),
        ("slower", outcome_of(PLANTED, again=PLANTED, names=PLANTED), False),
    ],
)
def test_a_trial_is_right_where_it_names_that_kernel_and_no_other(name, outcome, right, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import ab_trials

    (trial,) = (t for t in ab_trials.TRIALS if t.name == name)
    assert trial.right(outcome) is right
