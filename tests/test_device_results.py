"""Results of a device that were never measured: stored, compared, drawn and tabulated."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from bench_examples import made, made_on_device, row
from normkernels.bench import compare, markdown, plot, results, summary, table
from normkernels.bench.report.data import report
from normkernels.bench.report.page import render
from normkernels.bench.selection import BadOption

ROWS = [row(0.9, ratio=2), row(0.8, ratio=0.5, pass_="backward"), row(0.1, cold=False, shape=(1, 8))]


def test_they_come_back_from_json(tmp_path: Path) -> None:
    before = made_on_device(ROWS)
    results.save(before, tmp_path / "r.json")
    assert results.load(tmp_path / "r.json") == before


def test_the_caption_names_the_device_and_the_driver() -> None:
    text = summary.caption(made_on_device(ROWS))
    assert text.startswith(
        "Test GPU, compute capability 9.0, driver 580.1, CUDA 13.0; a large copy on the device"
    )
    assert made_on_device(ROWS).machine.cache_bytes == 60 << 20


def test_another_device_is_another_machine() -> None:
    one, host = made_on_device(ROWS), made(ROWS)
    assert [c.ratio for c in compare.compare(one, one, any_machine=False).changes] == [1.0] * 3
    with pytest.raises(BadOption, match="device is Device.*Test GPU.* and None"):
        compare.compare(one, host, any_machine=False)


def test_the_page_has_tables_of_both_passes_and_of_small_calls(tmp_path: Path) -> None:
    page = tmp_path / "cuda.md"
    page.write_text(f"# Title\n{markdown.START}\n{markdown.END}\n")
    markdown.update(page, made_on_device(ROWS))
    text = page.read_text()
    assert "`normkernels bench --quick --device cuda --seed 7` on Test GPU" in text
    assert "| of copy | of copy alike | vs PyTorch | vs Triton |" in text
    forward, backward, calls = (
        text.index("**Forward**"),
        text.index("**Backward**"),
        text.index("**Small calls**"),
    )
    assert forward < backward < calls
    assert (
        "| layer_norm, float32 | shape | 8x16 | 1 s | 9 | 0.90 | 0.45 | 2.0× | 2.0× |"
        in text[forward:backward]
    )
    assert "| geometric mean |  |  |  |  | 0.80 | 0.40 | 0.5× | 0.5× |" in text[backward:calls]
    assert "| layer_norm forward, float32 | 1x8 | 9 µs | 8 µs | 40 µs |" in text[calls:]
    assert "- cupy was not measured" in text


def test_the_table_says_how_it_stands_beside_each_library() -> None:
    stream = io.StringIO()
    table.show(made_on_device(ROWS), Console(file=stream, width=100))
    text = stream.getvalue()
    assert "vs Triton: forward 2.0×, backward 0.5×; slower in 1 of 3 cases" in text
    assert "cupy was not measured" in text


def test_the_report_and_the_plot_read_them(tmp_path: Path) -> None:
    there = made_on_device(ROWS)
    made_of = report("GPU", [(Path("r.json"), there)])
    assert made_of.runs[0].machine == "Test GPU"
    assert made_of.runs[0].cache == 60 << 20
    assert made_of.entries[0].tip[-2:] == ["2.0× Triton", "9 µs a call from the host"]
    assert "Test GPU" in render(made_of)
    plot.plot(there, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_report_puts_one_file_into_a_page(normkernels: Any) -> None:
    results.save(made_on_device(ROWS), Path("r.json"))
    Path("cuda.md").write_text(f"{markdown.START}\n{markdown.END}\n")
    assert normkernels("report", "r.json", "--markdown", "cuda.md").code == 0
    assert "**Small calls**" in Path("cuda.md").read_text()
    shown = normkernels("report", "r.json", "r.json", "--markdown", "cuda.md")
    assert (shown.code, shown.err) == (
        2, "normkernels: --markdown must go with one file of RESULTS, got 2\n"
    )  # fmt: skip


def test_a_library_may_lack_a_case() -> None:
    there = made_on_device(ROWS)
    alone = dataclasses.replace(there.rows[0], baseline=None, others=there.rows[0].others)
    some = dataclasses.replace(there, rows=[alone, *there.rows[1:]])
    assert summary.libraries(some) == ["triton", "torch"]
    assert summary.of_library(alone, "torch") is None
    assert summary.mean_ratio([alone], "torch") is None
    assert markdown.command(some)
