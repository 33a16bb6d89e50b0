"""Every norm, pass, shape and backend: checked, warmed up, then timed by pytest-benchmark."""

import math
from dataclasses import replace
from typing import Any

import numba
import pytest

from backends import BASELINE, PROCESSES, backend
from cases import CASES
from normkernels import release_buffers
from normkernels.bench.cases import Case
from normkernels.bench.inputs import copied, make_inputs
from normkernels.bench.machine import cache_sizes
from normkernels.bench.peers.peer import verify
from normkernels.bench.selection import parse_shape

SECONDS, LEAST, MOST = 1.0, 7, 400  # rounds go on for about so long, within these


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Plain strings as parameters: pytest-benchmark writes them into its JSON, and they make the id."""
    names = PROCESSES[metafunc.config.getoption("backend")]
    parameters = [
        (case.op, case.pass_, case.size, case.dtype, name)
        for case in CASES
        for name in names
        if backend(name).has(case)
    ]
    metafunc.parametrize(("op", "pass_", "shape", "dtype", "name"), parameters, ids=map("-".join, parameters))


@pytest.mark.benchmark(disable_gc=True)
def test_norm(
    op: str, pass_: str, shape: str, dtype: str, name: str, benchmark: Any, versions: dict[str, str]
) -> None:
    case = Case(op, pass_, parse_shape(shape), dtype)
    inputs, peer = make_inputs(case), backend(name)
    given = replace(inputs, arguments=copied(inputs.arguments))
    # temporaries of NumPy keep its data cold
    contender = peer.contender(case, given, 1 if name == BASELINE else case.slots(cache_sizes()[1]))
    error = verify(peer, case, inputs, given, contender)
    rounds = 1
    if benchmark.enabled:
        contender.warm_up()
        rounds = min(MOST, max(LEAST, math.ceil(SECONDS / (contender.calls * contender.fresh()))))
    benchmark.group = "-".join((op, pass_, shape, dtype))
    benchmark.pedantic(contender.once, rounds=rounds, iterations=contender.calls, warmup_rounds=1)
    del contender
    release_buffers()
    benchmark.extra_info |= {
        "op": op,
        "pass": pass_,
        "shape": shape,
        "dtype": dtype,
        "backend": name,
        "baseline": name == BASELINE,
        "bytes": case.bytes_moved,
        "gbs": case.bytes_moved / benchmark.stats["median"] / 1e9 if benchmark.enabled else None,
        "error": error,
        "threads": numba.get_num_threads(),
        "versions": versions,
    }
