"""The gate: pairs of processes on two commits, and what is said of them."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("scipy", reason="the extra ab is not installed")

from normkernels.bench.ab import checkouts as checkouts_module
from normkernels.bench.ab import gate, pairs, verdict, worker
from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab.checkouts import cases_at, checkouts
from normkernels.bench.ab.outcome import Plan
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
    (folder / "pyproject.toml").write_text('[tool.normkernels]\ncases = "cases:cases"\n')
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


@pytest.fixture
def answers(monkeypatch):
    """Processes that answer at once, with times never measured: "total" takes `slower` times as long."""
    said = {"slower": 1.0, "gone": [], "shared": [], "start": 0.0}

    def answer(arms, arm, names, seconds, seed=0, at=None):
        every = ["total", "largest", *said["gone"] * (at is not None), *worker.CONTROLS]
        times = dict.fromkeys(every, 1e-3) | {"total": 1e-3 * (said["slower"] if arm == "head" else 1)}
        found = {"found": True, "stray": None, "shared": said["shared"]}
        return {
            "names": every,
            "seconds": times,
            "failed": {},
            "bytes": {"total": 4096, "largest": None},
        } | found

    def clock():
        said["start"] += said.get("step", 0.0)
        return said["start"]

    monkeypatch.setattr(pairs.Arms, "answer", answer)
    monkeypatch.setattr(pairs, "perf_counter", clock)
    return said


def test_the_whole_gate_without_waiting(normkernels, project, temporary, tmp_path, answers):
    answers |= {"slower": 3.0, "gone": ["sorted"], "shared": ["benchmarks/sizes.py"], "step": 60.0}
    files = tmp_path / "ab.json", tmp_path / "ab.md"
    done = normkernels("ab", "--base", "fast", "--json", str(files[0]), "--markdown", str(files[1]))
    outcome = outcomes.load(files[0])
    assert done.code == outcomes.REGRESSION
    assert [c.name for c in outcome.recurred("slower")] == ["total"]
    assert [c.name for c in outcome.again] == ["total"]
    assert outcome.headline == "1 slower by more than 10%, of 2 cases; 1 case of base is not in head"
    assert outcome.bytes == {"total": 4096}
    minutes = outcome.plan.minutes
    assert outcome.notes == [
        f"12 pairs of 2 cases need {minutes:g} minutes and not 10 on this machine",
        "read from head in both arms, although base has another: benchmarks/sizes.py",
    ]
    for text in (done.out, files[1].read_text()):
        assert "not in head: sorted" in text
        assert all(note in text for note in outcome.notes)
    assert f"measuring, {minutes:g} minutes at most, 24 processes" in done.err
    assert left_behind(project, temporary) == (0, [])


@pytest.mark.slow
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
        (["--base", "fast", "--pairs", "11"], "--pairs must be between 12 and 500, got 11"),
        (["--base", "fast", "--pairs", "9" * 30], "--pairs must be between 12 and 500, got 999"),
        (["--base", "fast", "--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--base", "fast", "--max-minutes", "nan"], "--max-minutes must be a number above 0, got nan"),
        (["--base", "fast", "--threads", "0"], "--threads must be between 1 and "),
        (["--base", "HEAD"], "--base and --head must be two commits (or use --aa), got "),
        (
            ["--base", "fast", "--aa", "--head", "slow"],
            "--aa compares base with itself and takes no --head, got",
        ),
        (["--base", "fast", "--max-minutes", "0"], "--max-minutes must be a number above 0, got 0"),
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
    setup = lambda: (lambda: seen.append("call"), lambda: seen.append("check"), 64)  # noqa: E731
    assert worker.measure(setup, 0.1) == ([1.0], 64)
    assert seen == ["call", "check", "timed", "check"]


def test_cases_of_this_repository_cover_every_norm(monkeypatch):
    from normkernels.norms import NORMS

    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import ab_cases

    cases = ab_cases.cases()
    assert {name.split("/")[0] for name in cases} == set(NORMS)
    assert {name.split("/")[1] for name in cases} == {"forward", "backward"}
    assert set(ab_cases.short()) < set(cases)
    call, check, nbytes = cases["layer_norm/forward/256x768"]()
    call()
    check()
    assert nbytes == 2 * 256 * 768 * 4
    monkeypatch.setattr(ab_cases.nk, "layer_norm_forward", lambda x, **keywords: (x, None))
    call, check, _ = cases["layer_norm/forward/256x768"]()
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


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        ((), "()"),
        ((len, len, 8, 9), "(<built-in"),
        ((len, len, 0), "(<built-in"),
        ((len, len, "8"), "(<built-in"),
        (8, "8"),
    ],
)
def test_what_a_case_may_return(made, problem):
    with pytest.raises(TypeError, match="a case must return a function to time, or a tuple of ") as error:
        worker.prepared(lambda: made)
    assert f"got {problem}" in str(error.value)


def test_an_installed_package_is_not_compared_with_itself(
    normkernels, project, temporary, tmp_path, monkeypatch
):
    """It lies where nothing is imported from, below python/, and a helper comes from the checkout."""
    site = tmp_path / "site"
    site.mkdir()
    shutil.copy(project / "work.py", site)
    (project / "python").mkdir()
    git("mv", "work.py", "python/work.py", at=project)
    (project / "sizes.py").write_text("")
    text = (project / "cases.py").read_text()
    (project / "cases.py").write_text(f"import sys, sizes\nsys.path.append({str(site)!r})\n{text}")
    git("add", ".", at=project)
    git("commit", "--quiet", "-m", "moved", at=project)
    git("commit", "--quiet", "--allow-empty", "-m", "again", at=project)
    done = normkernels("ab", "--base", "HEAD~1")
    assert done.code == 2
    assert f"got {site}/work.py in head; --isolated installs what cannot be imported so" in done.err


# What is not compared


def test_cases_that_head_does_not_have_any_more_are_named(project, temporary):
    text = (project / "cases.py").read_text()
    (project / "cases.py").write_text(text.replace('"total": lambda: lambda: work.total(2000),', ""))
    git("commit", "--quiet", "-am", "fewer", at=project)
    with checkouts({"base": "slow", "head": "HEAD"}, isolated=False) as ready:
        arms = pairs.Arms(ready, cases_at(ready["head"].root, None), root_matters=True)
        arms.prepare()
        plan = Plan("slow", "HEAD", None, 12, 0.1, None, False, 1, 0, False)
        assert gate._removed(arms, plan) == (["total"], [])
        (ready["base"].root / "cases.py").write_text("1 / 0")
        gone, (note,) = gate._removed(arms, plan)
        assert gone == []
        assert note.startswith(
            "which cases base alone has is not known: the cases must run in base (slow), got Zero"
        )
        (ready["base"].root / "cases.py").unlink()
        assert gate._removed(arms, plan) == ([], [])


def test_a_clone_without_history_is_told(normkernels, project, tmp_path, monkeypatch):
    git("clone", "--quiet", "--depth", "1", f"file://{project}", str(tmp_path / "clone"), at=tmp_path)
    for folder, hint in ((tmp_path / "clone", True), (project, False)):
        monkeypatch.chdir(folder)
        done = normkernels("ab", "--base", "HEAD~9")
        assert done.code == 2
        assert done.err.startswith("normkernels: --base must name a commit of this repository, got HEAD~9")
        assert ("; this clone lacks history: git fetch --unshallow" in done.err) is hint


# How long it takes


def timed_arms(monkeypatch, seconds):
    """Arms whose process takes so long beside the cases."""
    clock = iter([0.0, 2 * (seconds + pairs.LEAST_SECONDS * 2)])
    monkeypatch.setattr(pairs, "perf_counter", lambda: next(clock))
    arms = pairs.Arms({}, None, root_matters=True, names=["a"], controls=["b"])
    monkeypatch.setattr(arms, "answer", lambda *_: {})
    return arms


def test_the_default_run_takes_as_long_as_it_needs(monkeypatch):
    assert timed_arms(monkeypatch, 1.0).seconds_to_spend(12, None, 0.0)[1] == pairs.DEFAULT_MINUTES
    seconds, minutes = timed_arms(monkeypatch, 20.0).seconds_to_spend(12, None, 1.0)
    assert minutes == 18  # 1 + 24 processes of 20.08 s, twice
    assert 2 * 24 * (20 + 2 * seconds) / 60 + 1 <= minutes
    assert seconds >= pairs.LEAST_SECONDS


def test_a_bound_that_was_given_is_kept(monkeypatch):
    with pytest.raises(BadOption, match="--max-minutes must be 18 or more for 12 pairs of 1 cases, got 10"):
        timed_arms(monkeypatch, 20.0).seconds_to_spend(12, 10.0, 1.0)
    assert timed_arms(monkeypatch, 20.0).seconds_to_spend(12, 18.0, 1.0)[1] == 18.0


@pytest.mark.parametrize(
    "text", ["", "tool = 3", "tool.normkernels = 3", "[tool.normkernels]\ncases = 3", "no TOML"]
)
def test_a_project_file_may_hold_anything(text, tmp_path):
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(BadOption, match="head must name its cases as `cases` in "):
        cases_at(tmp_path, None)
