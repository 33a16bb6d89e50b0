"""pytest-benchmark for the norms: which backend a process measures, and what a saved run says of itself."""

import shlex
from typing import Any

import numba
import pytest

from backends import PROCESSES, missing
from normkernels.bench.machine import Machine, machine
from normkernels.bench.ratios import stamp


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--backend",
        choices=list(PROCESSES),
        default="normkernels",
        help="The library that this process measures; normkernels comes with NumPy, the baseline.",
    )


def pytest_configure(config: pytest.Config) -> None:
    name = config.getoption("backend")
    if packages := missing(name):
        raise pytest.UsageError(f"--backend {name} needs: pip install {' '.join(packages)}")


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
    return machine(numba.get_num_threads(), PROCESSES[config.getoption("backend")][1])
