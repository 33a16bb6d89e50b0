"""The gate: pairs of processes on two commits, and what is said of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from normkernels.bench.ab import checkouts as checkouts_module
from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab import pairs, verdict, worker
from normkernels.bench.ab.checkouts import cases_at, checkouts
from normkernels.bench.selection import BadOption

ROOT = Path(__file__).parents[1]
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
    assert [c.name for c in outcome.again] == ["total"]
    assert len(outcome.first[0].pairs) == pairs.LEAST_PAIRS
    assert done.code == outcome.exit_code
    assert outcome.exit_code == (outcomes.INCONCLUSIVE if outcome.moved else outcomes.REGRESSION)
    assert outcome.base.commit == git("rev-parse", "fast", at=project)
    assert "| total |" in files[1].read_text()
    assert outcome.headline in done.out
    assert left_behind(project, temporary) == (0, [])


@pytest.mark.slow
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
        (["--base", "fast", "--threads", "0"], "--threads must be between 1 and "),
        (["--base", "HEAD"], "--base and --head must be two commits (or use --aa), got "),
        (
            ["--base", "fast", "--aa", "--head", "slow"],
            "--aa compares base with itself and takes no --head, got",
        ),
        (["--base", "fast", "--max-minutes", "0"], "--max-minutes must be more than 0, got 0"),
        (
            ["--base", "fast", "--threshold", "much"],
            "--threshold must be a percentage above 0, like 10%, got much",
        ),
        (["--base", "fast", "--cases", "cases"], "--cases must be module:function, got cases"),
        (
            ["--base", "fast", "--cases", "cases:none"],
            "the cases must run in head (HEAD), got TypeError",
        ),
        (["--base", "fast", "--cases", "math:gcd"], "the cases must run in head (HEAD), got TypeError"),
        (["--base", "fast", "--json", "/nowhere/x.json"], "--json must be writeable, got /nowhere/x.json"),
        (["--base", "fast", "--max-minutes", "0.01"], "--max-minutes must be "),
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
    message = "case largest must run and be right in head, got a wrong result (IndexError at cases.py:7: list"
    assert message in done.err


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
    assert "--cases must import the code of the checkout (its root, or its src), got none in head" in done.err


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
    assert arms.only_head == {"new": "AttributeError at cases.py:6: module 'work' has no attribute 'new'"}


def test_each_arm_goes_first_as_often_as_the_other():
    for seed in range(5):
        orders = pairs.orders(12, seed)
        assert sum(first == "base" for first, _ in orders) == 6
    assert pairs.orders(12, 0) != pairs.orders(12, 1)


def test_the_gate_may_come_from_the_repository_that_it_judges(project, temporary, monkeypatch):
    """Its worker lies in the work tree then, as here; importing multiprocessing gives it a second name."""
    shutil.copy(pairs.WORKER, project / "worker.py")
    monkeypatch.setattr(pairs, "WORKER", project / "worker.py")
    text = (project / "cases.py").read_text()
    (project / "cases.py").write_text(f"import multiprocessing\n{text}")
    git("commit", "--quiet", "-am", "multiprocessing", at=project)
    with checkouts({"base": "fast", "head": "HEAD"}, isolated=False) as ready:
        arms = pairs.Arms(ready, cases_at(ready["head"].root, None), root_matters=True)
        arms.prepare()
    assert arms.names == ["total", "largest"]


def test_so_many_cases_need_more_pairs(project, temporary):
    """Of 103 cases not even a threefold time would be significant with 12 pairs."""
    arms = pairs.Arms({}, cases_at(project, None), root_matters=True, names=[str(i) for i in range(102)])
    arms.check_power(12)
    arms.names.append("one more")
    with pytest.raises(BadOption, match="--pairs must be 13 or more for 103 cases, got 12"):
        arms.check_power(12)
    p = [2 / 2**12, *[1.0] * 102]
    assert verdict.adjust(p)[0] >= verdict.FALSE_DISCOVERIES > verdict.adjust(p[:102])[0]


def test_code_of_the_work_tree_is_not_compared(normkernels, project, temporary):
    """What an editable install leads to is the same in both arms, whatever else came from the checkouts."""
    (project / "python").mkdir()
    git("mv", "work.py", "python/work.py", at=project)
    (project / "sizes.py").write_text("")
    text = (project / "cases.py").read_text()
    path = str(project / "python")
    (project / "cases.py").write_text(f"import sys, sizes\nsys.path.append({path!r})\n{text}")
    git("add", ".", at=project)
    git("commit", "--quiet", "-m", "moved", at=project)
    git("commit", "--quiet", "--allow-empty", "-m", "again", at=project)
    done = normkernels("ab", "--base", "HEAD~1")
    assert done.code == 2
    assert f"got {path}/work.py in head; --isolated installs what cannot be imported so" in done.err


def test_a_removal_is_not_interrupted():
    with checkouts_module.undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


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


@pytest.mark.slow
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
