"""What `pytest` by itself runs: few cases, and yet every norm, dtype, layout, fusion, form and command."""

from itertools import product

import click
import pytest

from covering import covering
from helpers import DTYPES, LAYOUTS
from normkernels.cli import cli
from normkernels.norms import NORMS

FUSING = [name for name, spec in NORMS.items() if spec.activation]
# Tests that meet every combination of these values; all run forward and backward. In those of fusions each
# case goes through all activations.
MET = [
    ("test_norms.py", "test_matches_the_reference", {"spec": [*NORMS], "dtype": DTYPES}),
    ("test_norms.py", "test_one_shot_is_the_forward_to_the_bit", {"spec": [*NORMS], "dtype": DTYPES}),
    ("test_norms.py", "test_any_strides_give_the_same_values", {"spec": [*NORMS], "layout": LAYOUTS}),
    ("test_norms.py", "test_out_receives_the_result", {"spec": [*NORMS], "layout": LAYOUTS}),
    ("test_determinism.py", "test_small_arrays_by_one_thread_and_by_several", {"spec": [*NORMS]}),
    ("test_determinism.py", "test_any_number_of_threads", {"spec": [*NORMS]}),
    ("test_fusion.py", "test_matches_the_steps", {"spec": FUSING, "residual": [False, True]}),
    ("test_fusion.py", "test_other_dtypes", {"dtype": DTYPES[1:]}),
    ("test_scaling.py", "test_any_axes_and_strides", {"dtype": DTYPES, "layout": LAYOUTS}),
]
# A test that runs the command to its end; that of `resources`, which compiles for GPUs, is marked `cuda`.
COMMANDS = {
    "ab": ("test_ab.py", "test_the_whole_gate_without_waiting"),
    "bench": ("test_cli.py", "test_bench_writes_what_it_measured"),
    "compare": ("test_changes.py", "test_compare_fails_where_it_is_told_to"),
    "compile": ("test_ahead.py", "test_the_command_has_nothing_left_to_do"),
    "info": ("test_cli.py", "test_info_describes_the_machine"),
    "list": ("test_cli.py", "test_list_names_norms_and_shapes"),
    "models": ("test_models.py", "test_the_whole_command"),
    "noise": ("test_changes.py", "test_noise_says_what_can_be_detected"),
    "report": ("test_report.py", "test_report_writes_a_page"),
    "table": ("test_pytest_benchmark.py", "test_the_table_joins_files"),
}


def value(parameter):
    return getattr(parameter, "name", parameter)  # that of a NormSpec


@pytest.fixture
def selected(request):
    """The tests of this run by file and name, if that is what `pytest` by itself selects."""
    options = request.config.option
    if options.markexpr not in request.config.getini("addopts") or options.keyword or options.deselect:
        pytest.skip("for the default selection")
    found = {}
    for item in request.session.items:
        found.setdefault((item.path.name, item.originalname), []).append(item)
    return found


@pytest.mark.parametrize(("file", "test", "wanted"), MET, ids=[test for _, test, _ in MET])
def test_the_default_selection_meets(file, test, wanted, selected):
    if file not in {name for name, _ in selected}:
        pytest.skip("for a run of all files")
    cases = [case.callspec.params for case in selected[file, test]]
    met = {tuple(value(case[name]) for name in wanted) for case in cases}
    assert met >= set(product(*wanted.values()))


def test_the_default_selection_runs_every_command(selected):
    pytest.importorskip("normkernels.bench.commands", exc_type=ImportError)
    assert set(COMMANDS) == set(cli.list_commands(click.Context(cli))) - {"resources"}
    files = {name for name, _ in selected}
    assert not [test for test in COMMANDS.values() if test[0] in files and test not in selected]


def test_values_and_pairs_that_meet_somewhere_meet_in_what_is_taken():
    everything = list(product(range(4), range(3), range(5), range(2)))
    for cases in (everything, [c for c in everything if sum(c) % 3]):
        for strength in (1, 2):
            taken = [cases[i] for i in covering(cases, strength)]
            assert len(taken) <= (5, 24)[strength - 1]
            for axes in ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)):
                axes = axes[:strength]
                meetings = [{tuple(case[axis] for axis in axes) for case in some} for some in (cases, taken)]
                assert meetings[0] == meetings[1]
