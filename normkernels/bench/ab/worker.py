"""One side of a pair: set cases up, check them, time them, check them again. Run as a script, by its path.

It runs where the code under test lives, which may be an old commit or another package: it needs
the standard library and NumPy, and imports nothing of the package it belongs to.

`python -P worker.py REQUEST ANSWER`, both JSON files. REQUEST: module, function, file and folder beside it
(or null), root, the other arm's root, repository, isolated: whether the checkout is installed, names (or null
for all), seconds for each case (0: only set up and check), seed. ANSWER: names, seconds per call and bytes by
case, failed: messages by case, and `origins`; or error.
"""

import gc
import importlib
import importlib.metadata
import importlib.util
import json
import math
import os
import random
import statistics
import sys
import tomllib
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


def nothing() -> None:
    """The check of a case that has none."""


COPY, COPY_BYTES = "control: copy", 2**26


def copy() -> Call:
    """Control: a copy that goes to memory; COPY_BYTES are read and written."""
    source, target = (np.ones(COPY_BYTES // 8, np.float32) for _ in range(2))
    return lambda: np.copyto(target, source)


def numpy_layer_norm() -> Call:
    """Control: arithmetic in the cache, by NumPy."""
    x = np.linspace(-1, 1, 2**16, dtype=np.float32).reshape(64, 1024)
    return lambda: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True)


CONTROLS: dict[str, Setup] = {COPY: copy, "control: NumPy": numpy_layer_norm}


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


def prepared(setup: Setup) -> tuple[Call, Call, int | None]:
    """What is timed, called once (which compiles it), its check, passed, and the bytes that it must move."""
    made = setup()
    parts = list(made) if isinstance(made, tuple) and made else [made]
    call, check, nbytes, *more = parts + [nothing, None][len(parts) - 1 :]
    known = nbytes is None or (isinstance(nbytes, int | np.integer) and nbytes > 0)
    if more or not (callable(call) and callable(check) and known):
        rule = (
            "a case must return a function to time, or a tuple of that, its check and the bytes it must move"
        )
        raise TypeError(f"{rule}, got {made!r:.60}")
    call()
    passed(check)
    return call, check, nbytes and int(nbytes)


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


def measure(setup: Setup, seconds: float) -> tuple[list[float], int | None]:
    """Samples of one case between two checks, none where no seconds are given; and its bytes."""
    call, check, nbytes = prepared(setup)
    if not seconds:
        return [], nbytes
    gc.collect()
    gc.disable()
    try:
        times = samples(call, seconds / SETUPS)
    finally:
        gc.enable()
    passed(check)
    return times, nbytes


def run(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    cases = cases_of(request)
    names = list(cases if request["names"] is None else request["names"])
    random.Random(request["seed"]).shuffle(names)
    times: dict[str, list[float]] = {name: [] for name in names}
    nbytes: dict[str, int | None] = {}
    failed: dict[str, str] = {}
    for _ in range(SETUPS if request["seconds"] else 1):
        for name in names:
            try:
                taken, nbytes[name] = measure(cases[name], request["seconds"])
                times[name] += taken
            except Exception as error:
                failed[name] = described(error)
    return {
        "names": list(cases),
        "seconds": {name: typical(t) for name, t in times.items() if t and name not in failed},
        "bytes": nbytes,
        "failed": failed,
        **({} if request["seconds"] else origins(request)),
    }


def origins(request: dict[str, Any]) -> dict[str, Any]:
    """Where the imported code came from.

    `found`: whether any besides the cases came from the checkout. `stray`: a file from elsewhere, of a module
    that the checkout has too, in whichever folder. `shared`: modules beside the cases, which are read from
    head in both arms, that differ in base.
    """
    root, other, repository = (Path(request[name]) for name in ("root", "other", "repository"))
    own = Path(sys.prefix) if request["isolated"] else root
    foreign = [root, other] if request["isolated"] else []
    folders, installed = importable(root), distributed(root)
    found, stray, shared = request["isolated"], [], []
    for name, path in imported().items():
        if str(path) == request["file"]:
            continue
        if path.is_relative_to(own):
            found = True
        elif request["beside"] and path.is_relative_to(request["beside"]):
            if differs(path, root, other) and str(path.parent) == request["beside"]:
                shared.append(str(path.relative_to(other)))
            elif differs(path, root, other):  # a package, which is more than a part of the cases
                stray.append(str(path))
        elif (
            path in installed
            or holds(folders, name)
            or any(path.is_relative_to(place) for place in foreign)
            or (path.is_relative_to(repository) and not path.is_relative_to(sys.prefix))
        ):
            stray.append(str(path))
    return {"found": found, "stray": stray[0] if stray else None, "shared": shared}


def differs(path: Path, root: Path, other: Path) -> bool:
    """Whether a file of the other checkout is in this one too, with another content."""
    here = root / path.relative_to(other) if path.is_relative_to(other) else path
    return here.is_file() and here.read_bytes() != path.read_bytes()


def imported() -> dict[str, Path]:
    """The file of every module, but for those of the standard library and this one."""
    this = sys.modules["__main__"]  # which multiprocessing, once imported, knows by another name too
    modules = {name: module for name, module in list(sys.modules.items()) if module is not this}
    files = {name: getattr(module, "__file__", None) for name, module in modules.items()}
    return {
        name: Path(file).resolve()
        for name, file in files.items()
        if file and name.partition(".")[0] not in sys.stdlib_module_names
    }


def importable(root: Path) -> dict[str, list[Path]]:
    """What could be imported from some folder of a checkout, by its first name: the folders it lies in."""
    found: dict[str, list[Path]] = {}
    for folder, below, files in os.walk(root):
        for name in [*below, *(file.removesuffix(".py") for file in files if file.endswith(".py"))]:
            found.setdefault(name, []).append(Path(folder))
        below[:] = [
            name for name in below if name[0] != "." and not Path(folder, name, "__init__.py").is_file()
        ]
    return found


def holds(folders: dict[str, list[Path]], name: str) -> bool:
    """Whether a module of this name lies in one of the folders that `importable` found."""
    for folder in folders.get(name.partition(".")[0], []):
        path = folder.joinpath(*name.split("."))
        if path.with_name(f"{path.name}.py").is_file() or (path / "__init__.py").is_file():
            return True
    return False


def distributed(root: Path) -> set[Path]:
    """The files that an installed distribution has which is named as that of the checkout."""
    try:
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        files = importlib.metadata.files(project["name"]) or []
    except (OSError, ValueError, LookupError, TypeError, importlib.metadata.PackageNotFoundError):
        return set()
    return {Path(str(file.locate())).resolve() for file in files}


def main() -> None:
    request, answer = map(Path, sys.argv[1:])
    try:
        result = run(json.loads(request.read_text()))
    except Exception as error:
        result = {"error": described(error)}
    answer.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
