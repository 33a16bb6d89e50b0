"""The `normkernels` command as a user meets it."""

import os
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("click")
pytest.importorskip("rich")

import normkernels as nk
from normkernels import cli, functional
from normkernels.bench import commands, files, markdown, progress, results, run
from normkernels.bench.presets import presets
from normkernels.bench.selection import DEFAULT, QUICK, BadOption, Selection, parse_shape, select
from normkernels.norms import NORMS

# One case, measured in no time.
SMALL = "bench --quick --shape 3x8 --op layer_norm --pass forward --baseline none".split()
MEASURING = "normkernels: measuring layer_norm/forward/shape/3x8/float32 (1 of 1)\n"


def test_help_and_version(normkernels: Any) -> None:
    assert "bench" in normkernels().out
    shown = normkernels("bench", "--help")
    assert shown.code == 0
    options = (
        "op pass preset shape batch dtype layout fuse threads against baseline condition quick json plot"
    )
    for option in [*options.split(), "markdown"]:
        assert f"--{option}" in shown.out
    assert normkernels("--version").code == 0


def test_help_says_what_repeats_and_what_is_replaced(normkernels: Any) -> None:
    text = " ".join(normkernels("bench", "--help").out.split())
    *others, last = [option.opts[0] for option in commands.bench.params if getattr(option, "multiple", False)]
    assert f"{', '.join(others)} and {last} may be given several times" in text
    assert "a name from `normkernels list`" in text
    assert "without --op for every norm that takes it" in text
    assert f"all between {markdown.START} and {markdown.END} is replaced" in text


def test_list_names_norms_and_shapes(normkernels: Any) -> None:
    shown = normkernels("list")
    assert shown.code == 0
    assert all(op in shown.out for op in NORMS)
    assert "32x64x112x112" in shown.out
    assert "batch_norm  everyday, batch 48, channels_last\n    1 × 48x40x75x75\n" in shown.out
    assert "batch_norm  everyday, evaluation\n" in shown.out
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
    shown = normkernels("bench", "--quick", "--shape", "3x8x2", "--dtype", "float64", *files)
    assert shown.code == 0
    *measuring, _, _, _ = lines = shown.err.splitlines()
    assert lines[-3:] == [f"normkernels: wrote {name}" for name in files[1::2]]
    outcome = results.load(Path("r.json"))
    steps = len(outcome.rows)
    assert measuring == [
        f"normkernels: measuring {row.case.id} ({i + 1} of {steps})" for i, row in enumerate(outcome.rows)
    ]
    assert {(row.case.op, row.case.pass_) for row in outcome.rows} == {
        (op, pass_) for op in NORMS for pass_ in ("forward", "backward")
    }
    assert all(row.case.shape == (3, 8, 2) and row.case.dtype == "float64" for row in outcome.rows)
    assert all(row.ratio and row.ratio > 0 for row in outcome.rows)
    assert Path("p.png").read_bytes().startswith(b"\x89PNG")
    assert "normkernels bench --shape 3x8x2 --dtype float64 --quick`" in page.read_text()
    for op in NORMS:
        assert f"{op} backward, float64" in shown.out
    assert sorted(p.name for p in Path().iterdir()) == ["p.png", "page.md", "r.json"]


