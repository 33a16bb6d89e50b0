"""The benchmarks for airspeed velocity: every norm has a case, and every benchmark runs."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import normkernels as nk

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "asv"


def load(module):
    """A module of benchmarks/asv, under a name that is not asv's own."""
    if "asv_benchmarks" not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            "asv_benchmarks", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)]
        )
        sys.modules["asv_benchmarks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["asv_benchmarks"])
    return importlib.import_module(f"asv_benchmarks.{module}")


cases, memory, numpy_norms, speed, startup, traffic = map(
    load, ["cases", "memory", "numpy_norms", "speed", "startup", "traffic"]
)

SMALL = ["layer_norm/128x768", "batch_norm/512x7x7"]


def test_every_norm_has_a_case():
    assert {case.norm for case in cases.CASES.values()} == set(nk.NORMS)


def test_the_list_of_cases_is_literal():
    """Benchmarks use public functions only, by name: no list of the package can change what is timed."""
    for file in FOLDER.glob("*.py"):
        assert not re.search(r"normkernels\.(?!norms\b)\w+ import|NORMS|from normkernels", file.read_text())


def test_case_names_say_the_work():
    for name, case in cases.CASES.items():
        assert name == f"{case.norm}/{'x'.join(map(str, case.shape))}"


@pytest.mark.asv
@pytest.mark.parametrize("case", cases.CASES)
@pytest.mark.parametrize("pass_", cases.PASSES)
def test_numpy_computes_the_same(case, pass_):
    ours, numpy = cases.call(case, 1, pass_)(), numpy_norms.numpy_call(case, 1, pass_)()
    if pass_ == "forward":
        pairs = [(ours[0], numpy)]
    else:
        pairs = [(a, b) for a, b in zip(ours, numpy, strict=False) if a is not None]
    for a, b in pairs:
        # Sums of up to 200,000 float32 in different orders.
        np.testing.assert_allclose(a.ravel(), b.ravel(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("case", cases.CASES)
def test_bytes_are_those_of_the_tensors(case):
    x = cases.inputs(case, 1).x
    assert cases.bytes_moved(case, 1, "forward") == 2 * x.nbytes
    assert cases.bytes_moved(case, 1, "backward") == 3 * x.nbytes


@pytest.mark.parametrize("case", SMALL)
@pytest.mark.parametrize("pass_", cases.PASSES)
def test_speed_runs(case, pass_):
    benchmark = speed.Speed()
    benchmark.setup(case, pass_, 1)
    first = benchmark.run
    benchmark.time_pass(case, pass_, 1)
    benchmark.setup(case, pass_, 1)
    assert benchmark.run is first, "asv calls setup before every sample: it must not make new tensors"


def test_memory_runs():
    benchmark = memory.Memory()
    benchmark.setup(SMALL[0], "forward")
    benchmark.peakmem_pass(SMALL[0], "forward")
    assert benchmark.run()[0].shape == (16, 128, 768)


def test_traffic_is_plausible(monkeypatch):
    monkeypatch.setattr(traffic, "COPIED", 1 << 20)
    benchmark = traffic.Traffic()
    case = "weight_norm/1024x1024", "forward"
    benchmark.setup(*case)
    assert benchmark.bytes == 2 * 4 * 1024 * 1024
    for track in (benchmark.track_gbps, benchmark.track_copy_fraction, benchmark.track_speedup_vs_numpy):
        assert 0 < track(*case) < math.inf
        assert track.unit


def test_traffic_divides_the_right_way_round(monkeypatch):
    """Twice NumPy's speed is 2; 8 GB in 2 s are 4 GB/s; half the bytes per second of a copy is 0.5."""
    benchmark = traffic.Traffic()
    benchmark.run, benchmark.bytes, benchmark.batch = None, 8_000_000_000, 1
    monkeypatch.setattr(traffic, "COPIED", 8_000_000_000)
    monkeypatch.setattr(traffic, "copier", lambda: None)
    monkeypatch.setattr(traffic, "numpy_call", lambda *case: None)
    monkeypatch.setattr(traffic, "seconds", lambda *f, **options: [2.0, 2.0][: len(f)])
    assert benchmark.track_gbps(SMALL[0], "forward") == 4
    assert benchmark.track_copy_fraction(SMALL[0], "forward") == 0.5
    monkeypatch.setattr(traffic, "seconds", lambda *f, **options: [2.0, 4.0])
    assert benchmark.track_speedup_vs_numpy(SMALL[0], "forward") == 2


def test_copy_copies_everything(monkeypatch):
    monkeypatch.setattr(traffic, "COPIED", 1001)
    parts = []
    monkeypatch.setattr(traffic.np, "copyto", lambda target, source: parts.append(source.size))
    traffic.copier()()
    assert sum(parts) == 1001


@pytest.mark.parametrize("norm", ["a_norm_of_the_future"])
def test_what_a_commit_does_not_have_is_skipped(norm, monkeypatch):
    """asv reports n/a, not a failure, where setup raises NotImplementedError."""
    name = f"{norm}/8x8"
    monkeypatch.setitem(cases.CASES, name, cases.Case(norm, (8, 8)))
    for benchmark, parameters in [
        (speed.Speed, (name, "forward", 1)),
        (memory.Memory, (name, "forward")),
        (traffic.Traffic, (name, "forward")),
        (startup.FirstCall, (name,)),
    ]:
        with pytest.raises(NotImplementedError, match=norm):
            benchmark().setup(*parameters)


def run_raw(statement):
    """What asv does with the result of a timeraw benchmark, without the clock."""
    body, ready = statement if isinstance(statement, tuple) else (statement, "")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", f"{ready}\n{body}"], check=True, env=environment)


def kernels(statement):
    """The folder of a first call's kernel cache, and what is in it."""
    folder = Path(re.search(r'NUMBA_CACHE_DIR"\] = \'(.*)\'', statement[1])[1])
    return folder, {file: file.stat().st_mtime_ns for file in folder.rglob("*.nbc")}


@pytest.mark.asv
def test_first_calls_find_the_cache_they_should(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    case = startup.CASES[0]
    benchmark = startup.FirstCall()
    benchmark.setup(case)
    try:
        (one, in_one), (other, in_other) = (kernels(benchmark.timeraw_cold_cache(case)) for _ in "ab")
        assert one != other, "the first sample would warm the second's cache"
        assert not in_one
        assert not in_other

        statement = benchmark.timeraw_warm_cache(case)
        folder, before = kernels(statement)
        assert before
        run_raw(statement)
        assert kernels(statement) == kernels(benchmark.timeraw_warm_cache(case)) == (folder, before)
    finally:
        benchmark.teardown(case)
    assert not any(path.exists() for path in (one, other, folder))


@pytest.mark.asv
def test_imports_run():
    run_raw(startup.Import().timeraw_after_numba())
    run_raw(startup.Import().timeraw_all())


@pytest.mark.parametrize("commit", ["abc", None])
def test_each_commit_has_a_kernel_cache_of_its_own(commit, monkeypatch, tmp_path):
    monkeypatch.setenv("ASV_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("NUMBA_CACHE_DIR", ".asv/kernels")
    monkeypatch.delenv("ASV_COMMIT", raising=False)
    if commit:
        monkeypatch.setenv("ASV_COMMIT", commit)
    exec((FOLDER / "__init__.py").read_text(), {})
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / ".asv" / "kernels" / (commit or "working-tree"))
    exec((FOLDER / "__init__.py").read_text(), {})
    assert os.environ["NUMBA_CACHE_DIR"].count("kernels") == 1


@pytest.fixture(scope="module")
def asv():
    return pytest.importorskip("asv", reason="needs asv")


def asv_command(*arguments, cwd=ROOT, home):
    # asv takes PYTHONPATH away from the environments it runs.
    environment = {**os.environ, "ASV_PYTHONPATH": str(ROOT), "HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "asv", *arguments],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.asv
def test_asv_accepts_the_benchmarks(asv, tmp_path):
    checked = asv_command("check", "-E", f"existing:{sys.executable}", home=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "No problems found" in checked.stdout


LIST = """
import json, sys
from asv_runner._aux import update_sys_path
from asv_runner.discovery import disc_benchmarks
update_sys_path(sys.argv[1])
print(json.dumps([[b.name, b.version, b.unit] for b in disc_benchmarks(sys.argv[1])]))
"""


@pytest.mark.asv
def test_every_benchmark_has_a_version_and_a_unit(asv):
    listed = subprocess.run(
        [sys.executable, "-c", LIST, str(FOLDER)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = {name: rest for name, *rest in json.loads(listed.stdout)}
    assert set(found) == {
        "speed.Speed.time_pass",
        "memory.Memory.peakmem_pass",
        "traffic.Traffic.track_gbps",
        "traffic.Traffic.track_copy_fraction",
        "traffic.Traffic.track_speedup_vs_numpy",
        "startup.FirstCall.timeraw_cold_cache",
        "startup.FirstCall.timeraw_warm_cache",
        "startup.Import.timeraw_all",
        "startup.Import.timeraw_after_numba",
    }
    for name, (version, unit) in found.items():
        assert version.isdecimal(), f"{name}: asv's own version is a hash of the code"
        assert unit != "unit", name


def samples_per_side(timed=speed.Speed):
    return timed.rounds * int(np.ravel(timed.repeat)[0])


TIMED = [speed.Speed, startup.FirstCall, startup.Import]


@pytest.mark.asv
@pytest.mark.parametrize("n", [6, *{7, *map(samples_per_side, TIMED)}])
def test_samples_suffice_for_asv_to_see_a_difference(asv, n):
    """With 6 against 6, all of one side below all of the other, asv sees nothing; with 7 it does."""
    from asv._stats import is_different

    slow, fast = [2 + i / 100 for i in range(n)], [1 + i / 100 for i in range(n)]
    interval = {"ci_99_a": -math.inf, "ci_99_b": math.inf}
    smallest_p = 2 / math.comb(2 * n, n)
    assert is_different(slow, fast, interval, interval) == (smallest_p < 0.002) == (n >= 7)


@pytest.mark.parametrize("timed", TIMED)
def test_every_time_has_samples_that_suffice(timed):
    assert samples_per_side(timed) >= 7


@pytest.mark.asv
def test_samples_suffice_where_some_pairs_cross(asv):
    from asv._stats import is_different

    n = samples_per_side()
    interval = {"ci_99_a": -math.inf, "ci_99_b": math.inf}
    base = [float(i) for i in range(n)]
    head = [i + 0.6 * n + 0.5 for i in range(n)]
    assert is_different(base, head, interval, interval)


@pytest.mark.asv
def test_more_bandwidth_is_no_regression(asv):
    """asv takes a higher value for a worse one: it must not look for regressions in `traffic`."""
    from asv.config import Config
    from asv.plugins.regressions import _GraphDataFilter

    config = Config.load(str(ROOT / "asv.conf.json"))
    look = _GraphDataFilter(config, None, {"abc": 7})
    graph = SimpleNamespace(params={"branch": "main"})
    names = {"traffic.Traffic.track_gbps('a', 'forward')": None, "speed.Speed.time_pass('a', 'forward')": 7}
    for name, first in names.items():
        assert look._get_start_revision(graph, None, name) == first


def test_configuration_keeps_environments_and_results_out_of_git():
    text = re.sub(r"^\s*//.*$", "", (ROOT / "asv.conf.json").read_text(), flags=re.M)
    configuration = json.loads(text)
    assert configuration["matrix"]["env_nobuild"]["NUMBA_NUM_THREADS"]
    ignored = (ROOT / ".gitignore").read_text().split()
    for name in ("env_dir", "results_dir", "html_dir"):
        assert f"{configuration[name].split('/')[0]}/" in ignored
