"""The gate: pairs of processes on two commits, and what is said of them."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab import page, pairs, verdict, worker
from normkernels.bench.ab.checkouts import cases_at, checkouts
from normkernels.bench.ab.outcome import Outcome, Side
from normkernels.bench.machine import machine
from normkernels.bench.results import ResultsError

ROOT = Path(__file__).parents[1]
PLANTED = ("layer_norm/forward/1x1", "rms_norm/forward/1x1", "batch_norm/forward/1x1")
GATE = [sys.executable, "-m", "normkernels.cli", "ab"]

WORK = """
def total(n):
    result = 0
    for _ in range({sweeps}):
        for i in range(n):
            result += i
    return result

def largest(n):
    return max(range(n))
"""
CASES = """
import work

def cases():
    return {{
        "total": lambda: lambda: work.total(2000),
        "largest": lambda: (lambda: work.largest(2000), {check}),
    }}
"""


def git(*words, at):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=at, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(folder, tag, sweeps=1, check="lambda: None"):
    (folder / "work.py").write_text(WORK.format(sweeps=sweeps))
    (folder / "cases.py").write_text(CASES.format(check=check))
    (folder / "pyproject.toml").write_text('[project.entry-points."normkernels.ab"]\nx = "cases:cases"\n')
    git("add", ".", at=folder)
    git("commit", "--quiet", "--allow-empty", "-m", tag, at=folder)
    git("tag", tag, at=folder)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository of another package: `fast`, and `slow`, in which one function takes thrice as long."""
    folder = tmp_path / "project"
    folder.mkdir()
    git("init", "--quiet", at=folder)
    commit(folder, "fast")
    commit(folder, "slow", sweeps=3)
    monkeypatch.chdir(folder)
    return folder


def left_behind(folder, temporary):
    """Worktrees of a repository beside itself, and folders of the gate."""
    trees = git("worktree", "list", "--porcelain", at=folder).count("worktree ") - 1
    return trees, [p.name for p in temporary.iterdir()]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def test_a_slower_commit_is_flagged_twice_and_named(normkernels, project, temporary, tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "MOST_SECONDS", pairs.LEAST_SECONDS)
    files = tmp_path / "ab.json", tmp_path / "ab.md"
    words = ["ab", "--base", "fast", "--head", "slow", "--max-minutes", "5"]
    done = normkernels(*words, "--json", str(files[0]), "--markdown", str(files[1]))
    outcome = outcomes.load(files[0])
    assert [c.name for c in outcome.recurred("slower")] == ["total"]
    assert 2 < outcome.again[0].ratio < 4.5
    assert len(outcome.first[0].pairs) == pairs.LEAST_PAIRS
    assert done.code == outcome.exit_code
    assert outcome.exit_code == (outcomes.INCONCLUSIVE if outcome.moved else outcomes.REGRESSION)
    assert outcome.base.commit == git("rev-parse", "fast", at=project)
    assert "| total |" in files[1].read_text()
    assert outcome.headline in done.out
    assert left_behind(project, temporary) == (0, [])


def test_an_interrupted_gate_leaves_nothing_behind(project, temporary, tmp_path):
    file = tmp_path / "ab.json"
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    for number in (signal.SIGINT, signal.SIGTERM):
        gate = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "normkernels.cli",
                "ab",
                "--base",
                "fast",
                "--head",
                "slow",
                "--json",
                file,
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not list(temporary.glob("normkernels-ab-*/head/work.py")) and gate.poll() is None:
            time.sleep(0.02)
        time.sleep(0.5)
        gate.send_signal(number)
        _, errors = gate.communicate(timeout=60)
        assert gate.returncode == 130
        assert errors.strip().splitlines()[-1] == "normkernels: interrupted"
        assert left_behind(project, temporary) == (0, [])
        assert not file.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--base", "nowhere"], "--base must name a commit of this repository, got nowhere"),
        (["--base", "fast", "--head", "--help"], "--head must name a commit of this repository, got --help"),
        (["--base", "fast", "--pairs", "11"], "--pairs must be 12 or more, got 11"),
        (["--base", "fast", "--threads", "0"], "--threads must be 1 or more, got 0"),
        (["--base", "fast", "--max-minutes", "0"], "--max-minutes must be more than 0, got 0"),
        (
            ["--base", "fast", "--threshold", "much"],
            "--threshold must be a percentage above 0, like 10%, got much",
        ),
        (["--base", "fast", "--cases", "cases"], "--cases must be module:function, got cases"),
        (
            ["--base", "fast", "--cases", "cases:none"],
            "the cases must run in head (HEAD), got AttributeError",
        ),
        (["--base", "fast", "--cases", "math:gcd"], "the cases must run in head (HEAD), got TypeError"),
        (["--base", "fast", "--json", "/nowhere/x.json"], "--json must be writeable, got /nowhere/x.json"),
        (["--base", "fast", "--max-minutes", "0.01"], "--max-minutes must leave "),
    ],
)
def test_bad_options_cost_one_line(normkernels, project, temporary, words, message):
    done = normkernels("ab", *words)
    assert done.code == 2
    assert done.err.startswith(f"normkernels: {message}")
    assert len(done.err.splitlines()) == 1
    assert left_behind(project, temporary) == (0, [])


