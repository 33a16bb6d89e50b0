"""Two commits of one repository as folders, each with what it needs to run; gone after the block."""

import os
import signal
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..selection import BadOption

# What ends a program from outside; Windows has no SIGHUP.
ENDING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
# What git sets in a hook, where it would name another work tree.
IN_A_HOOK = "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"
DEEPEN = "git fetch --unshallow origin '+refs/heads/*:refs/remotes/origin/*' (in CI fetch-depth: 0)"
THREADS = "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"


class GitError(BadOption):
    """What git refused, in its own words."""


@dataclass(frozen=True)
class Checkout:
    """One commit, checked out, and how to run Python on it."""

    ref: str
    commit: str
    repository: Path
    """Where it was checked out of: nothing may be imported from there."""
    root: Path
    python: Path
    environment: dict[str, str]


@dataclass(frozen=True)
class CasesAt:
    """Where the cases come from: a function of a module, and its file, if it lies in head's checkout."""

    module: str
    function: str
    file: Path | None
    beside: Path | None = None
    """The folder of the cases, unless the code under test is imported from it too."""


def git(*words: str, at: Path | None = None) -> str:
    """What git prints."""
    environment = {name: value for name, value in os.environ.items() if name not in IN_A_HOOK}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=at,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us
        )
    except FileNotFoundError:
        raise GitError("git must be installed, got no such command") from None
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"git {words[0]} failed"]
        raise GitError(f"git {words[0]}: {lines[-1]}") from None
    return done.stdout.strip()


def commit_of(option: str, ref: str) -> str:
    """The commit that a name stands for."""
    git("rev-parse", "--git-dir")
    try:
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    except GitError:
        shallow = git("rev-parse", "--is-shallow-repository") == "true"
        hint = f"; this clone lacks history: {DEEPEN}" if shallow else ""
        raise BadOption(f"{option} must name a commit of this repository, got {ref}{hint}") from None


def uncommitted() -> bool:
    """Whether files under git's eye differ from HEAD."""
    git("rev-parse", "--git-dir")
    return bool(git("status", "--porcelain", "--untracked-files=no"))


@contextmanager
def checkouts(refs: dict[str, str], isolated: bool, threads: int = 1) -> Iterator[dict[str, Checkout]]:
    """A checkout for each ref, by its name; whatever happens, nothing of them is left behind."""
    commits = {name: commit_of(f"--{name}", ref) for name, ref in refs.items()}
    repository = Path(git("rev-parse", "--show-toplevel"))
    made: list[Path] = []
    with tempfile.TemporaryDirectory(prefix="normkernels-ab-", ignore_cleanup_errors=True) as folder:
        try:
            ready = {}
            for name, commit in commits.items():
                root = Path(folder).resolve() / name
                made.append(root)
                git("worktree", "add", "--detach", "--force", str(root), commit, at=repository)
                python, environment = _ready(name, root, isolated, threads)
                ready[name] = Checkout(refs[name], commit, repository, root, python, environment)
            yield ready
        finally:
            with undisturbed():
                for root in made:
                    with suppress(GitError):  # it was never added
                        # Twice: also where adding it was interrupted, which leaves it locked.
                        git("worktree", "remove", "--force", "--force", str(root), at=repository)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no signal end what a signal has begun: a second Ctrl-C waits in vain."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ready(name: str, root: Path, isolated: bool, threads: int) -> tuple[Path, dict[str, str]]:
    """How to run Python on a checkout: the interpreter and its environment."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(root.parent / f"{name}-kernels")}
    environment |= dict.fromkeys(THREADS, str(threads))
    environment.pop("PYTHONPATH", None)
    if isolated:
        return _installed(root, root.parent / f"{name}-venv"), environment
    places = [place for place in (root / "src", root) if place.is_dir()]
    environment["PYTHONPATH"] = os.pathsep.join(map(str, places))
    return Path(sys.executable), environment


def _installed(root: Path, place: Path) -> Path:
    """The Python of a new environment with the checkout installed."""
    venv.create(place, with_pip=True)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "numpy", str(root)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise BadOption(f"--isolated must be able to install both commits: {last}")
    return python


def cases_at(head: Path, option: str | None) -> CasesAt:
    """The cases asked for, or those that the project names in its pyproject.toml."""
    text = option or _cases_in(head / "pyproject.toml")
    module, _, function = text.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), function]):
        raise BadOption(f"--cases must be module:function, got {text}")
    parts = module.split(".")
    places = head / "src", head
    for place in places:
        for file in (place.joinpath(*parts).with_suffix(".py"), place.joinpath(*parts, "__init__.py")):
            if file.is_file():
                return CasesAt(module, function, file, None if file.parent in places else file.parent)
    return CasesAt(module, function, None)


def _cases_in(file: Path) -> str:
    try:
        text = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["normkernels"]["cases"]
    except (KeyError, OSError, TypeError, ValueError):  # it may hold anything
        text = None
    if not isinstance(text, str):
        raise BadOption(
            "head must name its cases as `cases` in [tool.normkernels] of its pyproject.toml, "
            "or --cases be given"
        )
    return text
