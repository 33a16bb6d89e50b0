"""The `normkernels` command as a user meets it."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

from normkernels import cli, functional
from normkernels.bench import commands, markdown, results, run
from normkernels.norms import NORMS


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def normkernels(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Any:
    """Run the command in an empty folder, with a small copy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "copy_bytes", lambda cache_bytes: 1 << 20)

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["normkernels", *arguments])
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        return Outcome(code, *capsys.readouterr())

    return call


def test_help_and_version(normkernels: Any) -> None:
    assert "bench" in normkernels().out
    shown = normkernels("bench", "--help")
    assert shown.code == 0
    for option in "op pass preset shape batch dtype layout threads baseline quick json plot markdown".split():
        assert f"--{option}" in shown.out
    assert normkernels("--version").code == 0


def test_list_names_norms_and_shapes(normkernels: Any) -> None:
    shown = normkernels("list")
    assert shown.code == 0
    assert all(op in shown.out for op in NORMS)
    assert "32x64x112x112" in shown.out
    assert "rms_norm" in NORMS or "rms_norm" not in shown.out


def test_info_describes_the_machine(normkernels: Any) -> None:
    shown = normkernels("info")
    assert shown.code == 0
    for word in ("cpu", "L1d", "threading layer", "numba", "NORMKERNELS_BUFFER_BYTES"):
        assert word in shown.out


def test_bench_writes_what_it_measured(normkernels: Any) -> None:
    page = Path("page.md")
    page.write_text(f"{markdown.START}\n{markdown.END}\n")
    files = ("--json", "r.json", "--plot", "p.png", "--markdown", str(page))
    shown = normkernels("bench", "--quick", "--shape", "3x8", "--dtype", "float64", *files)
    assert (shown.code, shown.err) == (0, "")
    outcome = results.load(Path("r.json"))
    assert {(row.case.op, row.case.pass_) for row in outcome.rows} == {
        (op, pass_) for op in NORMS for pass_ in ("forward", "backward")
    }
    assert all(row.case.shape == (3, 8) and row.case.dtype == "float64" for row in outcome.rows)
    assert all(row.ratio and row.ratio > 0 for row in outcome.rows)
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert "normkernels bench --shape 3x8 --dtype float64 --quick`" in page.read_text()
    for op in NORMS:
        assert f"{op} backward, float64" in shown.out
    assert sorted(p.name for p in Path().iterdir()) == ["p.png", "page.md", "r.json"]


def test_bench_threads_and_no_baseline(normkernels: Any) -> None:
    import numba

    before = numba.get_num_threads()
    shown = normkernels(
        "bench", "--quick", "--shape", "3x8", "--threads", "1", "--baseline", "none", "--json", "r"
    )
    assert shown.code == 0
    outcome = results.load(Path("r"))
    assert outcome.machine.threads == 1
    assert all(row.baseline is None for row in outcome.rows)
    assert "NumPy" not in shown.out
    assert numba.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "rule", "value"),
    [
        (["--frobnicate"], "No such option", "--frobnicate"),
        (["--op", "foo"], "--op must be one of", "foo"),
        (["--shape", "0x3"], "--shape must be positive sizes", "0x3"),
        (["--shape", "8", "--op", "batch_norm"], "--shape of batch_norm must be NxC", "8"),
        (["--threads", "99999"], "--threads must be between 1 and", "99999"),
        (["--threads", "0"], "--threads must be between 1 and", "0"),
        (["--batch", "many"], "--batch", "many"),
        (["--baseline", "foo"], "--baseline must be one of numpy, torch, none", "foo"),
        (["--json", "nowhere/r.json"], "--json must name a file in a writable folder", "nowhere/r.json"),
        (["--plot", "."], "--plot must name a file in a writable folder", "."),
        (["--markdown", "none.md"], "--markdown must name a readable page", "none.md"),
        (["--shape", "99999999x99999"], "must fit into the memory available", "99999999x99999"),
    ],
)
def test_a_bad_option_gets_one_line_and_code_2(
    normkernels: Any, arguments: list[str], rule: str, value: str
) -> None:
    shown = normkernels("bench", *arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert rule in shown.err
    assert value in shown.err.rpartition(rule)[2] or arguments[0] == "--batch"


def test_unknown_command(normkernels: Any) -> None:
    shown = normkernels("frobnicate")
    assert (shown.code, shown.err.count("\n")) == (2, 1)


def test_pytorch_must_be_there(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "available", lambda: False)
    shown = normkernels("bench", "--baseline", "torch")
    assert (shown.code, shown.err) == (2, "normkernels: --baseline torch needs PyTorch: pip install torch\n")


def test_a_wrong_result_is_not_timed(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer_norm = functional.layer_norm
    monkeypatch.setattr(functional, "layer_norm", lambda *a, **k: layer_norm(*a, **k) * 2)
    shown = normkernels("bench", "--quick", "--shape", "3x8", "--json", "r.json")
    assert shown.code == 1
    assert "layer_norm/forward/shape/3x8/float32 must agree with the reference" in shown.err
    assert "got 1.0e+00" in shown.err
    assert not list(Path().iterdir())


def test_an_interrupt_leaves_no_file(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **keywords: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "measure", interrupted)
    shown = normkernels("bench", "--quick", "--json", "r.json", "--plot", "p.png")
    assert shown.code == 130
    assert shown.err.endswith("normkernels: interrupted\n")
    assert not list(Path().iterdir())


def test_what_does_not_fit_is_skipped_and_said(normkernels: Any) -> None:
    shown = normkernels(
        "bench", "--quick", "--shape", "3x8", "--shape", "99999999x99999", "--op", "layer_norm"
    )
    assert shown.code == 0
    assert "skipped, memory too small: layer_norm/forward/shape/99999999x99999" in shown.out


@pytest.mark.parametrize("package", cli.BENCH)
def test_without_the_extra_one_line_says_what_to_install(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in list(sys.modules):
        if name.startswith("normkernels.bench") or name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    shown = normkernels("bench", "--plot", "p.png", "--shape", "3x8")
    assert shown.code == 2
    assert shown.err == f"normkernels: {package} is missing: pip install 'normkernels[bench]'\n"
