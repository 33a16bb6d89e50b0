"""The workflows: every action pinned to a commit, no token with more rights than its job needs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[1] / ".github" / "workflows"
WORKFLOWS: dict[str, dict[Any, Any]] = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.yml"))
}
# The only jobs that may write, and what.
MAY_WRITE = {
    ("benchmarks", "publish"): {"contents"},
    ("benchmarks", "alarm"): {"issues"},
    ("benchmarks-comment", "comment"): {"pull-requests"},
    ("release", "publish"): {"id-token"},
}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_to_commits(name: str) -> None:
    for job in WORKFLOWS[name]["jobs"].values():
        assert job.get("uses", "./.github/").startswith("./.github/"), job
        for step in job.get("steps", []):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", f"run@{'0' * 40}")), step


@pytest.mark.parametrize("name", WORKFLOWS)
def test_permissions_are_the_least(name: str) -> None:
    workflow = WORKFLOWS[name]
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job, content in workflow["jobs"].items():
        rights = content.get("permissions", {})
        assert {what for what, right in rights.items() if right == "write"} == MAY_WRITE.get(
            (name, job), set()
        )
        steps = content.get("steps", [])
        assert not any("persist-credentials" in str(s) and "true" in str(s).lower() for s in steps)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_text_of_others_becomes_a_command(name: str) -> None:
    """What a pull request may name as it likes reaches scripts through the environment alone."""
    for job in WORKFLOWS[name]["jobs"].values():
        for step in job.get("steps", []):
            assert "${{" not in step.get("run", ""), step


def test_code_of_a_pull_request_never_meets_a_token_that_writes() -> None:
    for name, workflow in WORKFLOWS.items():
        events = workflow[True]  # YAML's word for `on`
        assert "pull_request_target" not in events
        if "workflow_run" in events:
            steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]
            assert not any("checkout" in step.get("uses", "") for step in steps), name


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("citation-file-format", "CITATION.cff"),
    ],
)
def test_what_others_read_follows_its_schema(schema: str, files: str) -> None:
    pytest.importorskip("check_jsonschema", reason="the extra dev is not installed")
    found = sorted(map(str, FOLDER.parents[1].glob(files)))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *found]
    done = subprocess.run(command, capture_output=True, text=True)
    assert found
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", WORKFLOWS)
def test_files_that_commands_name_are_there(name: str) -> None:
    for job in WORKFLOWS[name]["jobs"].values():
        for step in job.get("steps", []):
            for file in re.findall(r"\b(?:tests|benchmarks)/[\w/]+\.py\b", step.get("run", "")):
                assert (FOLDER.parents[1] / file).is_file(), file


def test_only_what_was_built_and_tested_is_published() -> None:
    jobs = WORKFLOWS["release"]["jobs"]
    assert (jobs["publish"]["needs"], jobs["wheel"]["needs"]) == ("wheel", "check")
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert not any("run" in step for step in jobs["publish"]["steps"])


# Stands for GitHub's own command: keeps comments in a file, and takes what the workflow says.
GH = """#!{python}
import json, os, pathlib, subprocess, sys
words, file = sys.argv[1:], pathlib.Path("comments.json")
comments = json.loads(file.read_text())
if words[:2] == ["run", "download"]:
    pathlib.Path("gate").mkdir(exist_ok=True)
    pathlib.Path("gate/number").write_text("7")
    if "TABLE" in os.environ:
        pathlib.Path("gate/gate.md").write_text(os.environ["TABLE"])
elif words[:2] == ["pr", "view"]:
    print("abc")
elif words[:3] == ["pr", "comment", "7"]:
    body = pathlib.Path(words[words.index("--body-file") + 1]).read_text()
    comments.append({"id": 100 + len(comments), "body": body, "user": {"type": "Bot"}})
elif "PATCH" in words:
    address = words[words.index("PATCH") + 1]
    (comment,) = (c for c in comments if address == f"repos/o/n/issues/comments/{c['id']}")
    comment["body"] = pathlib.Path(words[-1].removeprefix("body=@")).read_text()
else:
    assert words[:3] == ["api", "--paginate", "repos/o/n/issues/7/comments"], words
    subprocess.run(["jq", "-r", words[-1]], input=json.dumps(comments), text=True, check=True)
file.write_text(json.dumps(comments))
"""


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("jq")), reason="needs bash and jq")
def test_the_comment_is_made_once_and_then_updated(tmp_path: Path) -> None:
    (step,) = WORKFLOWS["benchmarks-comment"]["jobs"]["comment"]["steps"]
    (tmp_path / "gh").write_text(GH.replace("{python}", sys.executable))
    (tmp_path / "gh").chmod(0o755)
    marked = "<!-- normkernels gate -->\nby a person"
    others = [
        {"id": 1, "body": "hello", "user": {"type": "Bot"}},
        {"id": 2, "body": marked, "user": {"type": "User"}},
    ]
    (tmp_path / "comments.json").write_text(json.dumps(others))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "GH_REPO": "o/n",
        "RUN": "5",
        "HEAD": "abc",
        "GITHUB_SERVER_URL": "https://example.org",
    }
    for table in ("first", "second"):
        command = ["bash", "-eo", "pipefail", "-c", step["run"]]
        subprocess.run(command, cwd=tmp_path, env={**environment, "TABLE": table}, check=True)
        *kept, comment = json.loads((tmp_path / "comments.json").read_text())
        assert kept == others
        assert comment["body"] == f"<!-- normkernels gate -->\n{table}"
