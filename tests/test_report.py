"""`normkernels report`: what its page holds. What the page does in a browser is in test_report_browser.py."""

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("rich")

from normkernels.bench import files, markdown, ratios, results
from normkernels.bench.ab import outcome as gate
from normkernels.bench.ab.outcome import Outcome
from normkernels.bench.report import charts, data, page
from normkernels.bench.report.data import Report
from normkernels.bench.revision import Revision
from report_examples import NASTY, changed, gate_outcome, nasty_results, run_of, some_results

PLAIN = "PLAIN--"


def report_of(*outcomes: results.Results | Outcome) -> Report:
    return data.report("a title", [(Path(f"{i}.json"), outcome) for i, outcome in enumerate(outcomes)])


class Page(HTMLParser):
    """What a browser would make of a page: tags, their attributes, text by the element it is in."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, text: str) -> None:
        self.text.setdefault(self.tags[-1][0] if self.tags else "", []).append(text)

    def visible(self) -> str:
        return "".join(text for tag, texts in self.text.items() if tag != "script" for text in texts)

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


# What it shows


def test_an_entry_has_what_the_table_shows() -> None:
    entry = report_of(some_results()).entries[0]
    assert (entry.norm, entry.pass_, entry.preset) == ("layer_norm", "forward", "gpt2 × 25")
    assert (entry.shape, entry.dtype, entry.tensor, entry.bytes) == ("64x768", "float32", 196608, 393216)
    assert (entry.time, entry.spread) == ("19.7 µs", "17.7–23.6")
    assert (entry.gbs, entry.fraction, entry.into_out) == (pytest.approx(20), 0.5, 0.6)
    assert entry.other is not None
    assert (entry.other.name, entry.other.ratio) == ("NumPy", pytest.approx(4))
    assert entry.tip == [
        "layer_norm forward",
        "gpt2 × 25, 64x768, float32",
        "19.7 µs (17.7–23.6), 20.0 GB/s",
        "0.50 of copy, 0.60 into out=",
        "4.0× NumPy",
    ]


def test_what_stays_in_cache_has_no_fraction() -> None:
    entry = next(e for e in report_of(some_results()).entries if e.norm == "rms_norm")
    assert (entry.fraction, entry.into_out) == (None, None)
    assert "stays in cache" in entry.tip


def test_runs_are_in_the_order_of_their_dates_not_of_their_zones() -> None:
    late = changed(some_results(), date="2026-11-20T01:00:00+00:00")
    early = changed(some_results(), date="2026-11-20T02:00:00+05:00")
    assert [run.file for run in report_of(late, early).runs] == ["1.json", "0.json"]


def test_newest_is_by_case_machine_and_baseline() -> None:
    first = some_results()
    second = changed(run_of(first.rows[:2]), date="2026-11-21T00:00:00+00:00")
    elsewhere = changed(first, cpu="another", date="2026-11-22T00:00:00+00:00")
    torch = changed(run_of([as_torch(first.rows[0])]), date="2026-11-23T00:00:00+00:00")
    report = report_of(first, second, elsewhere, torch)
    newest = [[entry.newest for entry in report.entries if entry.run == i] for i in range(4)]
    assert newest == [
        [False] * 2 + [True] * (len(first.rows) - 2),
        [True] * 2,
        [True] * len(first.rows),
        [True],
    ]
    assert len({entry.id for entry in report.entries}) == 2 * len(first.rows)


def test_machines_are_told_apart_where_there_are_several() -> None:
    one, other = some_results(), changed(some_results(), cpu="another", date="2026-11-21T00:00:00+00:00")
    assert {entry.context for entry in report_of(one, one).entries} == {"", ", float64"}
    both = report_of(one, other).entries
    assert {entry.context for entry in both if entry.dtype == "float32"} == {
        ", Test CPU, 2 of 2 cores",
        ", another, 2 of 2 cores",
    }
    assert {entry.tip[-1] for entry in both} == {"Test CPU, 2 of 2 cores", "another, 2 of 2 cores"}


def as_torch(row: results.Row) -> results.Row:
    assert row.baseline
    return dataclasses.replace(row, baseline=dataclasses.replace(row.baseline, name="torch"))


@pytest.mark.parametrize(
    ("revision", "label", "code"),
    [
        (None, "0", "not known: no git checkout"),
        (Revision("0123456789", "main", False), "0123456", "0123456 on main"),
        (Revision("0123456789", None, True), "0123456*", "0123456, changed since"),
    ],
)
def test_a_run_says_which_code_it_measured(revision: Revision | None, label: str, code: str) -> None:
    run = report_of(dataclasses.replace(some_results(), revision=revision)).runs[0]
    assert (run.label, run.day, run.code) == (label, "2026-11-20", code)


def test_the_page_holds_every_case_without_javascript() -> None:
    report = report_of(some_results())
    text = page.render(report)
    body = text[text.index("<tbody>") : text.index("</tbody>")]
    assert body.count("<tr>") == len(report.entries)
    for entry in report.entries:
        assert f'data-sort="{entry.median}">{entry.time}</td>' in body
    run = report.runs[0]
    for shown in (run.caption, run.date, run.code, run.versions, "too/large", *(c[1] for c in data.CHARTS)):
        assert shown in text
    assert '<select id="run">' not in text
    assert '<select id="run">' in page.render(report_of(some_results(), some_results()))


def test_the_page_needs_no_other_file() -> None:
    text = page.render(report_of(some_results(), some_results()))
    parsed = Page(text)
    assert not [
        a for name in ("src", "href", "srcset", "action", "data", "poster") for a in parsed.attributes(name)
    ]
    assert not {tag for tag, _ in parsed.tags} & {"link", "img", "iframe", "object", "embed", "base"}
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", text)
    assert re.findall(r"https?://[^\"'\s]*", text) == [
        "http://www.w3.org/2000/svg"
    ]  # the name of a namespace


def test_the_page_is_the_same_for_the_same_results() -> None:
    assert page.render(report_of(some_results())) == page.render(report_of(some_results()))


# Of the gate, and of other people's cases


def test_a_run_of_the_gate_is_two_runs_of_the_page() -> None:
    report = report_of(gate_outcome(1.0, 1.25, 0.5))
    assert [(run.own, run.label, run.code) for run in report.runs] == [
        ("base", "aaaaaaa", "aaaaaaa, main"),
        ("head", "bbbbbbb", "bbbbbbb, topic"),
    ]
    assert report.runs[0].copy == pytest.approx(2**26 / 2e-3 / 1e9, rel=0.01)
    base, head = report.entries[:3], report.entries[3:]
    assert [entry.newest for entry in base + head] == [False] * 3 + [True] * 3
    assert [entry.id for entry in base] == [entry.id for entry in head]
    assert [entry.other and entry.other.ratio for entry in head] == [1.0, 0.8, 2.0]
    one, other, unknown = head
    assert (one.norm, one.shape, one.rows, one.layer) == ("contrast", "16x128", 16, "Nx128")
    assert (one.gbs, one.fraction) == (pytest.approx(1.05, rel=0.01), None)  # it stays in the cache
    assert other.gbs == pytest.approx(2**26 / 2.5e-3 / 1e9, rel=0.01)
    assert other.fraction == pytest.approx(0.8, rel=0.01)
    assert (unknown.norm, unknown.shape, unknown.bytes, unknown.gbs) == ("total", "", None, None)
    text = page.render(report)
    headings = [heading for heading, _ in page.columns(report)]
    assert headings == ["norm", "shape", "time", "p10–p90", "GB/s", "of copy", "vs baseline", "results"]
    assert '<button type="button">function</button>' in text


def test_two_nights_of_the_gate_are_a_history(tmp_path: Path) -> None:
    later = {"machine": dataclasses.replace(gate_outcome(1, 1, 1).machine, date="2026-11-21T12:00:00+00:00")}
    report = report_of(gate_outcome(1.0, 1.2, 1.0, **later), gate_outcome(1.0, 0.9, 1.0))
    assert [run.file for run in report.runs] == [
        "1.json, base",
        "1.json, head",
        "0.json, base",
        "0.json, head",
    ]
    assert {path.stem for path in charts.draw(report, tmp_path)} == {"speed", "roofline", "batch", "history"}


def test_commits_are_linked_where_the_repository_has_a_page() -> None:
    url = "https://example.org/imagestats/commit/"
    assert {
        a["href"] for tag, a in Page(page.render(report_of(gate_outcome(1, 1, 1)))).tags if tag == "a"
    } == {
        f"{url}{'a' * 40}",
        f"{url}{'b' * 40}",
    }
    outcome = dataclasses.replace(
        some_results(), revision=Revision("0123456789", None, False, "https://a.org/b")
    )
    assert report_of(outcome).runs[0].link == "https://a.org/b/commit/0123456789"
    nasty = dataclasses.replace(outcome, revision=Revision("0123456789", None, False, "javascript:alert(1)"))
    assert report_of(nasty).runs[0].link is None


def wrote(*names: str) -> str:
    """What a command says of its files."""
    return "".join(f"normkernels: wrote {name}\n" for name in names)


def test_the_commands_take_what_the_gate_wrote(normkernels: Any, tmp_path: Path) -> None:
    gate.save(gate_outcome(1.0, 1.25, 0.5), tmp_path / "ab.json")
    start, end = markdown.START, markdown.END
    Path("page.md").write_text(f"{start}\n{end}\n{' '.join(markdown.markers(ratios.BLOCK))}\n")
    ended = normkernels("report", "ab.json", "--csv", "cases.csv", "--markdown", "page.md")
    assert (ended.code, ended.err) == (0, wrote("report.html", "cases.csv", "page.md"))
    assert "contrast" in Path("report.html").read_text(encoding="utf-8")
    assert "| contrast/64x128 | 2 ms | 2.5 ms | +25.0% |" in Path("page.md").read_text()
    rows = list(csv.DictReader(Path("cases.csv").read_text().splitlines()))
    assert [(row["commit"], row["norm"], row["baseline"], row["times_faster"]) for row in rows[2:4]] == [
        ("aaaaaaa", "total", "", ""),
        ("bbbbbbb", "contrast", "base", "1.0"),
    ]
    assert float(rows[4]["seconds"]) == pytest.approx(2.5e-3, rel=0.01)
    table = normkernels("table", "ab.json", "--markdown", "page.md")
    assert (table.code, table.err) == (0, wrote("page.md"))
    assert "| norm | pass | shape | base aaaaaaaaa | head bbbbbbbbb |" in table.out
    assert "| contrast | – | 64x128 | 2 ms | 0.8× |" in table.out


# What it must not do


def embedded(text: str) -> str:
    """The JSON in a page."""
    start = text.index('<script id="data" type="application/json">')
    return text[start : text.index("</script>", start)].split(">", 1)[1]


@pytest.mark.parametrize("nasty", NASTY)
def test_every_text_shows_as_text(nasty: str) -> None:
    clean, dirty = (
        Page(page.render(data.report(name, [(Path("r.json"), nasty_results(name))])))
        for name in (PLAIN, nasty)
    )
    assert [tag for tag, _ in dirty.tags] == [tag for tag, _ in clean.tags]
    assert [sorted(a) for _, a in dirty.tags] == [sorted(a) for _, a in clean.tags]
    # commits are shown short, as long as PLAIN is
    assert dirty.visible().replace(nasty, PLAIN).replace(nasty[: len(PLAIN)], PLAIN) == clean.visible()
    found = json.loads(embedded(page.render(data.report("t", [(Path("r.json"), nasty_results(nasty))]))))
    assert found["entries"][0]["norm"] == f"{nasty}+{nasty}"
    assert found["runs"][0]["machine"].startswith(nasty)


def test_the_embedded_json_cannot_end_its_element() -> None:
    text = page.render(data.report("t", [(Path("r.json"), nasty_results("".join(NASTY)))]))
    assert not set("<>&'\u2028\u2029") & set(embedded(text))
    json.loads(embedded(text))


def test_only_the_script_of_the_page_may_run() -> None:
    text = page.render(report_of(some_results()))
    policy = next(
        a["content"] for _, a in Page(text).tags if "content" in a and "script-src" in (a["content"] or "")
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy.split("script-src")[1]


# The command


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    path = tmp_path / "r.json"
    results.save(some_results(), path)
    return path


def test_report_writes_a_page(normkernels: Any, stored: Path) -> None:
    ended = normkernels("report", "r.json", "--title", "Nightly")
    assert (ended.code, ended.out, ended.err) == (0, "", wrote("report.html"))
    assert "<h1>Nightly</h1>" in Path("report.html").read_text(encoding="utf-8")
    assert normkernels("report", "r.json", "r.json", "-o", "other.html").code == 0
    assert sorted(path.name for path in stored.parent.iterdir()) == ["other.html", "r.json", "report.html"]


def test_every_file_is_named_and_a_stream_holds_nothing_else(
    normkernels: Any, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("page.md").write_text(f"{markdown.START}\n{markdown.END}\n")
    ended = normkernels("report", "r.json", "--charts", "charts", "--markdown", "page.md")
    assert (ended.code, ended.out, ended.err) == (0, "", wrote("report.html", "page.md", "charts"))
    with open("stream.html", "wb") as stream:
        monkeypatch.setattr(files, "STDOUT", stream.fileno())
        ended = normkernels("report", "r.json", "-o", "stream.html")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert Path("stream.html").read_bytes() == Path("report.html").read_bytes()
    monkeypatch.setenv("NORMKERNELS_QUIET", "1")
    assert normkernels("report", "r.json").err == ""


def test_lone_surrogates_do_not_end_it(normkernels: Any, tmp_path: Path) -> None:
    results.save(changed(some_results(), cpu="\ud800"), tmp_path / "r.json")
    assert normkernels("report", "r.json").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "RESULTS must name one file or more, got none"),
        (["none.json"], "results must be a readable JSON file, got none.json"),
        (["r.json", "cut.json"], "results must be a readable JSON file, got cut.json: "),
        (["old.json"], "results must have schema 2, got 1 in old.json; measure again"),
        (["empty.json"], "RESULTS must have a measured case, got none in empty.json"),
        (["r.json", "-o", "r.json"], "--output must name another file than RESULTS, got r.json"),
        (["r.json", "-o", "link.json"], "--output must name another file than RESULTS, got link.json"),
        (["r.json", "-o", "none/r.html"], "--output must name a file that can be written, got none/r.html ("),
        (["r.json", "-o", "."], "--output must name a file that can be written, got . (Is a directory)"),
        (["r.json", "--csv", "r.json"], "--csv must name another file than RESULTS, got r.json"),
        (["r.json", "--csv", "report.html"], "--csv must name another file than --output, got report.html"),
        (["r.json", "--csv", "none/r.csv"], "--csv must name a file that can be written, got none/r.csv ("),
        (["r.json", "--charts", "r.json"], "--charts must name a folder that can be written, got r.json ("),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, normkernels: Any, stored: Path) -> None:
    before = stored.read_bytes()
    Path("cut.json").write_bytes(before[: len(before) // 2])
    Path("old.json").write_text('{"schema": 1}')
    Path("link.json").symlink_to("r.json")
    results.save(run_of([]), Path("empty.json"))
    ended = normkernels("report", *arguments)
    assert (ended.code, ended.out) == (2, "")
    *done, error = ended.err.splitlines()
    assert error.startswith(f"normkernels: {message}")
    assert done == ["normkernels: wrote report.html"] * Path("report.html").exists()
    assert stored.read_bytes() == before


def test_an_interrupted_write_leaves_the_page_as_it_was(
    normkernels: Any, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("report.html").write_text("old")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    ended = normkernels("report", "r.json")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "No space left" in ended.err
    assert Path("report.html").read_text() == "old"
    assert sorted(path.name for path in stored.parent.iterdir()) == ["r.json", "report.html"]


# Pictures


def test_charts_are_png_and_svg(normkernels: Any, stored: Path) -> None:
    results.save(changed(some_results(), date="2026-11-21T00:00:00+00:00"), Path("s.json"))
    assert normkernels("report", "r.json", "s.json", "--charts", "pictures/of").code == 0
    pictures = sorted(path.name for path in Path("pictures/of").iterdir())
    assert pictures == sorted(f"{name}.{kind}" for name, _, _ in data.CHARTS for kind in ("png", "svg"))
    for name in pictures:
        content = Path("pictures/of", name).read_bytes()
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_charts_without_data_are_left_out(tmp_path: Path) -> None:
    only = run_of([row for row in some_results().rows if row.case.op == "rms_norm"])
    assert [path.name for path in charts.draw(report_of(only), tmp_path)] == ["roofline.png", "roofline.svg"]


def test_nasty_names_are_no_formulas_in_pictures(tmp_path: Path) -> None:
    both = [nasty_results("$\\frac{<script>$"), nasty_results("$\\frac{<script>$")]
    drawn = charts.draw(report_of(*both), tmp_path)
    assert {path.stem for path in drawn} == {"speed", "roofline", "batch", "history"}
    assert not any("<script" in path.read_text() for path in drawn if path.suffix == ".svg")


def test_every_chart_is_drawn_by_page_and_pictures() -> None:
    names = [name for name, _, _ in data.CHARTS]
    assert list(charts.DRAWN) == names
    drawn = re.search(r"const CHARTS = \{ (.*) \};", page._text("charts.js"))
    assert drawn is not None
    assert drawn[1].split(", ") == names