@pytest.mark.parametrize("steps", [1, 2, progress.LINES, 97, 1000])
def test_a_log_has_some_lines_of_a_long_run(steps: int) -> None:
    told = [n for n in range(steps) if progress.told(n, steps)]
    assert len(told) == min(steps, progress.LINES)
    assert told[0] == 0
    assert all(b - a <= -(-steps // progress.LINES) for a, b in zip(told, [*told[1:], steps], strict=True))


def test_quiet_is_quiet(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NORMKERNELS_QUIET", "1")
    shown = normkernels(*SMALL, "--json", "r.json")
    assert (shown.code, shown.err) == (0, "")


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
        (["--baseline", "foo"], "--against must be none, all, or of steps, numpy, torch", "foo"),
        (["--against", "none,torch"], "--against must be none, all, or of", "none,torch"),
        (["--condition", "warm"], "--condition must be one of cold, pipeline", "warm"),
        (["--json", "nowhere/r.json"], "--json must name a file that can be written", "nowhere/r.json"),
        (["--json", ""], "--json must name a file", "''"),
        (["--plot", "."], "--plot must name a file that can be written", "."),
        (["--plot", "p.xyz"], "--plot must name a .png file", "p.xyz"),
        (["--json", "p.png", "--plot", "./p.png"], "--plot must name another file than --json", "p.png"),
        (["--markdown", "none.md"], "--markdown must name a readable page", "none.md"),
        (["--shape", "99999999x99999"], "must fit into the memory available", "99999999x99999"),
        (["--shape", "9" * 400], "must fit into the memory available", "which needs more than 1000 TB\n"),
    ],
)
def test_a_bad_option_gets_one_line_and_code_2(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str], rule: str, value: str
) -> None:
    monkeypatch.setattr(commands, "run", None)  # nothing is measured before
    shown = normkernels("bench", *arguments)
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert rule in shown.err
    assert value in shown.err.rpartition(rule)[2] or arguments[0] == "--batch"


def test_unknown_command(normkernels: Any) -> None:
    shown = normkernels("frobnicate")
    assert (shown.code, shown.err.count("\n")) == (2, 1)


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


# The files it writes


def test_a_link_is_followed_and_a_mode_is_kept(normkernels: Any, tmp_path: Path) -> None:
    real = tmp_path / "folder" / "real.json"
    real.parent.mkdir()
    real.write_text("before")
    real.chmod(0o600)
    Path("link.json").symlink_to(real)
    Path("new.png").symlink_to("folder/new.png")
    assert normkernels(*SMALL, "--json", "link.json", "--plot", "new.png").code == 0
    assert Path("link.json").readlink() == real
    assert results.load(real).rows
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert Path("new.png").is_symlink()
    assert Path("folder/new.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in real.parent.iterdir()) == ["new.png", "real.json"]


def test_what_is_no_regular_file_is_written_to(normkernels: Any) -> None:
    os.mkfifo("fifo")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(Path("fifo").read_bytes()), daemon=True)
    reader.start()
    shown = normkernels(*SMALL, "--json", "fifo")
    reader.join(timeout=10)
    assert (shown.code, shown.err) == (0, f"{MEASURING}normkernels: wrote fifo\n")
    assert stat.S_ISFIFO(Path("fifo").stat().st_mode)
    Path("r.json").write_bytes(read[0])
    assert results.load(Path("r.json")).rows


