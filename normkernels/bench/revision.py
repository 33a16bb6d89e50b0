"""Which code was measured."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PACKAGE = Path(__file__).resolve().parent.parent
TIMEOUT = 5  # seconds; a repository on a slow file system is not worth waiting for


@dataclass(frozen=True)
class Revision:
    """A commit, and whether the package differed from it; `branch` is None for a detached head."""

    commit: str
    branch: str | None
    dirty: bool
    url: str | None = None
    """Where the repository can be looked at, by the remote that it was cloned from."""


def revision(package: Path = PACKAGE) -> Revision | None:
    """The revision of a package, None where it is not part of a git checkout or git does not answer."""
    # A package installed inside somebody else's checkout lies in it, but is no part of it.
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    lines = _git(package, "status", "--porcelain=v2", "--branch", "--", ".")
    if lines is None:
        return None
    heads = dict(line[2:].split(" ", 1) for line in lines if line.startswith("# branch."))
    commit, branch = heads.get("branch.oid", "(initial)"), heads.get("branch.head", "(detached)")
    if commit == "(initial)":
        return None
    dirty = any(not line.startswith("#") for line in lines)
    return Revision(commit, None if branch == "(detached)" else branch, dirty, web_address(package))


def web_address(folder: Path) -> str | None:
    """The page of the repository that a folder was cloned from, with no password; None where it has none."""
    (remote, *_) = _git(folder, "remote", "get-url", "origin") or [""]
    if "://" not in remote:
        remote = f"ssh://{remote.replace(':', '/', 1)}"  # git@host:path
    try:
        parts = urlsplit(remote)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)+", host or "") or parts.scheme == "file":
        return None
    on_web = parts.scheme in ("http", "https")
    place = f"{host}:{port}" if port and on_web else host
    return f"{parts.scheme if on_web else 'https'}://{place}/{parts.path.strip('/').removesuffix('.git')}"


def commit_page(url: str | None, commit: str) -> str | None:
    """The page of a commit; None where these are not an address of the web and a commit."""
    known = (
        url is not None
        and re.fullmatch(r"https?://[\w.:/~%+-]+", url)
        and re.fullmatch("[0-9a-f]{7,64}", commit)
    )
    return f"{url}/commit/{commit}" if known else None


def _git(folder: Path, *arguments: str) -> list[str] | None:
    """Lines of what git says about a folder; None where there is no git or it fails."""
    # Within a hook git's own variables name another repository; and `status` may not lock the index.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
            env=environment | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.decode(errors="replace").splitlines()
