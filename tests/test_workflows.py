"""The workflows: every action pinned to a commit, no token with more rights than its job needs."""

import re
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
