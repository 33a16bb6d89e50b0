"""Libraries to compare with: what each has, what is refused, and what is shown. No test asserts a time."""

import dataclasses
import io
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("yaml")

from rich.console import Console

import bench_peers
from bench_examples import case, made, row
from normkernels.bench import markdown, peers, results, summary, table
from normkernels.bench.cases import PIPELINE, Case
from normkernels.bench.condition import in_condition
from normkernels.bench.copy import Copy
from normkernels.bench.inputs import copied, make_inputs
from normkernels.bench.peers import PEERS, Entry, worker
from normkernels.bench.peers.choice import chosen
from normkernels.bench.peers.peer import Peer, verify
from normkernels.bench.peers.with_numpy import NumPy
from normkernels.bench.selection import BadOption
from normkernels.bench.timing import Contender, Effort
from normkernels.norms import NORMS

ONCE = Effort(seconds=0, least=1, most=1)
SHAPES = {"rows": (7, 33), "groups": (3, 5, 4, 2), "windows": (3, 5, 4, 2), "channels": (3, 5, 4, 2)}
CASES = [
    Case(op, pass_, SHAPES[spec.family], layout=layout)
    for op, spec in NORMS.items()
    for pass_ in ("forward", "backward")
    for layout in ("contiguous", "channels_last")
    if layout == "contiguous" or spec.family in ("groups", "channels")
]
CASES += [  # images, over their channels
    Case(op, pass_, SHAPES["channels"])
    for op in ("layer_norm", "rms_norm")
    for pass_ in ("forward", "backward")
]
CASES += [
    dataclasses.replace(c, evaluation=True) for c in CASES if (c.op, c.pass_) == ("batch_norm", "forward")
]
SLOW = ("jax", "torch.compile")  # they compile every case


MARKED = [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in PEERS]


@pytest.fixture(scope="module", params=MARKED)
def peer(request: pytest.FixtureRequest) -> tuple[str, Peer]:
    for package in PEERS[request.param].needs:
        pytest.importorskip(package, exc_type=ImportError)
    return request.param, PEERS[request.param].make(1)


def given(c: Case, library: Peer, slots: int = 2) -> tuple[Any, Any, Contender]:
    inputs = make_inputs(c)
    own = dataclasses.replace(inputs, arguments=copied(inputs.arguments))
    return inputs, own, library.contender(c, own, slots)


# What each library has

HAS_NOT = {
    "numpy": set(),
    "torch": {"batch_renorm"},
    "torch.compile": {"batch_renorm"},
    "onnxruntime": {"weight_norm", "batch_renorm"},
    "openvino": {"weight_norm", "batch_renorm"},
    "jax": {"batch_renorm"},
}


def test_each_says_which_norms_it_has(peer: tuple[str, Peer]) -> None:
    name, library = peer
    cases = [Case(op, "forward", SHAPES[spec.family]) for op, spec in NORMS.items()]
    assert {c.op for c in cases if not library.has(c)} == HAS_NOT[name]
    images = Case("layer_norm", "forward", SHAPES["channels"])
    assert library.has(images) == (name not in ("onnxruntime", "openvino"))
    backward = any(library.has(dataclasses.replace(c, pass_="backward")) for c in CASES)
    assert backward == (name not in ("onnxruntime", "openvino"))
    assert library.has(case(fuse="relu")) == library.has(case(dtype="bfloat16")) == (name == "numpy")


@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor:UserWarning"
)  # while torch.compile traces
@pytest.mark.parametrize("c", CASES, ids=lambda c: c.id)
def test_each_computes_the_same_case_in_its_own_memory(peer: tuple[str, Peer], c: Case) -> None:
    """And what it says it reads and writes is what it does: a pipeline uses both."""
    library = peer[1]
    if not library.has(c):
        return
    inputs, own, contender = given(c, library)
    assert verify(library, c, inputs, own, contender) < 1e-4
    last = contender.call(1)
    want = np.array(next(iter(library.results(c, own, last).values())))
    assert sorted(np.ravel(contender.array(last))) == sorted(np.ravel(want))
    contender.reads[1][...] = 0
    assert not np.array_equal(np.array(contender.array(contender.call(1))), want)