def test_a_wrong_case_ends_the_gate(normkernels, project, temporary):
    commit(project, "wrong", check="lambda: [][0]")
    done = normkernels("ab", "--base", "fast")
    assert done.code == 2
    assert "case largest must run in head (HEAD), got IndexError: list index out of range" in done.err


def test_outside_of_a_repository(normkernels, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    done = normkernels("ab", "--base", "main")
    assert done.code == 2
    assert done.err.startswith("normkernels: git rev-parse: fatal: not a git repository")


def test_code_from_elsewhere_is_not_compared(normkernels, project, temporary):
    """A package that is installed, and not imported from the checkout, would be compared with itself."""
    (project / "cases.py").write_text(
        "import math\ndef cases(): return {'x': lambda: lambda: math.gcd(4, 6)}"
    )
    git("commit", "--quiet", "-am", "elsewhere", at=project)
    done = normkernels("ab", "--base", "fast")
    assert done.code == 2
    assert "--cases must import the code of the checkout, got none from head" in done.err


def test_cases_that_base_does_not_have_are_left_out(project, temporary):
    with (project / "work.py").open("a") as work:
        work.write("def new(): return 1\n")
    cases = (project / "cases.py").read_text().replace('"total":', '"new": lambda: work.new, "total":')
    (project / "cases.py").write_text(cases)
    git("commit", "--quiet", "-am", "new", at=project)
    with checkouts({"base": "fast", "head": "HEAD"}, isolated=False) as ready:
        arms = pairs.Arms(ready, cases_at(ready["head"].root, None), root_matters=True)
        arms.prepare()
    assert arms.names == ["total", "largest"]
    assert arms.only_head == {"new": "AttributeError: module 'work' has no attribute 'new'"}


def test_each_arm_goes_first_as_often_as_the_other():
    for seed in range(5):
        orders = pairs.orders(12, seed)
        assert sum(first == "base" for first, _ in orders) == 6
    assert pairs.orders(12, 0) != pairs.orders(12, 1)


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
        threshold=0.1,
        seconds=60.0,
        first=first,
        again=rerun,
        controls=controls,
        moved=[c.name for c in controls if verdict.moved(c, 0.1)],
        only_head={},
        aa=False,
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


def test_worker_checks_before_and_after(monkeypatch):
    seen = []
    monkeypatch.setattr(worker, "samples", lambda call, seconds: seen.append("timed") or [1.0])
    assert worker.measure(lambda: (lambda: seen.append("call"), lambda: seen.append("check")), 0.1) == [1.0]
    assert seen == ["call", "check", "timed", "check"]


def test_cases_of_this_repository_cover_every_norm(monkeypatch):
    from normkernels.norms import NORMS

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import ab_cases

    cases = ab_cases.cases()
    assert {name.split("/")[0] for name in cases} == set(NORMS)
    assert {name.split("/")[1] for name in cases} == {"forward", "backward"}
    assert set(ab_cases.short()) < set(cases)
    call, check = cases["layer_norm/forward/256x768"]()
    call()
    check()
    monkeypatch.setattr(ab_cases.nk, "layer_norm_forward", lambda x, **keywords: (x, None))
    call, check = cases["layer_norm/forward/256x768"]()
    with pytest.raises(AssertionError):
        check()


def test_a_package_that_is_not_ours(temporary, tmp_path, monkeypatch):
    """The example of the docs, in a repository of its own: found by its pyproject.toml, run in both arms."""
    folder = tmp_path / "imagestats"
    shutil.copytree(ROOT / "examples" / "tracking", folder, ignore=shutil.ignore_patterns("__pycache__"))
    git("init", "--quiet", at=folder)
    git("add", ".", at=folder)
    git("commit", "--quiet", "-m", "first", at=folder)
    monkeypatch.chdir(folder)
    with checkouts({"base": "HEAD", "head": "HEAD"}, isolated=False) as ready:
        arms = pairs.Arms(ready, cases_at(ready["head"].root, None), root_matters=True)
        arms.prepare()
        assert arms.names == ["contrast/64x128x128", "histogram/512x512"]
        taken = arms.measure(arms.names, 1, pairs.LEAST_SECONDS, 0, lambda: None)
    assert all(base > 0 and head > 0 for [(base, head)] in taken.values())
    assert left_behind(folder, temporary) == (0, [])


def test_the_planted_slowdown_applies_to_the_kernel():
    patch = ROOT / "tests" / "data" / "slowdown.patch"
    subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, check=True)


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
