"""`normkernels models`: which cases, the whole command on a small model, its page, and what it refuses."""

import json
import sys
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import count
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("click")
pytest.importorskip("scipy")

from normkernels.bench import markdown, progress  # noqa: E402
from normkernels.bench.check import Mismatch  # noqa: E402
from normkernels.bench.models import check, measure, memory, norms, page, results, steps  # noqa: E402
from normkernels.bench.models.cases import (  # noqa: E402
    BFLOAT16,
    COMPILE,
    EAGER,
    FLOAT32,
    INFERENCE,
    MODELS,
    SMALL,
    TRAINING,
    Case,
    chosen,
)
from normkernels.bench.process import WorkerEnded  # noqa: E402
from report_examples import MACHINE  # noqa: E402

TRAIN, INFER = (Case(SMALL, pass_, FLOAT32, 2, EAGER) for pass_ in (TRAINING, INFERENCE))
NORMS_OF_SMALL = 18  # two for each of five levels down and four up


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_all_cases_by_default():
    cases = chosen((), (), (), (), EAGER, False)
    assert len(set(cases)) == len(cases) == len(MODELS) * 2 * 2 * 2
    assert {case.model for case in cases} == set(MODELS)
    assert {case.batch for case in cases if case.model == "resnet50"} == {1, MODELS["resnet50"].batch}


def test_options_choose_cases():
    assert chosen(("vit_s",), (TRAINING,), (BFLOAT16,), (3, 3), COMPILE, False) == [
        Case("vit_s", TRAINING, BFLOAT16, 3, COMPILE)
    ]
    assert chosen((), (), (), (), EAGER, True) == [TRAIN, INFER]
    assert {
        (case.dtype, case.batch == MODELS[case.model].batch)
        for case in chosen((), (), (), (), COMPILE, False)
    } == {(FLOAT32, True)}
    assert [case.model for case in chosen(("unet",), (), (), (), EAGER, True)] == ["unet"] * 2


def page_with_blocks():
    text = "\n".join(line for block in page.BLOCKS.values() for line in markdown.markers(block))
    Path("page.md").write_text(text)
    return Path("page.md")


