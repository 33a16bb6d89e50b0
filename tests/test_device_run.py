"""A run of the benchmark on a device, without one: libraries in turn, time, options, the script."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

pytest.importorskip("rich")
pytest.importorskip("numba_cuda")

from bench_examples import DEVICE, case, row
from normkernels._devices import DeviceUnavailable
from normkernels.bench import process, results, schema
from normkernels.bench.cases import Case
from normkernels.bench.device import command, libraries, plan, run
from normkernels.bench.process import Process, WorkerEnded
from normkernels.bench.selection import Selection
from normkernels.cuda import config, devices, strip_rules
from normkernels.norms import NORMS

ROOT = Path(__file__).parent.parent
MB = 1 << 20


# A run

HOUR = 3600.0


class Talk:
    """A process that answers without measuring; `said` decides by library and case."""

    said: Any = None
    asked: list[tuple[str, str]]
    setups: list[Any]

    def __init__(self, name: str, module: str, *arguments: str, setup: Any) -> None:
        (self.name,) = arguments
        self.setups.append(setup)

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(self, message: Any, what: str, seconds: float) -> Any:
        self.asked.append((self.name, what))
        assert 0 < seconds <= run.CASE_SECONDS
        return type(self).said(self.name, schema.made(Case, message))


def answered(name: str, c: Case) -> Any:
    made = dataclasses.replace(row(), case=c, baseline=None, call=1e-5)
    return {"row": json.loads(json.dumps(results.as_json(made)))}


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> type[Talk]:
    Talk.asked, Talk.setups, Talk.said = [], [], staticmethod(answered)
    monkeypatch.setattr(run, "Process", Talk)
    monkeypatch.setattr(libraries, "find_spec", lambda name: name)
    monkeypatch.setattr(run, "packages", lambda names: ())
    return Talk


def planned(cases: int = 12, names: tuple[str, ...] = ("torch", "triton"), **more: Any) -> plan.DevicePlan:
    made = [case(shape=(i + 1, 16)) for i in range(cases)]
    fields = {"effort": plan.QUICK, "seconds": HOUR, "seed": 3, "copy_bytes": MB, **more}
    return plan.DevicePlan(DEVICE, made, names, **fields)


def measured(plan: plan.DevicePlan) -> results.Results:
    return run.run(plan, {"device": "cuda"}, [], lambda what: None)


def test_one_library_after_the_other_has_every_case(talk: type[Talk]) -> None:
    outcome = measured(planned())
    assert [name for name, _ in talk.asked] == ["normkernels"] * 12 + ["torch"] * 12 + ["triton"] * 12
    assert [r.case.shape[0] for r in outcome.rows] == list(range(1, 13))
    assert {tuple(b.name for b in r.baselines) for r in outcome.rows} == {("torch", "triton")}
    assert outcome.machine.device == DEVICE
    assert outcome.notes == []
    assert {setup["seed"] for setup in talk.setups} == {3}


def test_when_time_is_up_no_case_is_begun(talk: type[Talk], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def slow(name: str, c: Case) -> Any:
        now[0] += 10
        return answered(name, c)

    monkeypatch.setattr(run, "monotonic", lambda: now[0])
    talk.said = staticmethod(slow)
    outcome = measured(planned(seconds=210))
    assert len(outcome.rows) == 12
    # those that the second library still had are spread over all
    assert [r.case.shape[0] for r in outcome.rows if r.baseline] == [1, 2, 3, 4, 6, 7, 8, 11, 12]
    assert outcome.notes == [
        "3 of 12 cases of torch were left out: time was up",
        "12 of 12 cases of triton were left out: time was up",
    ]
    now[0] = 0.0  # the kernels leave time for the others
    outcome = measured(planned(seconds=100))
    assert [r.case.shape[0] for r in outcome.rows] == [1, 2, 6, 7, 11, 12]
    assert [r.case.shape[0] for r in outcome.rows if r.baseline] == [1, 2, 6, 12]
    assert outcome.notes[0] == "6 of 12 cases of normkernels were left out: time was up"
    now[0] = 0.0
    assert len(measured(planned(seconds=100, names=())).rows) == 10


def test_what_goes_wrong_is_a_note_and_the_rest_goes_on(talk: type[Talk]) -> None:
    def fails(name: str, c: Case) -> Any:
        if name == "torch":
            raise WorkerEnded(f"the worker process ended with code 1 at {c.id}")
        if name == "triton" and c.shape[0] == 2:
            return {"row": None}
        return {"problem": "wrong"} if c.shape[0] == 1 else answered(name, c)

    talk.said = staticmethod(fails)
    outcome = measured(planned(4))
    assert [r.case.shape[0] for r in outcome.rows] == [2, 3, 4]
    assert [[b.name for b in r.baselines] for r in outcome.rows] == [[], ["triton"], ["triton"]]
    assert all(r.baseline is None for r in outcome.rows)
    assert outcome.notes[0] == "normkernels: wrong"
    assert len([note for note in outcome.notes if "ended with code 1" in note]) == run.MOST_ENDS


def test_a_lost_device_gets_another_process(talk: type[Talk]) -> None:
    def lost(name: str, c: Case) -> Any:
        return {"problem": "lost", "lost": True} if c.shape[0] == 1 else answered(name, c)

    talk.said = staticmethod(lost)
    assert [r.case.shape[0] for r in measured(planned(3, ())).rows] == [2, 3]
    assert len(talk.setups) == 2


def test_a_library_that_is_not_there_is_a_note(talk: type[Talk], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    outcome = measured(planned(2))
    assert outcome.notes == [f"{n} was not measured: torch is not installed" for n in ("torch", "triton")]
    assert all(not r.baselines for r in outcome.rows)


def test_nothing_measured_is_an_error(talk: type[Talk]) -> None:
    talk.said = staticmethod(lambda name, c: {"problem": "wrong"})
    with pytest.raises(run.NothingMeasured, match="normkernels: wrong"):
        measured(planned())


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hangs.py").write_text("import time; time.sleep(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        Process("slow", "hangs", setup={}) as waiting,
        pytest.raises(process.WorkerEnded, match="the slow process took longer than 0 s at work"),
    ):
        waiting.ask({}, "work", 0.2)


# Options


def test_without_options_presets_and_a_sweep_of_large_tensors() -> None:
    found = plan.cases(Selection(device=True))
    swept = [c for c in found if c.preset == "sweep"]
    assert {c.tensor_bytes for c in swept} == {1 << 28, 1 << 30}
    assert {c.shape[1] for c in swept} == set(plan.COLS)
    assert {(c.dtype, c.pass_) for c in swept} == {
        (d, p) for d in ("float32", "bfloat16") for p in ("forward", "backward")
    }
    assert {c.op for c in found} == set(NORMS)
    assert len(found) < 150
    assert len(plan.cases(Selection(device=True, quick=True))) < 30
    assert all(c.preset == "gpt2" for c in plan.cases(Selection(device=True, presets=["gpt2"])))
    fit, skipped = plan.fitting(found, dataclasses.replace(DEVICE, memory_bytes=8 << 30))
    assert {c.tensor_bytes for c in skipped} == {1 << 30}
    assert len(fit) + len(skipped) == len(found)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "require", lambda: None)
    monkeypatch.setattr(plan, "about", lambda: DEVICE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--baseline", "torch,jax"], "--against on a device must be none, all or of torch, .*, got jax"),
        (["--seconds", "0"], "--seconds must be above 0, got 0.0"),
        (["--seed", "-1"], "--seed must be 0 or more, got -1"),
        (["--threads", "1"], "--threads is of the CPU: leave it out with --device cuda, got 1"),
        (["--shape", "99999999x99999"], "a case must fit into the memory of the device, got layer_norm"),
    ],
)
def test_bad_options(normkernels: Any, there: None, arguments: list[str], message: str) -> None:
    shown = normkernels("bench", "--device", "cuda", *arguments)
    assert (shown.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert re.match(f"normkernels: {message}", shown.err)


@pytest.mark.parametrize("option", ["--seconds", "--seed"])
def test_options_of_devices_need_one(normkernels: Any, option: str) -> None:
    shown = normkernels("bench", option, "1")
    assert shown.code == 2
    assert f"{option} needs --device cuda, got 1" in shown.err


def test_without_a_device_one_line_says_what_is_missing(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent() -> None:
        raise DeviceUnavailable(devices.DRIVER)

    monkeypatch.setattr(devices, "require", absent)
    shown = normkernels("bench", "--device", "cuda", "--quick")
    assert (shown.code, shown.out, shown.err) == (2, "", f"normkernels: {devices.DRIVER}\n")


def test_wrong_kernels_make_the_exit_code_1(normkernels: Any, there: None, talk: type[Talk]) -> None:
    talk.said = staticmethod(lambda n, c: {"problem": "wrong"} if c.pass_ == "forward" else answered(n, c))
    arguments = ("bench", "--device", "cuda", "--shape", "8x16", "--op", "layer_norm", "--json", "r.json")
    shown = normkernels(*arguments, "--baseline", "none")
    assert shown.code == 1
    assert shown.err.splitlines()[-2:] == ["normkernels: wrote r.json", "normkernels: wrong (1 such)"]
    stored = results.load(Path("r.json"))
    assert [r.case.pass_ for r in stored.rows] == ["backward"]
    assert stored.options["device"] == "cuda"
    assert isinstance(stored.options["seed"], int)


def test_nothing_measured_is_said_in_a_line(normkernels: Any, there: None, talk: type[Talk]) -> None:
    talk.said = staticmethod(lambda name, c: {"problem": "wrong"})
    shown = normkernels("bench", "--device", "cuda", "--shape", "8x16", "--baseline", "none")
    assert (shown.code, shown.out) == (1, "")
    assert shown.err.splitlines()[-1] == "normkernels: wrong"


def in_the_simulator(words: str, folder: Path, before: str = "pass") -> Any:
    program = (
        f"from normkernels.cli import main; from normkernels.bench.device import command; {before}; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, *words.split()], capture_output=True, text=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_ENABLE_CUDASIM": "1"},
    )  # fmt: skip


def test_the_simulator_is_no_device_to_measure(tmp_path: Path) -> None:
    done = in_the_simulator("bench --device cuda", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"normkernels: {command.SIMULATOR}\n")


@pytest.mark.cuda
def test_the_whole_way_in_the_simulator(tmp_path: Path) -> None:
    words = "bench --device cuda --quick --shape 4x16 --op rms_norm --pass forward --baseline none --json r"
    done = in_the_simulator(words, tmp_path, "command.needed = lambda: None")
    assert done.returncode == 0, done.stderr
    (found,) = results.load(tmp_path / "r").rows
    assert found.error < 1e-6
    assert found.call
    assert found.copy_alike


# The script for a device at hand


def loaded(name: str) -> Any:
    """A file of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", ROOT / f"benchmarks/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name="script")
