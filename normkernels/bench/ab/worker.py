"""One side of a pair: set cases up, check them, time them, check them again. Run as a script, by its path.

It runs where the code under test lives, which may be an old commit or another package: it needs
the standard library and NumPy, and imports nothing of the package it belongs to.

`python -P worker.py REQUEST ANSWER`, both JSON files. REQUEST: module, function, file and folder beside it
(or null), root (or null) and repository, names (or null for all), seconds for each case (0: only set up and
check), seed. ANSWER: names, seconds per call by case, failed: messages by case, and `origins`; or error.
"""

import gc
import importlib
import importlib.util
import json
import math
import random
import statistics
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

Call = Callable[[], Any]
Setup = Callable[[], Any]

# A sample is so many calls that the clock's own time vanishes.
SAMPLE_SECONDS = 1e-3
LEAST_SAMPLES = 3
# Each case is set up twice: where its arrays lie in memory moves a time by more than a regression may.
SETUPS = 2


def copy() -> Call:
    """Control: a copy that goes to memory."""
    source, target = np.ones(2**23, np.float32), np.empty(2**23, np.float32)
    return lambda: np.copyto(target, source)


def numpy_layer_norm() -> Call:
    """Control: arithmetic in the cache, by NumPy."""
    x = np.linspace(-1, 1, 2**16, dtype=np.float32).reshape(64, 1024)
    return lambda: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)


CONTROLS: dict[str, Setup] = {"control: copy": copy, "control: NumPy": numpy_layer_norm}


class WrongResult(Exception):
    """A check that did not pass."""


def cases_of(request: dict[str, Any]) -> dict[str, Setup]:
    """The cases, and the controls beside them."""
    if request["file"]:
        if request["beside"]:
            sys.path.append(request["beside"])  # after all else
        spec = importlib.util.spec_from_file_location("ab_cases", request["file"])
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["ab_cases"] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(request["module"])
    where = f"{request['module']}:{request['function']}"
    function = getattr(module, request["function"], None)
    if not callable(function):
        raise TypeError(f"{where} must be a function, got {function!r}")
    cases = function()
    if not (isinstance(cases, dict) and cases and all(map(callable, cases.values()))):
        raise TypeError(f"{where} must return names and functions in a dict, got {cases!r:.60}")
    for name in cases:
        if not isinstance(name, str) or name in CONTROLS:
            raise TypeError(f"{where} must name cases by strings that no control has, got {name!r}")
    return {**cases, **CONTROLS}


def prepared(setup: Setup) -> tuple[Call, Call]:
    """What is timed, called once (which compiles it), and its check, passed."""
    made = setup()
    call, check = made if isinstance(made, tuple) else (made, lambda: None)
    if not (callable(call) and callable(check)):
        raise TypeError(f"a case must return a function to time, or that and its check, got {made!r:.60}")
    call()
    passed(check)
    return call, check


def passed(check: Call) -> None:
    """Run a check; raises WrongResult."""
    try:
        check()
    except Exception as error:
        raise WrongResult(f"a wrong result ({described(error)})") from error


def described(error: Exception) -> str:
    """An exception in one line, with the place it came from."""
    text = " ".join(str(error).split())
    if isinstance(error, WrongResult):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if isinstance(error, SyntaxError) else f" at {Path(last.filename).name}:{last.lineno}"
    return f"{type(error).__name__}{place}: {text:.300}"


def samples(call: Call, seconds: float) -> list[float]:
    """Seconds per call, again and again until so many seconds have passed."""
    start = perf_counter()
    call()
    calls = max(1, math.ceil(SAMPLE_SECONDS / (perf_counter() - start)))
    times: list[float] = []
    begin = perf_counter()
    while len(times) < LEAST_SAMPLES or perf_counter() - begin < seconds:
        start = perf_counter()
        for _ in range(calls):
            call()
        times.append((perf_counter() - start) / calls)
    return times


def typical(times: list[float]) -> float:
    """The tenth percentile: a call that nothing disturbed.

    Beside other work it scatters from process to process two to four times less than the median.
    """
    return statistics.quantiles(times, n=10, method="inclusive")[0]


def measure(setup: Setup, seconds: float) -> list[float]:
    """Samples of one case between two checks; none where no seconds are given."""
    call, check = prepared(setup)
    if not seconds:
        return []
    gc.collect()
    gc.disable()
    try:
        times = samples(call, seconds / SETUPS)
    finally:
        gc.enable()
    passed(check)
    return times


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    cases = cases_of(request)
    names = list(cases if request["names"] is None else request["names"])
    random.Random(request["seed"]).shuffle(names)
    times: dict[str, list[float]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    for _ in range(SETUPS if request["seconds"] else 1):
        for name in names:
            try:
                times[name] += measure(cases[name], request["seconds"])
            except Exception as error:
                failed[name] = described(error)
    return {
        "names": list(cases),
        "seconds": {name: typical(t) for name, t in times.items() if t and name not in failed},
        "failed": failed,
        **(origins(request) if request["root"] else {"found": True, "stray": None}),
    }


def origins(request: dict[str, Any]) -> dict[str, Any]:
    """Whether code besides the cases came from root, and what came from the user's work tree instead."""
    this = sys.modules["__main__"]  # which multiprocessing, once imported, knows by another name too
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values()) if module is not this]
    paths = [Path(file).resolve() for file in files if file]
    root, repository = Path(request["root"]), Path(request["repository"])
    allowed = root.parent, Path(sys.prefix)  # the checkouts; an environment may lie in the work tree
    stray = [
        str(path)
        for path in paths
        if path.is_relative_to(repository) and not any(path.is_relative_to(place) for place in allowed)
    ]
    found = any(path.is_relative_to(root) for path in paths if str(path) != request["file"])
    return {"found": found, "stray": stray[0] if stray else None}


def main() -> None:
    request, answer = map(Path, sys.argv[1:])
    try:
        result = run(json.loads(request.read_text()))
    except Exception as error:
        result = {"error": described(error)}
    answer.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