# Which are measured


def without(packages: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name in packages else object())


def test_what_is_not_installed_is_named_and_the_others_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    without({"onnx", "onnxruntime", "jax"}, monkeypatch)
    names, notes = chosen(["all"], [])
    assert names == ["numpy", "torch", "torch.compile"]
    assert notes == [
        "ONNX Runtime was not measured: it needs pip install onnx onnxruntime",
        "OpenVINO was not measured: it needs pip install onnx",
        "JAX was not measured: it needs pip install jax",
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ([], ["numpy"]),
        (["none"], []),
        (["jax,torch", "numpy", "torch"], ["jax", "torch", "numpy"]),
        (["steps,all"], ["steps", *PEERS]),
    ],
)
def test_names_are_taken_in_order_and_once(
    words: list[str], names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without(set(), monkeypatch)
    assert chosen(words, ["relu"]) == (names, [])


def test_nothing_to_compare_with_is_an_error(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    without({"torch"}, monkeypatch)
    shown = normkernels("bench", "--baseline", "torch")
    why = "PyTorch was not measured: it needs pip install torch"
    rule = f"normkernels: --against must name a library that is installed; {why}\n"
    assert (shown.code, shown.out, shown.err) == (2, "", rule)
    with pytest.raises(BadOption, match="--against steps needs --fuse"):
        chosen(["steps"], [])


# In a process of its own


OTHER_NORMS = """
def set_threads(threads):
    assert threads == 2

def layer_norm(x, weight, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / (centred.var(-1, keepdims=True) + 1e-5) ** 0.5 * weight + bias
"""


def test_a_library_is_one_class_and_a_line(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """That of CONTRIBUTING has its column and its numbers; one that ends, or does not start, is named."""
    here = Path(__file__).parent
    peer_class, line = re.findall("```python\n(.*?)```", (here.parent / "CONTRIBUTING.md").read_text(), re.S)
    (tmp_path / "other_norms.py").write_text(OTHER_NORMS)
    (tmp_path / "other_peer.py").write_text(peer_class)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{here}", prepend=":")
    for name in ("other_norms", "dying", "failing"):
        monkeypatch.setitem(PEERS, name, Entry(name.capitalize(), f"bench_peers:{name.capitalize()}"))
    exec(line, {"PEERS": PEERS, "Entry": Entry})

    names = ["--against", "numpy,other_norms", "--against", "dying,failing", "--threads", "2"]
    words = "bench --quick --shape 3x8 --op layer_norm --json r.json".split()
    shown = normkernels(*words, *names)
    assert shown.code == 0, shown.err
    said = " ".join(shown.out.split())
    assert "than NumPy norms fastest" in said
    assert "vs Other norms: forward" in said
    assert "fastest, by cases: " in said
    assert "the Dying process ended with code 3 at layer_norm/forward/shape/3x8/float32: Dying" in said
    assert "Failing was not measured: it did not start: RuntimeError: no compiler was found" in said
    forward, backward = results.load(Path("r.json")).rows
    assert [each.name for each in forward.baselines] == ["numpy", "other_norms"]
    assert [each.name for each in backward.baselines] == ["numpy"]
    fresh = forward.baselines[1].fresh
    assert fresh.gbs == pytest.approx(forward.case.bytes_moved / fresh.median / 1e9)


def measured(library: Peer, c: Case) -> dict[str, Any]:
    """What a worker says of a case, in this process."""
    ask = partial(worker.measure, "it", library, c, Copy(1 << 16, 1), 1 << 16, ONCE)
    return worker.answer(lambda: results.as_json(ask()), c.id)


def test_a_library_that_computes_something_else_is_not_timed() -> None:
    assert measured(NumPy(1), case())["answer"]["name"] == "it"
    problem = measured(bench_peers.Wrong(1), case())["problem"]
    assert problem.startswith(f"{case().id} must agree with the reference to 9.8e-04, got ")


def test_rounding_of_a_library_is_no_other_result() -> None:
    class Rounding(NumPy):
        slack = Peer.slack

        def results(self, case: Case, inputs: Any, result: Any) -> Any:
            return {"y": result * (1 + 1e-4)}

    assert "answer" in measured(Rounding(1), case())
    Rounding.slack = 1.0
    assert "problem" in measured(Rounding(1), case())


# What is shown


def beside(ratios: dict[str, float], **more: Any) -> results.Row:
    """A row of which the kernels are so many times faster than each library."""
    made_row = row(**more)
    assert made_row.baseline is not None
    found = []
    for name, ratio in ratios.items():
        there = dataclasses.replace(made_row.fresh, median=ratio, fraction=made_row.fresh.fraction / ratio)
        found.append(dataclasses.replace(made_row.baseline, name=name, fresh=there))
    return made_row.beside(found, next(iter(ratios)))


ROWS = [
    beside({"numpy": 4.0, "torch": 0.5, "jax": 2.0}),
    beside({"numpy": 4.0, "jax": 1.5}, shape=(8, 17)),
    beside({"torch": 8.0}, shape=(8, 18)),
]


def test_who_is_fastest_of_several() -> None:
    assert [summary.winner(r) for r in ROWS] == ["torch", "normkernels", "normkernels"]
    assert summary.wins(ROWS) == [("normkernels", 2), ("torch", 1)]
    shown = summary.against(made(ROWS))
    assert shown is not None
    assert (shown.title, [shown.ratio(r) for r in ROWS]) == ("fastest", [0.5, 1.5, 8.0])
    alone = summary.against(made([ROWS[2]]))
    assert alone is not None
    assert alone.title == "PyTorch"


def test_tables_have_a_column_for_each_library_and_one_for_the_fastest() -> None:
    stream = io.StringIO()
    table.show(made(ROWS), Console(file=stream, width=80))
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert "than NumPy PyTorch JAX fastest" in lines
    assert "8x16 4.0× 0.5× 2.0× PyTorch" in lines
    assert "8x17 4.0× – 1.5× normkernels" in lines
    assert "vs PyTorch: forward 2.0×; slower in 1 of 2 cases" in lines
    assert "fastest, by cases: normkernels 2, PyTorch 1" in lines
    page = markdown.render(made(ROWS))
    assert "| vs NumPy | vs PyTorch | vs JAX | fastest |" in page
    assert "| 4.0× | 0.5× | 2.0× | PyTorch |" in page
    assert "forward: vs fastest" in page


def test_the_longest_names_fit_a_terminal() -> None:
    stream = io.StringIO()
    wide = {
        "op": "batch_norm",
        "shape": (96, 1280, 112, 112),
        "count": 16,
        "preset": "mobilenet_v2",
        "batch": 96,
    }
    table.show(made([beside(dict.fromkeys(PEERS, 12.3), **wide)]), Console(file=stream, width=80))
    assert "…" not in stream.getvalue()


# In the pipeline


def test_in_a_pipeline_x_was_just_written_and_y_is_read() -> None:
    events: list[tuple[str, float]] = []
    xs = [np.full(4, 1.0), np.full(4, 2.0)]

    def norm(x: Any, out: Any = None) -> Any:
        events.append(("fresh" if out is None else "out", x[0]))
        return 10 * x if out is None else np.multiply(x, 10, out=out)

    contender = Contender(norm, [(x,) for x in xs], {}, reads=xs)
    contender.warm_up()
    assert contender.calls == 1
    assert in_condition(case(), contender) is contender
    pipeline = in_condition(case(condition=PIPELINE), contender)
    events.clear()
    assert pipeline.fresh() > 0
    assert pipeline.into_out() > 0
    # once untimed, once timed, once without the norm: every time the layer before changes the sign
    assert events == [("fresh", -1.0), ("fresh", -2.0), ("out", 2.0), ("out", -1.0)]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_the_layer_before_changes_the_sign(dtype: str) -> None:
    import ml_dtypes

    from normkernels.bench.condition import before

    x = np.array([[1.5, -2.0], [0.0, 3.0]]).astype(ml_dtypes.finfo(dtype).dtype).T
    want = (-x).astype(np.float64)
    before(x)
    np.testing.assert_array_equal(x.astype(np.float64), want)
