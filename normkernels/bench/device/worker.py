"""One library on cases: `python -m normkernels.bench.device.worker LIBRARY`.

Reads a line of JSON with the set-up, then one line per case; answers each case with one line: a row, None
where the library does not have the case, or what went wrong.
"""

import json
import os
import sys
from typing import Any, TextIO

from ..._devices import FatalDeviceError
from ...cuda import devices
from ..cases import Case
from ..results import as_json
from ..schema import made
from ..timing import Effort
from .clock import kernel_clock
from .copy import DeviceCopy
from .libraries import library
from .measure import Bench, Library, measure


def answer(case: Case, contending: Library, bench: Bench) -> dict[str, Any]:
    """What is said of a case."""
    try:
        row = measure(case, contending, bench)
    except Exception as error:  # of any library: the others go on
        text = " ".join(str(error).split())
        text = text if case.id in text else f"{case.id}: {type(error).__name__}: {text}"
        return {"problem": text[:400], "lost": isinstance(error, FatalDeviceError)}
    return {"row": row and as_json(row)}


def main() -> None:
    """Serve cases from standard input until it ends."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as answers:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print what they like
        serve(answers)


def serve(answers: TextIO) -> None:
    setup = json.loads(sys.stdin.readline())
    devices.require()
    bench = Bench(
        l2_bytes=setup["l2_bytes"],
        memory_bytes=setup["memory_bytes"],
        effort=Effort(**setup["effort"]),
        seed=setup["seed"],
        copy=DeviceCopy(setup["copy_bytes"], kernel_clock),
    )
    contending = library(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(answer(made(Case, json.loads(line)), contending, bench)), file=answers, flush=True)


if __name__ == "__main__":
    main()