def test_the_whole_command(normkernels):
    file = page_with_blocks()
    shown = normkernels("models", "--quick", "--json", "r.json", "--markdown", "page.md")
    assert shown.code == 0
    assert shown.err.splitlines() == [
        f"normkernels: measuring {TRAIN} (1 of 2)",
        f"normkernels: measuring {INFER} (2 of 2)",
        "normkernels: wrote r.json",
        "normkernels: wrote page.md",
    ]
    assert "small U-Net" in shown.out
    stored = json.loads(Path("r.json").read_text())
    assert stored["schema"] == results.SCHEMA
    assert stored["machine"]["versions"]["torch"] == version("torch")
    for row in stored["rows"]:
        assert len(row["steps"]) >= measure.QUICK.least
        assert len(row["norms"]) >= measure.QUICK.least
        assert row["norm_calls"] == NORMS_OF_SMALL
        assert all(peak > 2**26 for peak in row["peaks"])
    _, block, _ = markdown.split(file, page.BLOCKS[EAGER])
    assert "Measured with `normkernels models --quick` on" in block
    assert "| small U-Net | training | float32 | 2 |" in block
    assert "| small U-Net | inference | float32 | 2 |" in block
    assert markdown.split(file, page.BLOCKS[COMPILE])[1].strip() == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "alexnet"], f"--model must be one of {', '.join(MODELS)}, {SMALL}, got alexnet"),
        (["--batch", "0"], "--batch must be between 1 and 1024, got 0"),
        (["--threads", "0"], "--threads must be between 1 and"),
        (["--mode", "jit"], "Invalid value for '--mode'"),
        (["--markdown", "page.md"], "a page for models-eager must hold <!-- normkernels:models-eager -->"),
        (["--json", "r.json", "--markdown", "r.json"], "--markdown must name another file than --json"),
        (["--json", "missing/r.json"], "--json must name a file that can be written"),
    ],
)
def test_refuses_in_one_line(normkernels, options, said):
    Path("page.md").write_text("no markers")
    shown = normkernels("models", *options)
    assert shown.code == 2
    assert said in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "package"), [("vit_s", "timm"), ("bert_block", "transformers"), (SMALL, "torch")]
)
def test_says_which_extra_is_missing(normkernels, monkeypatch, model, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # an import of it fails
    shown = normkernels("models", "--model", model)
    assert shown.code == 2
    assert shown.err == (
        f"normkernels: {package} is missing: pip install -e '.[models]' in a clone of normkernels\n"
    )


def test_a_wrong_gradient_ends_the_command(normkernels, monkeypatch):
    """Of one parameter, named in one line."""
    right = steps.pair

    def wrong(case):
        before, after = right(case)
        after.down[1][1].weight.register_hook(lambda gradient: 1.1 * gradient)
        return before, after

    monkeypatch.setattr(steps, "pair", wrong)
    shown = normkernels("models", "--quick")
    assert shown.code == 1
    assert shown.err.splitlines()[1].startswith(
        f"normkernels: {TRAIN}: the gradient of down.1.1.weight must be as near to float64 after as before, "
    )


def test_a_wrong_output_is_a_mismatch():
    models = steps.pair(INFER)
    models[1].down[0][1].bias.data += 0.1
    with pytest.raises(Mismatch, match=r"small inference, .*: the output must be as near"):
        check.check(INFER, models, models)


@pytest.mark.parametrize("pass_", [TRAINING, INFERENCE])
def test_bfloat16_is_checked_beside_float64(pass_):
    case = Case(SMALL, pass_, BFLOAT16, 2, EAGER)
    models = steps.pair(case)
    errors = check.check(case, models, models)
    assert 1e-4 < errors.output[0] < 0.1
    assert (errors.gradients is None) == (pass_ == INFERENCE)


def test_a_check_changes_no_parameter():
    models = steps.pair(TRAIN)
    before = [p.clone() for model in models for p in model.parameters()]
    check.check(TRAIN, models, models)
    after = [p for model in models for p in model.parameters()]
    assert all(map(torch.equal, before, after))
    assert all(p.grad is None for p in after)


def test_hooks_see_all_norms_and_are_gone_after():
    models = steps.pair(TRAIN)
    step = steps.step_of(models[0], models[0], TRAIN)
    calls = norms.calls_of(models, step)
    assert len(calls) == NORMS_OF_SMALL
    assert {type(call.modules[0]) for call in calls} == {torch.nn.BatchNorm2d}
    assert calls[0].like.shape == (2, 4, 32, 32)
    assert all(call.followed for call in calls)
    step()
    assert len(calls) == NORMS_OF_SMALL


def test_the_step_of_norms_is_all_of_them_and_their_gradients():
    models = steps.pair(TRAIN)
    seen = []
    calls = norms.calls_of(models, steps.step_of(models[0], models[0], TRAIN))
    for call in calls:
        call.modules[1].register_full_backward_hook(lambda *_: seen.append("backward"))
        call.modules[1].register_forward_hook(lambda *_: seen.append("forward"))
    norms.step_of_norms(calls, TRAIN)[1]()
    assert seen == ["forward"] * NORMS_OF_SMALL + ["backward"] * NORMS_OF_SMALL


def test_turns_are_balanced():
    order = []
    effort = measure.Effort(seconds=0, least=6, most=60)
    pairs = measure.in_turns(lambda: order.append(0), lambda: order.append(1), effort)
    assert len(pairs) == 6
    firsts = order[4::2]  # after both have been called twice
    assert sorted(firsts) == [0] * 3 + [1] * 3


def test_ratio_is_the_median_of_pairs():
    found = results.ratio([(2.0, 1.0), (4.0, 1.0), (3.0, 1.0)])
    assert found.middle == pytest.approx(3)
    assert found.low == pytest.approx(2)
    assert found.high == pytest.approx(4)


def test_a_compiled_model_has_no_norms_in_the_table():
    case = Case("unet", TRAINING, BFLOAT16, 4, COMPILE)
    errors = results.Errors((1e-3, 2e-3), (0.1, 0.2))
    row = results.Row(case, [(2.0, 1.0)] * 3, [], 0, errors, (2**20, 2**21))
    text = page.render(results.Results("normkernels models --mode compile", MACHINE, 0.5, [row]))
    assert "**Other work used 50% of the processors meanwhile.**" in text
    assert (
        "| U-Net | training | bfloat16 | 4 | 2 s | 1 s | 2.00 (2.00–2.00) | – | – | – | 1 MB | 2 MB |" in text
    )
    assert "outputs in bfloat16 1.0e-03 before and 2.0e-03 after; gradients in bfloat16 1.0e-01" in text


def test_shares_are_of_the_step():
    row = results.Row(TRAIN, [(4.0, 2.0)], [(2.0, 0.5)], 1, results.Errors((0.0, 0.0)), (1, 1))
    assert row.share(0) == 0.5
    assert row.share(1) == 0.25


@pytest.mark.slow
def test_a_compiled_model_is_measured(normkernels):
    """Compiling takes a minute."""
    shown = normkernels("models", "--quick", "--pass", INFERENCE, "--mode", COMPILE)
    assert shown.code == 0
    assert "–" in shown.out


def test_a_process_that_dies_is_named():
    class Pool:
        def submit(self, *_):
            raise BrokenProcessPool

    with pytest.raises(WorkerEnded, match=f"the process that measures memory ended at {SMALL} training"):
        memory.Memory(Pool(), 1).peaks(TRAIN)


def test_a_log_says_how_much_time_is_left(monkeypatch, capsys):
    seconds = count(0, 60)
    monkeypatch.setattr(progress, "perf_counter", lambda: next(seconds))
    with progress.following(3, left=True) as starting:
        for name in "abc":
            starting(name)
    assert capsys.readouterr().err.splitlines() == [
        "normkernels: measuring a (1 of 3)",
        "normkernels: measuring b (2 of 3, about 2 min left)",
        "normkernels: measuring c (3 of 3, about 1 min left)",
    ]


@pytest.mark.parametrize("name", MODELS)
def test_models_are_what_they_are_called(name):
    """With as many parameters as the papers say, in millions."""
    about = MODELS[name]
    for module in about.needs:
        pytest.importorskip(module)
    with torch.device("meta"):
        model = steps.ARCHITECTURES[name].make()
    millions = {
        "resnet50": 25.6,
        "mobilenetv3": 5.5,
        "unet": 7.8,
        "convnext_t": 28.6,
        "vit_s": 22.1,
        "bert_block": 7.1,
    }
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions[name], abs=0.1)