def the_script() -> Any:
    return loaded("device")


def test_the_steps_of_the_script_take_less_than_nine_minutes(script: Any, tmp_path: Path) -> None:
    steps = script.steps(tmp_path, 8.8)
    assert sum(step.limit for step in steps) <= 8.8 * 60 + 1e-6
    assert [step.name for step in steps] == ["about", "quick", "tests", "full", "report"]
    for step in steps:
        if "--seconds" in step.command:
            seconds = float(step.command[step.command.index("--seconds") + 1])
            assert seconds + run.GRACE < step.limit
            assert seconds > 30


def test_the_script_wants_a_device(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise script.devices.DeviceUnavailable("no driver here")

    monkeypatch.setattr(script.devices, "require", missing)
    with pytest.raises(click.UsageError, match="^no driver here$"):
        script.main(["--out", str(tmp_path / "out")], standalone_mode=False)
    assert not (tmp_path / "out").exists()


def test_the_script_goes_on_where_a_step_fails_or_hangs(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(name: str, code: str, limit: float = 60.0) -> Any:
        return script.Step(name, (sys.executable, "-c", code), limit)

    mine = [
        step("fails", "raise SystemExit('no')"),
        step("hangs", "print('here', flush=True); import time; time.sleep(60)", 2.0),
        step("works", "print('done')"),
    ]
    monkeypatch.setattr(script, "steps", lambda out, minutes: mine)
    monkeypatch.setattr(script.devices, "require", lambda: None)
    with pytest.raises(SystemExit, match="1"):
        script.main(["--out", str(tmp_path / "out")], standalone_mode=False)
    lines = (tmp_path / "out/summary.txt").read_text().splitlines()
    assert [line.split(",")[0].split(maxsplit=1)[1] for line in lines] == [
        "exit code 1", "stopped at its limit", "exit code 0"
    ]  # fmt: skip
    logs = [(tmp_path / f"out/{name}.log").read_text() for name in ("fails", "hangs", "works")]
    assert logs == ["no\n", "here\n", "done\n"]


def test_each_rule_is_in_force_while_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rules, page, seen = loaded("device_rules"), tmp_path / "page.md", []

    def measured(case: Case, library: Any, bench: Any) -> Any:
        seen.append((config.BACKWARD.elements, case.dtype))
        if config.BACKWARD.elements == 8:
            raise ValueError("more than a device has")
        return row(0.5)

    shapes = ((4, 8, "float32"), (4, 8, "float16"))
    question = rules.Question(config, "BACKWARD", ({}, rules.LESS), "layer_norm", "backward", shapes)
    monkeypatch.setattr(rules, "QUESTIONS", (question,))
    monkeypatch.setattr(rules, "measure", measured)
    monkeypatch.setattr(rules, "DeviceCopy", lambda *_: None)
    monkeypatch.setattr(rules.plan, "about", lambda: DEVICE)
    before = config.BACKWARD
    rules.main(["--out", str(page)], standalone_mode=False)
    assert config.BACKWARD is before
    assert seen == [(16, "float32"), (8, "float32"), (16, "float16"), (8, "float16")]
    assert page.read_text().splitlines()[2:] == [
        "| BACKWARD: layer_norm, backward | as it is | elements 8 |",
        "| --- | --: | --: |",
        "| 4x8 float32 | 0.80 | ValueError |",
        "| 4x8 float16 | 0.80 | ValueError |",
    ]
    assert all(list(question.cases()) for question in loaded("device_rules").QUESTIONS)
    strips = rules.Question(strip_rules, "STRIPS", (), "batch_norm", "forward", ())
    for change, name in (((0, 1), "as it is"), ((1,), "number 1 only"), ((), "none: read twice")):
        assert rules.named(strips, change) == name
        with rules.in_force(strips, change):
            assert len(strip_rules.STRIPS) == len(change)


def test_measuring_rules_wants_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rules = loaded("device_rules")

    def missing() -> None:
        raise DeviceUnavailable("no driver here")

    monkeypatch.setattr(rules.plan, "about", missing)
    with pytest.raises(click.UsageError, match="^no driver here$"):
        rules.main(["--out", str(tmp_path / "page.md")], standalone_mode=False)
    assert not (tmp_path / "page.md").exists()
