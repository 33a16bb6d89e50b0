"""The benchmark suite: what it selects, measures, stores and shows. No test asserts a time."""

import dataclasses
import io
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("yaml")

from rich.console import Console

from bench_examples import case, made, row
from normkernels import functional
from normkernels.bench import check, files, machine, markdown, plot, summary, table
from normkernels.bench.cases import MOST_SLOTS, Case
from normkernels.bench.copy import Copy, copy_bytes
from normkernels.bench.inputs import make_inputs
from normkernels.bench.measure import measure
from normkernels.bench.peers.with_numpy import NumPy
from normkernels.bench.results import Results, Row
from normkernels.bench.timing import Contender, Effort, take_turns
from normkernels.cpu.tuning import last_level_cache
from normkernels.norms import NORMS

ONCE = Effort(seconds=0, least=1, most=1)
SHAPES = {"rows": (7, 33), "groups": (3, 5, 4, 2), "windows": (3, 5, 4, 2), "channels": (3, 5, 4, 2)}


def small_cases() -> list[Case]:
    cases = [
        Case(op, pass_, SHAPES[spec.family], dtype)
        for op, spec in NORMS.items()
        for pass_ in ("forward", "backward")
        for dtype in ("float32", "float64")
    ]
    cases += [dataclasses.replace(c, dtype="bfloat16") for c in cases if c.dtype == "float64"]
    last = [dataclasses.replace(c, layout="channels_last") for c in cases if NORMS[c.op].family == "channels"]
    return cases + last


def test_the_byte_model_is_two_tensors_forward_and_three_backward() -> None:
    assert case(dtype="float32").bytes_moved == 2 * 8 * 16 * 4
    assert case(pass_="backward", dtype="float64").bytes_moved == 3 * 8 * 16 * 8


def test_case_id_and_layout() -> None:
    c = case("batch_norm", shape=(32, 64, 112, 96), preset="resnet50", layout="channels_last")
    assert c.id == "batch_norm/forward/resnet50/32x64x112x96/float32/channels_last"
    assert (c.array_shape, c.channel_axis) == ((32, 112, 96, 64), 3)
    assert dataclasses.replace(c, layout="contiguous").array_shape == c.shape


def test_tensors_that_take_turns_fill_the_cache_four_times() -> None:
    cache = 1 << 20
    for rows in (1000, 10**6):
        c = case(shape=(rows, 512))
        assert c.cold
        assert 4 * cache <= c.slots(cache) * c.bytes_moved < 4 * cache + c.bytes_moved
    assert case(shape=(33, 512)).slots(100 * cache) == MOST_SLOTS
    assert not case(shape=(32, 512)).cold
    assert case(shape=(32, 512)).slots(cache) == 1


# How it is measured


def test_contender_takes_arguments_in_turns_and_keeps_results() -> None:
    seen: list[int] = []
    outs: list[Any] = []

    def function(i: int, *, out: Any = None, flag: bool) -> list[int]:
        assert flag
        seen.append(i)
        outs.append(out)
        return [i]

    contender = Contender(function, [(0,), (1,), (2,)], {"flag": True})
    contender.warm_up()
    assert seen[:3] == [0, 1, 2]
    seen.clear()
    outs.clear()
    contender.calls = 4
    contender.fresh()
    assert outs == [None] * (2 + 4)
    contender.into_out()
    assert [out[0] for out in outs[6:]] == seen[6:]
    assert {(b - a) % 3 for a, b in pairwise(seen)} == {1}


def test_samples_are_taken_in_turns() -> None:
    order: list[str] = []

    def sample(name: str) -> float:
        order.append(name)
        return float(len(order))

    seconds = take_turns([lambda: sample("a"), lambda: sample("b")], Effort(seconds=1e9, least=1, most=3))
    assert "".join(order) == "ababab"
    assert seconds == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]


def test_repetitions_stay_within_their_limits() -> None:
    assert len(take_turns([lambda: 0.0], Effort(seconds=0, least=4, most=9))[0]) == 4
    assert len(take_turns([lambda: 0.0], Effort(seconds=1e9, least=4, most=9))[0]) == 9


