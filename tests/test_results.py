"""Results as files: what comes back, what is refused, which code they are of."""

import dataclasses
import io
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bench_examples import made, row
from normkernels.bench import compare, machine, markdown, results, revision, schema, stored, summary, table
from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab import page as gate_page
from normkernels.bench.report import data, page, sheet
from normkernels.bench.schema import ResultsError
from report_examples import gate_outcome


def test_results_come_back_from_json(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    rows = [row(op="batch_norm", shape=(2, 3, 4)), dataclasses.replace(row(), baseline=None)]
    before = dataclasses.replace(made(rows), options={"op": ["batch_norm"], "pass": ["forward"]})
    results.save(before, path)
    assert results.load(path) == before
    assert json.loads(path.read_text())["rows"][0]["case"]["pass"] == "forward"
    assert list(tmp_path.iterdir()) == [path]
    measured = dataclasses.replace(before, revision=revision.Revision("0" * 40, None, True))
    results.save(measured, path)
    assert results.load(path) == measured


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a readable JSON file"),
        ('{"schema": 2, "machine": {"cpu": "A', "must be a readable JSON file"),
        ("[" * 100_000, "must be a readable JSON file"),
        ("[1]", "must have schema 2, got None"),
        ('{"schema": 99}', "must have schema 2, got 99 in .*r.json$"),
        ('{"schema": "1"}', "must have schema 2, got '1' in .*r.json$"),
        ('{"schema": 1, "rows": []}', "got 1 in .*r.json; measure again: normkernels bench --json"),
        ('{"schema": 2, "machine": {}}', "must have all fields of schema 2, got .*r.json: "),
    ],
)
def test_files_that_are_no_results(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(results.ResultsError, match=message):
        results.load(path)
    with pytest.raises(results.ResultsError, match="must be a readable JSON file"):
        results.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        (("rows", 0, "fresh", "median"), "fast", "rows.0.fresh.median must be float, got 'fast'"),
        (("rows", 0, "fresh", "median"), 0, "rows.0.fresh.median must be float > 1e-18, got 0"),
        (("rows", 0, "fresh", "median"), True, "rows.0.fresh.median must be float, got True"),
        (("rows", 0, "fresh", "median"), 10**400, "rows.0.fresh.median must be "),
        (("rows", 0, "fresh", "median"), 1e300, "rows.0.fresh.median must be float < 1e+18, got 1e+300"),
        (("rows", 0, "baseline", "copy", "plain"), float("nan"), "rows.0.baseline.copy.plain must be "),
        (("rows", 0, "case", "count"), 10**400, "rows.0.case.count must be int <= 1099511627775, got 1000"),
        (("rows", 0, "case", "count"), -1, "rows.0.case.count must be int >= 1, got -1"),
        (("machine", "memory_bytes"), 10**400, "machine.memory_bytes must be int <= 99999"),
        (("rows", 0, "case", "dtype"), 32, "rows.0.case.dtype must be str, got 32"),
        (("rows", 0, "case", "batch"), "8", "rows.0.case.batch must be int | null, got '8'"),
        (("rows", 0, "case", "shape"), ["8"], "rows.0.case.shape.0 must be int, got '8'"),
        (("rows", 0, "case", "pass"), 1, "rows.0.case.pass must be str, got 1"),
        (("rows", 0, "case"), {"op": "layer_norm"}, "rows.0.case.pass is missing"),
        (("rows", 0), None, "rows.0 must be "),
        (("machine", "date"), "yesterday", "machine.date must be a date in ISO format, got 'yesterday'"),
        (("machine", "versions"), [], "machine.versions must be object, got []"),
        (("machine", "versions"), {"a": "1", "b.c": 2, "d": 3}, "machine.versions['b.c'] must be str, got 2"),
        (("options",), None, "options must be object, got None"),
        (("revision",), {"commit": "abc"}, "revision.branch is missing"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_results_with_a_wrong_field(
    place: tuple[str | int, ...], value: Any, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    results.save(made([row()]), path)
    document = inner = json.loads(path.read_text())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(document))
    message = f"must have all fields of schema 2, got {path}: "
    with pytest.raises(results.ResultsError, match=re.escape(message)) as error:
        results.load(path)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_of_two_wrong_fields_the_first_is_named_with_its_own_value() -> None:
    document = results.as_json(made([row()]))
    document["machine"]["versions"] = {"a": "1", "b": 2}
    document["rows"] = None
    with pytest.raises(ResultsError, match=r"^machine\.versions\['b'\] must be str, got 2$"):
        schema.made(results.Results, document)


def test_fields_nested_too_deeply_are_refused() -> None:
    fields: list[Any] = []
    for _ in range(100_000):
        fields = [fields]
    with pytest.raises(ResultsError, match="fields must be nested less deeply"):
        schema.made(results.Results, {"options": fields})


VALUES = (10**400, -1, 1e300, float("nan"), "x|y", None, [[]], {"a": []}, "x - at `$.y`\n")


@pytest.mark.parametrize("kind", ["bench", "gate"])
def test_no_value_in_a_file_breaks_what_reads_it(kind: str, tmp_path: Path) -> None:
    """Every field in turn holds something else: it is refused in one line, or shown."""
    path = tmp_path / "r.json"
    if kind == "bench":
        results.save(made([row(), row(pass_="backward", batch=8, preset="gpt2")]), path)
    else:
        outcomes.save(gate_outcome(1.0, 1.2, 0.8), path)
    document = json.loads(path.read_text())
    refused = shown = 0
    for holder, key in list(places(document)):
        before = holder[key]
        for value in VALUES:
            holder[key] = value
            path.write_text(json.dumps(document))
            try:
                found = stored.load(path)
            except ResultsError as error:
                refused += "\n" not in str(error)
                continue
            shown += 1
            report = data.report("t", [(path, found)])
            assert page.render(report)
            assert sheet.render(report)
            if isinstance(found, outcomes.Outcome):
                assert not found.first or gate_page.markdown(found)
            else:
                assert markdown.render(found)
            if compare.seconds(found):
                assert compare.compare(found, found, any_machine=False)
        holder[key] = before
    assert refused + shown == len(VALUES) * len(list(places(document)))
    assert refused > shown > 0


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every field of a JSON document, with what holds it; of a list the first item."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1])
    for key, inner in list(items):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


def test_a_case_is_in_a_file_once(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.save(made([row(), row(0.7)]), path)
    with pytest.raises(ResultsError, match="results must have each case once, got .layer_norm/.* again in "):
        results.load(path)


@pytest.mark.parametrize("runs", ["first", "again", "controls"])
def test_a_case_is_in_each_run_of_the_gate_once(runs: str, tmp_path: Path) -> None:
    path = tmp_path / "ab.json"
    found = gate_outcome(1.0, 1.2, 0.8)
    found = dataclasses.replace(found, again=found.first)
    outcomes.save(found, path)
    assert stored.load(path) == found
    document = json.loads(path.read_text())
    document[runs].append(document[runs][0])
    path.write_text(json.dumps(document))
    name = re.escape(repr(document[runs][0]["name"]))
    with pytest.raises(ResultsError, match=f"^results must have each case once, got {name} again in [^\n]*$"):
        stored.load(path)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:owner/name.git", "https://github.com/owner/name"),
        ("ssh://git@github.com:22/owner/name.git", "https://github.com/owner/name"),
        ("https://user:secret@gitlab.com/group/owner/name", "https://gitlab.com/group/owner/name"),
        ("http://git.example.org:8080/name.git/", "http://git.example.org:8080/name"),
        ("/srv/git/name.git", None),
        ("file:///srv/git/name.git", None),
        ("../name", None),
        ("https://[::1/name", None),
        (None, None),
    ],
)
def test_where_a_repository_can_be_looked_at(
    remote: str | None, address: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(revision, "_git", lambda *_: remote and [remote])
    assert revision.web_address(tmp_path) == address


@pytest.mark.parametrize(
    ("url", "commit", "link"),
    [
        ("https://example.org/a", "0123456789", "https://example.org/a/commit/0123456789"),
        ("javascript:alert(1)//https://example.org", "0123456789", None),
        ("https://example.org/a", "<script>", None),
        (None, "0123456789", None),
    ],
)
def test_only_a_page_of_a_commit_is_linked(url: str | None, commit: str, link: str | None) -> None:
    assert revision.commit_page(url, commit) == link


def git(folder: Path, *arguments: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main")
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A package in a git checkout of one commit."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    return package


def test_the_revision_of_a_checkout(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (checkout.parent / "notes").touch()  # beside the package: not what was measured
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    clean = revision.revision(checkout)
    assert clean is not None
    assert re.fullmatch("[0-9a-f]{40}", clean.commit)
    assert (clean.branch, clean.dirty) == ("main", False)
    (checkout / "__init__.py").write_text("changed")
    assert revision.revision(checkout) == dataclasses.replace(clean, dirty=True)
    monkeypatch.delenv("GIT_DIR")
    git(checkout, "checkout", "--detach")
    assert revision.revision(checkout) == dataclasses.replace(clean, dirty=True, branch=None)


def test_no_revision_outside_a_checkout(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = checkout / "site-packages"  # installed within somebody else's checkout
    inside.mkdir()
    (inside / "__init__.py").touch()
    assert revision.revision(inside) is None
    assert revision.revision(tmp_path / "none") is None
    monkeypatch.setenv("PATH", "")
    assert revision.revision(checkout) is None


def test_what_others_used_is_said_where_it_matters() -> None:
    quiet = made([row()])
    busy = dataclasses.replace(quiet, others=0.5)
    assert summary.caption(busy) == f"{summary.caption(quiet)}; others used 50% of the processors"
    assert summary.caption(dataclasses.replace(quiet, others=0.01)) == summary.caption(quiet)


@pytest.mark.parametrize(
    ("threads", "others", "advice"),
    [
        (2, 0.02, ""),
        (
            2,
            0.65,
            "other work used 1.3 of 2 cores meanwhile, and 2 threads wait for the slowest: use --threads 1,",
        ),
        (1, 0.4, ""),  # it used the core that was free
        (1, 0.65, "other work used 1.3 of 2 cores meanwhile: measure again when it has ended"),
    ],
)
def test_a_busy_machine_is_told_what_to_do_before_all_else(threads: int, others: float, advice: str) -> None:
    quiet = made([row()])
    here = dataclasses.replace(quiet.machine, logical_cores=2, threads=threads)
    outcome = dataclasses.replace(quiet, machine=here, others=others)
    assert summary.busy(outcome).startswith(advice)
    assert bool(summary.busy(outcome)) is bool(advice)
    text = io.StringIO()
    table.show(outcome, Console(file=text, width=200))
    assert text.getvalue().splitlines()[0].lower().startswith(advice or "layer_norm")
    assert markdown.render(outcome).lower().startswith(f"**{advice}" if advice else "measured")


def test_usage_tells_own_time_from_that_of_others() -> None:
    before = machine.Usage(total=100.0, idle=50.0, steal=1.0, own=10.0)
    after = machine.Usage(total=200.0, idle=80.0, steal=6.0, own=50.0)
    assert before.shares(after) == pytest.approx((0.05, 0.25))
    assert machine.usage().own > 0
