"""pytest-benchmark for the norms: which backend a process measures, and what a saved run says of itself."""

import json
import shlex
from pathlib import Path
from typing import Any

import numba
import pytest
from pytest_benchmark.session import BenchmarkSession

from backends import PROCESSES, missing, packages
from normkernels.bench.machine import Machine, machine
from normkernels.bench.ratios import stamp

# The names of saved runs, as pytest-benchmark numbers them.
SAVED = ["[0-9][0-9][0-9][0-9]_"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=list(PROCESSES),
        default="normkernels",
        help="The library that this process measures; normkernels comes with NumPy, the baseline.",
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("backend")
    if lacking := missing(name):
        raise pytest.UsageError(f"--backend {name} needs: pip install {' '.join(lacking)}")
    if wanted := config.getoption("benchmark_compare"):
        runs = BenchmarkSession(config).storage.query(*(SAVED if wanted is True else [wanted]))
        for file in runs:
            _check_whole(Path(file))


def _check_whole(file: Path) -> None:
    """Refuse a saved run that was cut, at which pytest-benchmark would break down."""
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
        _ = saved["machine_info"], [(run["fullname"], run["stats"]["median"]) for run in saved["benchmarks"]]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        rule = "--benchmark-compare must find saved runs that are whole"
        raise pytest.UsageError(f"{rule}, got {file} ({type(error).__name__}: {error})") from None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Hold --benchmark-compare to what it can compare.

    pytest-benchmark by itself fails the first run with --benchmark-compare-fail, for want of a run before it,
    and passes one whose latest saved run has none of these benchmarks.
    """
    run = session.config._benchmarksession  # type: ignore[attr-defined]
    if not run.compare or not session.items:
        return
    if run.compare is True and not run.storage.query():
        run.compare_fail = None
        return
    saved = {name for benchmarks in run.compared_mapping.values() for name in benchmarks}
    if saved.isdisjoint(item.nodeid for item in session.items):
        raise pytest.UsageError(
            "--benchmark-compare must find a saved run of these benchmarks, "
            f"got {', '.join(map(str, run.compared_mapping)) or 'none'} in {run.storage}"
        )


@pytest.fixture(scope="session")
def versions(pytestconfig: pytest.Config) -> dict[str, str]:
    return _machine(pytestconfig).versions


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Without the clock of the moment, by which every run would be one of another machine."""
    machine_info["cpu"] = {k: v for k, v in machine_info["cpu"].items() if not k.startswith("hz_")}


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    words = ["pytest", *config.args]
    if (name := config.getoption("backend")) != "normkernels":
        words += ["--backend", name]
    if keyword := config.getoption("keyword"):
        words += ["-k", keyword]
    output_json["normkernels"] = stamp(_machine(config), shlex.join(words))


def _machine(config: pytest.Config) -> Machine:
    return machine(numba.get_num_threads(), packages(config.getoption("backend")))