def test_a_file_that_standard_output_goes_to_holds_nothing_else(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("r.json", "wb") as stream:
        monkeypatch.setattr(files, "STDOUT", stream.fileno())
        inode = Path("r.json").stat().st_ino
        shown = normkernels(*SMALL, "--json", "r.json")
    assert (shown.code, shown.out) == (0, "")
    assert "layer_norm forward" in shown.err
    assert "wrote" not in shown.err
    assert Path("r.json").stat().st_ino == inode
    assert results.load(Path("r.json")).rows


@pytest.mark.parametrize(("option", "name"), [("--json", "r.json"), ("--plot", "p.png"), ("--markdown", "p")])
def test_a_protected_file_stays_even_for_root(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, option: str, name: str
) -> None:
    monkeypatch.setattr(commands, "run", None)
    Path(name).write_text(f"{markdown.START}\n{markdown.END}\n")
    Path(name).chmod(0o444)
    shown = normkernels(*SMALL, option, name)
    rule = f"normkernels: {option} must name a file that can be written, got {name} (Permission denied)\n"
    assert (shown.code, shown.out, shown.err) == (2, "", rule)


@pytest.mark.parametrize("content", [b"", b"\xff", None])
def test_a_page_must_be_fit_for_results(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(commands, "run", None)
    if content is None:
        os.mkfifo("page")  # reading it would wait for ever
    else:
        Path("page").write_bytes(content)
    shown = normkernels(*SMALL, "--markdown", "page")
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith("normkernels: --markdown")
    assert shown.err.endswith("got page\n")


def test_a_failed_write_is_one_line_after_the_table(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        if content.startswith(b"{"):
            raise OSError(28, "No space left on device")
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    shown = normkernels(*SMALL, "--json", "r.json", "--plot", "p.png")
    rule = "--json must name a file that can be written, got r.json (No space left on device)"
    lines = f"normkernels: wrote p.png\nnormkernels: {rule}\n"
    assert (shown.code, shown.err) == (2, MEASURING + lines)
    assert "layer_norm forward, float32" in shown.out
    assert [p.name for p in Path().iterdir()] == ["p.png"]


@pytest.mark.parametrize("arguments", [["list"], [*SMALL, "--json", "r.json"]])
def test_a_reader_that_has_enough_is_no_error(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        shown = normkernels(*arguments)
    assert shown.code == 0
    assert shown.err in ("", f"{MEASURING}normkernels: wrote r.json\n")
    assert Path("r.json").is_file() == ("--json" in arguments)


def lacking(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a package is not installed."""
    monkeypatch.setattr(nk, "bench", nk.bench)  # as it will be again
    for name in list(sys.modules):
        if name.startswith("normkernels.bench") or name.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize(
    ("extra", "package"),
    [
        (extra, package)
        for extra, packages in cli.PACKAGES.items()
        for package in packages
        if extra != "models"  # test_models.py: what it needs is rarely installed
    ],
)
def test_without_the_extra_one_line_says_what_to_install(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, extra: str, package: str
) -> None:
    lacking(package, monkeypatch)
    Path("r.json").write_text('{"schema": 2}')
    words = {"scipy": ["ab", "--base", "main"]}.get(package, ["bench", "--plot", "p.png", "--shape", "3x8"])
    shown = normkernels(*words, *(["--dtype", "bfloat16"] if package == "ml_dtypes" else []))
    assert shown.code == 2
    assert shown.err == (
        f"normkernels: {package} is missing: pip install -e '.[{extra}]' in a clone of normkernels\n"
    )


def test_help_needs_no_extra(normkernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking("psutil", monkeypatch)
    shown = normkernels("--help")
    assert (shown.code, shown.err) == (0, "")
    says = "More commands with an extra: pip install -e '.[bench]' in a clone of normkernels"
    assert says in " ".join(shown.out.split())
    assert normkernels("--version").code == 0


def test_a_fault_of_ours_is_not_taken_for_a_missing_package(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking("normkernels.bench.noise", monkeypatch)
    with pytest.raises(ModuleNotFoundError, match=r"normkernels\.bench\.noise"):
        normkernels("list")


# Which cases the options select


def test_presets_hold_only_norms_that_exist() -> None:
    assert {p.op for p in presets()} <= set(NORMS)
    assert all(layer.count > 0 and min(layer.sizes) > 0 for p in presets() for layer in p.layers)


@pytest.mark.parametrize(
    ("name", "batch", "shape", "count"),
    [
        ("resnet50", 32, (32, 64, 112, 112), 1),
        ("resnet18", 1, (1, 64, 112, 112), 1),
        ("mlp", 60, (60, 100), 3),
        ("gpt2", 1, (4096, 768), 25),
        ("gpt2", 3, (3 * 4096, 768), 25),
    ],
)
def test_the_first_layer_of_a_preset(name: str, batch: int, shape: tuple[int, ...], count: int) -> None:
    layer = next(p for p in presets() if p.name == name).layers[0]
    assert (layer.shape(batch), layer.count) == (shape, count)


@pytest.mark.parametrize("default", [DEFAULT, QUICK])
def test_default_presets_exist(default: dict[str, Any]) -> None:
    assert set(default) <= {p.name for p in presets()}


@pytest.mark.parametrize("quick", [False, True])
def test_default_selection(quick: bool) -> None:
    cases = select(Selection(quick=quick))
    assert {(c.op, c.pass_) for c in cases} == {(op, p) for op in NORMS for p in ("forward", "backward")}
    assert len(cases) == len(set(cases))
    if not quick:
        assert any(len({c.batch for c in cases if c.preset == p.name}) > 1 for p in presets())


def test_selection_restricts() -> None:
    chosen = Selection(
        ops=["batch_norm"],
        passes=["backward"],
        presets=["resnet18"],
        batches=[2, 4],
        dtypes=["float64"],
        layout="channels_last",
    )
    cases = select(chosen)
    assert len(cases) == 2 * 5
    assert {(c.op, c.pass_, c.dtype, c.layout) for c in cases} == {
        ("batch_norm", "backward", "float64", "channels_last")
    }
    assert {c.shape[0] for c in cases} == {2, 4}


def test_selection_of_everything() -> None:
    wanted = {(p.name, layer.shape(p.batch)) for p in presets() for layer in p.layers}
    assert {(c.preset, c.shape) for c in select(Selection(presets=["all"]))} == wanted
    assert {c.op for c in select(Selection(ops=["layer_norm"], presets=["all"]))} == {"layer_norm"}


def test_a_shape_goes_to_the_norms_that_take_it() -> None:
    assert {c.op for c in select(Selection(shapes=["4x8x2"]))} == set(NORMS)
    assert "batch_norm" not in {c.op for c in select(Selection(shapes=["8"]))}
    assert "layer_norm" not in {c.op for c in select(Selection(shapes=["2x3x4"], layout="channels_last"))}


@pytest.mark.parametrize(
    "options",
    [
        {"ops": ["layer_norm"], "shapes": ["64x32"], "passes": ["forward"], "dtypes": ["float64"]},
        {"ops": ["layer_norm"], "presets": ["gpt2"], "batches": [2], "fuses": ["residual"]},
    ],
)
def test_what_is_given_twice_is_measured_once(options: dict[str, Any]) -> None:
    twice = {name: values * 2 for name, values in options.items()}
    assert select(Selection(**twice)) == select(Selection(**options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ops": ["foo"]}, "--op must be one of .*, got foo"),
        ({"passes": ["sideways"]}, "--pass must be one of forward, backward, evaluation, got sideways"),
        (
            {"passes": ["evaluation"], "device": True},
            "--pass must be one of forward, backward, got evaluation",
        ),
        ({"passes": ["evaluation"], "ops": ["rms_norm"]}, "needs a norm over channels, not rms_norm"),
        ({"presets": ["foo"]}, "--preset must be one of all, .*, got foo"),
        ({"presets": ["gpt2"], "ops": ["batch_norm"]}, "--preset must belong to batch_norm, got gpt2"),
        ({"dtypes": ["int8"]}, "--dtype must be one of float32, float64, .*, got int8"),
        ({"layout": "foo"}, "--layout must be one of .*, got foo"),
        ({"batches": [0]}, "--batch must be 1 or more, got 0"),
        ({"batches": [1], "presets": ["mlp"]}, "more than one value per channel, got mlp"),
        ({"shapes": ["4x8"], "batches": [2]}, "--shape states every size"),
        ({"shapes": ["4x8"], "presets": ["gpt2"]}, "--shape states every size"),
        ({"shapes": ["8"], "ops": ["batch_norm"]}, "--shape of batch_norm must be NxC.*, got 8"),
        ({"shapes": ["1x8"], "ops": ["batch_norm"]}, "more than one value per channel, got 1x8"),
        ({"shapes": ["4x8"], "ops": ["batch_norm"], "layout": "channels_last"}, "beside N and C, got 4x8"),
        ({"ops": ["layer_norm"], "layout": "channels_last"}, "needs a norm over channels, not layer_norm"),
    ],
)
def test_options_that_select_nothing(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        select(Selection(**options))


@pytest.mark.parametrize("text", ["0x3", "", "x", "3x", "-1x2", "3.5", "4 x 8", "a"])
def test_shapes_that_are_none(text: str) -> None:
    with pytest.raises(BadOption, match=r"--shape must be positive sizes joined by x, .*, got "):
        parse_shape(text)
