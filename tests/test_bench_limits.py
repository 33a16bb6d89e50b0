"""The limit of two phases, the pipeline, and the preset everyday. No test asserts a time."""

import dataclasses
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("yaml")

from rich.console import Console

from bench_examples import made, row
from normkernels.bench import check, markdown, phases, plot, results, table
from normkernels.bench.cases import Case
from normkernels.bench.copy import Copy
from normkernels.bench.inputs import make_inputs
from normkernels.bench.measure import measure
from normkernels.bench.phases import BLOCKS, LEAST, TWICE, Phases
from normkernels.bench.report import charts, data, sheet
from normkernels.bench.report.entries import Other
from normkernels.bench.report.page import columns, render
from normkernels.bench.selection import BadOption, Selection, select
from normkernels.bench.timing import Effort
from normkernels.norms import NORMS

ONCE = Effort(seconds=0, least=1, most=1)


@pytest.fixture(scope="module")
def copy() -> Copy:
    made_copy = Copy(1 << 20, 1)
    made_copy.source[:] = np.random.default_rng(0).standard_normal(made_copy.source.size, np.float32)
    return made_copy


@pytest.mark.parametrize("fuse", ["", "residual+sum"])
@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("shape", [(16, 4096), (16, 5000), (4, 64, 30, 10)])
def test_phases_read_all_and_write_what_they_read(
    copy: Copy, shape: tuple[int, ...], pass_: str, fuse: str
) -> None:
    """Of a forward one tensor is read and one written, of a backward two and one; with a sum more of both."""
    case = Case("layer_norm", pass_, shape, fuse=fuse)
    limit = Phases(case, make_inputs(case).arguments, copy)
    tensors = NORMS[case.op].tensors(pass_, case.fused)
    for form in limit.contenders():
        copy.target.fill(0)
        targets = form.once()
        (sources, _) = form.arguments[0]
        n = form.array(targets).size
        assert 0.9 * math.prod(shape) <= n <= math.prod(shape)
        assert sources.size + targets.size == tensors * n
        np.testing.assert_array_equal(
            targets.reshape(-1, n), np.broadcast_to(sources[-n:], (targets.size // n, n))
        )
        assert np.shares_memory(form.reads[0], sources)
        # what is left of reading: of the last block, of the source before the one that is copied
        last = n // limit._block - 1
        read = sources[max(0, sources.size - 2 * n) :][:n][last * limit._block :]
        assert limit._sums[last % 64 * phases.STEP] == pytest.approx(read.sum(), abs=1e-2)


def blocks(op: str, shape: tuple[int, ...], layout: str = "contiguous", room: int = 1 << 30) -> Any:
    case = Case(op, "forward", shape, layout=layout)
    return phases._blocks(case, make_inputs(case).arguments, 2, room)


def test_a_block_is_what_shares_its_statistics_or_all_columns() -> None:
    assert blocks("layer_norm", (100, 8192)) == (100 * 8192, 8192, BLOCKS)
    assert blocks("layer_norm", (8192, 100)) == (200 * LEAST, LEAST, BLOCKS)
    assert blocks("group_norm", (2, 64, 64, 64)) == (64 * 8192, 8192, BLOCKS)
    assert blocks("instance_norm", (2, 8, 128, 128)) == (16 * 16384, 16384, BLOCKS)
    assert blocks("batch_norm", (4, 8, 64, 64)) == (8 * 16384, 16384, BLOCKS)
    assert blocks("weight_norm", (8, 16384)) == (8 * 16384, 16384, BLOCKS)
    assert blocks("batch_norm", (4, 8, 64, 64), "channels_last") == (32 * LEAST, LEAST, TWICE)
    assert blocks("batch_norm", (1024, 512)) == (128 * LEAST, LEAST, TWICE)
    assert blocks("local_response_norm", (4, 8, 64, 64)) == (32 * LEAST, LEAST, phases.ONCE)
    evaluation = Case("batch_norm", "forward", (1024, 512), evaluation=True)
    assert phases._blocks(evaluation, {}, 2, 1 << 30) == (128 * LEAST, LEAST, phases.ONCE)
    # fewer blocks than threads are shared out, and what has no room is made smaller
    assert blocks("layer_norm", (1, 1 << 20)) == (1 << 20, LEAST, TWICE)
    assert blocks("layer_norm", (100, 8192), room=20_000) == (2 * 8192, 8192, BLOCKS)


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("condition", ["cold", "pipeline"])
def test_a_large_case_has_both_limits_in_both_conditions(
    copy: Copy, condition: str, pass_: str, tmp_path: Path
) -> None:
    case = Case("layer_norm", pass_, (64, 300), condition=condition)
    row = measure(case, copy, 1 << 20, ONCE)
    assert row.error <= check.tolerance(case)
    assert row.phases is not None
    assert row.of_phases == pytest.approx(row.phases.median / row.fresh.median)
    assert row.phases.gbs == pytest.approx(case.bytes_moved / row.phases.median / 1e9)
    assert row.into_out.median > 0
    results.save(made([row]), tmp_path / "r.json")
    (again,) = results.load(tmp_path / "r.json").rows
    assert again == row
    assert again.case.id == f"layer_norm/{pass_}/shape/64x300/float32" + "/pipeline" * (
        condition == "pipeline"
    )


def test_a_small_case_has_no_second_limit(copy: Copy) -> None:
    row = measure(Case("layer_norm", "forward", (3, 300)), copy, 1 << 20, ONCE)
    assert (row.phases, row.of_phases) == (None, None)


def test_the_second_limit_is_in_every_table_and_chart(tmp_path: Path) -> None:
    with_limit = dataclasses.replace(row(0.5), phases=results.Timing(0.8, 0.8, 0.8, 6.25, 0.625))
    outcome = made([with_limit, row(0.5, shape=(8, 32))])
    stream = io.StringIO()
    table.show(outcome, Console(file=stream, width=80))
    (line,) = [line.split() for line in stream.getvalue().splitlines() if line.startswith("   8x16")]
    assert line[-4:] == ["0.50", "0.80", "0.80", "2.0×"]  # of copy, of phases, into out, vs NumPy
    page = markdown.render(outcome)
    assert "| of copy, fresh | of phases | of copy, into `out` |" in page
    assert "| 0.50 | 0.80 | 0.80 | 2.0× |" in page
    assert "of phases" not in markdown.render(made([row()]))

    found = data.report("title", [(Path("r.json"), outcome)])
    limits = [entry.limit for entry in found.entries]
    assert limits == [Other("two phases", 6.25, 0.625, 0.8), None]
    assert "0.80 of two phases" in found.entries[0].tip
    assert "of phases" in [heading for heading, _ in columns(found)]
    assert 'data-of="of phases"' in render(found)
    assert [line.split(",")[-3] for line in sheet.render(found).splitlines()] == ["of_phases", "0.8", ""]
    for name in ("speed", "size"):
        figure = charts.DRAWN[name](found)
        assert figure is not None
        labels = [*figure.axes[0].get_legend_handles_labels()[1]]
        assert "two phases" in labels, name
    plot.plot(outcome, tmp_path / "p.png")


def test_conditions_are_measured_beside_each_other(normkernels: Any) -> None:
    words = "bench --quick --shape 300x64 --op layer_norm --pass forward --against none --json r.json".split()
    shown = normkernels(*words, "--condition", "cold", "--condition", "pipeline")
    assert shown.code == 0, shown.err
    titles = [line.strip() for line in shown.out.splitlines() if line.startswith("layer_norm")]
    assert titles == ["layer_norm forward, float32", "layer_norm forward, float32, pipeline"]
    assert "of phases: the time of the passes without arithmetic" in " ".join(shown.out.split())
    assert "pipeline: between a layer that has just written" in " ".join(shown.out.split())
    assert [row.case.condition for row in results.load(Path("r.json")).rows] == ["cold", "pipeline"]


def test_everyday_has_what_layers_of_models_do_not_show() -> None:
    cases = select(Selection(presets=["everyday"], passes=["forward"]))
    sizes = {case.shape[1] for case in cases if len(case.shape) == 2}
    assert {case.op for case in cases} >= {
        "layer_norm",
        "rms_norm",
        "batch_norm",
        "group_norm",
        "instance_norm",
    }
    assert min(sizes) <= 3
    assert max(sizes) <= 1024
    assert any(case.layout == "channels_last" for case in cases)
    assert any(not case.cold for case in cases)
    assert {(1, 32), (2, 1024)} <= {case.shape for case in cases}
    assert any(case.shape[0] <= 4 and len(case.shape) == 4 for case in cases)
    assert {case.op for case in select(Selection(presets=["everyday"])) if case.evaluation} == {"batch_norm"}
    assert {case.id for case in cases} <= {case.id for case in select(Selection())}
    assert {case.id for case in cases} <= {case.id for case in select(Selection(presets=["all"]))}


def test_evaluation_is_a_forward_with_given_statistics(copy: Copy) -> None:
    cases = select(Selection(passes=["evaluation"], shapes=["300x64"]))
    assert [case.id for case in cases] == [
        f"{op} evaluation/forward/shape/300x64/float32" for op in ("batch_norm", "batch_renorm")
    ]
    inputs = make_inputs(cases[0])
    assert inputs.arguments["training"] is False
    assert measure(cases[0], copy, 1 << 20, ONCE).error <= check.tolerance(cases[0])
    y = NORMS["batch_norm"].kernels.call(inputs.x, **inputs.arguments)
    eps, weight, bias = 1e-5, inputs.arguments["weight"], inputs.arguments["bias"]
    np.testing.assert_allclose(y, inputs.x / np.sqrt(1 + eps) * weight + bias, atol=1e-5)


def test_the_layout_of_a_preset_holds_beside_that_of_the_user() -> None:
    both = select(Selection(ops=["batch_norm"], presets=["everyday"], layout="channels_last"))
    assert {case.layout for case in both} == {"channels_last"}
    assert {len(case.shape) for case in both} == {4}
    with pytest.raises(BadOption, match="needs a norm over channels, not local_response_norm"):
        select(Selection(ops=["local_response_norm"], shapes=["2x3x4x5"], layout="channels_last"))