@pytest.mark.parametrize("form", ["plain", "streaming"])
@pytest.mark.parametrize("threads", [1, 2])
def test_copy_copies(form: str, threads: int) -> None:
    copy = Copy(1 << 20, threads)
    assert copy.bytes_moved == 2 << 20
    copy.target.fill(0)
    assert getattr(copy, form)() > 0
    np.testing.assert_array_equal(copy.target, copy.source)


def test_the_copy_is_larger_than_the_cache_within_bounds() -> None:
    assert copy_bytes(1 << 20) == 64 << 20
    assert copy_bytes(32 << 20) == 128 << 20
    assert copy_bytes(1 << 30) == 256 << 20


def test_cache_sizes_count_every_cache_once(tmp_path: Path) -> None:
    for cpu in range(4):
        levels = [
            ("1", "Data", "32K", cpu),
            ("1", "Instruction", "64K", cpu),
            ("3", "Unified", "1024K", cpu // 2),
        ]
        for i, (level, kind, size, shared) in enumerate(levels):
            index = tmp_path / f"cpu{cpu}/cache/index{i}"
            index.mkdir(parents=True)
            for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
                (index / name).write_text(f"{text}\n")
    (tmp_path / "cpu0/cache/index9").mkdir()
    assert machine.cache_sizes(tmp_path) == ({"L1d": 32768, "L3": 1 << 20}, 2 << 20)
    assert last_level_cache(tmp_path / "cpu0/cache") == 1 << 20


def test_an_unknown_last_level_cache_is_taken_to_have_32_mb(tmp_path: Path) -> None:
    assert last_level_cache(tmp_path) == 32 << 20
    (tmp_path / "index0/size").mkdir(parents=True)
    assert last_level_cache(tmp_path) == 32 << 20


@pytest.mark.skipif(
    not Path("/sys/devices/system/cpu/cpu0/cache/index3/size").exists(), reason="no third level here"
)
def test_the_last_level_cache_is_that_of_this_machine() -> None:
    assert last_level_cache() >= machine.cache_sizes()[0]["L3"]


@pytest.mark.parametrize("c", small_cases(), ids=lambda c: c.id)
def test_measure(c: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("normkernels.bench.measure.BASELINE", ONCE)
    got = measure(c, Copy(1 << 16, 1), 1 << 20, ONCE, here={"numpy": NumPy(1)})
    got = got.beside(got.others, "numpy")
    assert 0 <= got.error <= check.tolerance(c)
    assert got.fresh.gbs == pytest.approx(c.bytes_moved / got.fresh.median / 1e9)
    assert got.fresh.fraction == pytest.approx(got.fresh.gbs / got.copy.best)
    assert got.baseline is not None
    assert got.ratio == pytest.approx(got.baseline.fresh.median / got.fresh.median)
    assert got.into_out.median > 0


@pytest.mark.parametrize("piece", [1, 40, 1 << 18])
@pytest.mark.parametrize("c", small_cases(), ids=lambda c: c.id)
def test_check_passes_in_pieces(c: Case, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "PIECE", piece)
    assert check.check(c, make_inputs(c)) <= check.tolerance(c)


@pytest.mark.parametrize("c", small_cases(), ids=lambda c: c.id)
@pytest.mark.parametrize("fault", [1e-3, np.nan])
def test_check_finds_one_wrong_element(c: Case, fault: float, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = NORMS[c.op].kernels
    fault *= 100 if c.dtype == "bfloat16" else 1
    for name in ("y",) if c.pass_ == "forward" else ("dx", *NORMS[c.op].parameters.values()):

        def call(*args: Any, **keywords: Any) -> Any:
            y = kernels.call(*args, **keywords).copy()
            y.flat[-1] += fault
            return y

        def backward(*args: Any, name: str = name, **keywords: Any) -> Any:
            grads = kernels.backward(*args, **keywords)
            wrong = getattr(grads, name).copy()
            wrong.flat[-1] += fault
            return grads._replace(**{name: wrong})

        monkeypatch.setattr(functional, c.op, call)
        monkeypatch.setattr(functional, f"{c.op}_backward", backward)
        with pytest.raises(check.Mismatch, match=f"{c.id} must agree with the reference"):
            check.check(c, make_inputs(c))


def test_check_finds_wrong_running_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    c, batch_norm = case("batch_norm", shape=(3, 5, 4, 2)), functional.batch_norm

    def call(*args: Any, **keywords: Any) -> Any:
        y = batch_norm(*args, **keywords)
        keywords["running_var"][0] += 0.01
        return y

    monkeypatch.setattr(functional, "batch_norm", call)
    with pytest.raises(check.Mismatch):
        check.check(c, make_inputs(c))


# What remains


def test_an_interrupted_write_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.json"
    path.write_text("before")

    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write(path, b"after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_means_are_geometric_and_weighted_by_count_over_cold_cases() -> None:
    rows = [row(0.5, ratio=2, count=3), row(1.0, ratio=16, count=1), row(0.01, ratio=1, cold=False, count=2)]
    average = summary.means(rows)
    assert average.fresh == pytest.approx(0.5 ** (3 / 4))
    assert average.into_out == pytest.approx(0.8)
    assert average.ratio == pytest.approx(math.exp((3 * math.log(2) + math.log(16)) / 6))
    assert summary.means(rows[2:]).fresh is None


def test_the_slowest_is_cold_and_furthest_from_the_limit() -> None:
    rows = [row(0.5), row(0.3), row(0.1, cold=False)]
    assert summary.slowest(rows) is rows[1]
    assert summary.slowest(rows[2:]) is None


@pytest.mark.parametrize(
    ("seconds", "like", "text"),
    [
        (0.0012345, None, "1.23 ms"),
        (0.000123, 0.0012, "0.123"),
        (12e-9, None, "12 ns"),
        (1234.0, None, "1234 s"),
    ],
)
def test_durations(seconds: float, like: float | None, text: str) -> None:
    assert summary.duration(seconds, like) == text


def printed(outcome: Results) -> str:
    stream = io.StringIO()
    table.show(outcome, Console(file=stream, width=80))
    return stream.getvalue()


def test_the_table_fits_a_terminal_and_marks_the_slowest() -> None:
    wide = {
        "op": "batch_norm",
        "shape": (96, 1280, 112, 112),
        "count": 16,
        "preset": "mobilenet_v2",
        "batch": 96,
    }
    text = printed(made([row(0.91, **wide), row(0.42, **wide), row(0.2, cold=False, **wide)]))
    assert "…" not in text
    assert text.count("◀ 0.") == text.count("◀ 0.42") == 1
    assert all(explained in text for explained in ("× 6: ", "p10–p90: ", "◀ is ", "into out: "))
    assert "mobilenet_v2, N=96" in text
    assert "too/large" in text


def test_markdown_replaces_only_what_is_between_the_markers(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n{markdown.START}\nold\n{markdown.END}\nend\n")
    outcome = made([row(0.5, preset="gpt2", batch=1), row(0.7, pass_="backward", preset="gpt2", batch=1)])
    markdown.update(page, outcome)
    first = page.read_text()
    assert first.startswith(f"# Title\n{markdown.START}\n")
    assert first.endswith(f"{markdown.END}\nend\n")
    assert "old" not in first
    assert "`normkernels bench --preset gpt2 --quick`" in first
    assert "| layer_norm, float32 | gpt2 | 0.50 | 0.80 | 2.0× | 0.70 | 0.80 | 2.0× |" in first
    markdown.update(page, outcome)
    assert page.read_text() == first


@pytest.mark.parametrize("text", ["", markdown.START, f"{markdown.END} {markdown.START}"])
def test_a_page_without_markers_stays_as_it_is(text: str, tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(text)
    with pytest.raises(markdown.MarkersMissing, match="must hold"):
        markdown.update(page, made([row()]))
    assert page.read_text() == text


@pytest.mark.parametrize("rows", [[row(), row(0.7, pass_="backward")], [row(cold=False)]])
def test_the_plot_is_a_png(rows: list[Row], tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    plot.plot(made(rows), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [path]


def test_slices_of_one_element_agree_with_the_reference() -> None:
    """Nothing is left of their gradient, and of its terms what rounding leaves."""
    some = Case("weight_norm", "backward", (4096,))
    check.check(some, make_inputs(some))
