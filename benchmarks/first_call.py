"""What a newcomer's first minute costs: processor seconds of the README's example, cold and warm.

    python benchmarks/first_call.py [--markdown docs/results/compile.md]

Each run is a new process. Cold ones begin with an empty kernel cache, warm ones with that of the first.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from normkernels.bench import markdown
from normkernels.bench.machine import machine

README = Path(__file__).parents[1] / "README.md"
BLOCK = "first-call"


def processor_seconds(code: str, cache: str) -> float:
    """User and system time of a process that runs the code."""
    program = f"{code}\nimport os\nprint(sum(os.times()[:2]))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "NUMBA_CACHE_DIR": cache},
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the sentence into a page")
    options = parser.parse_args()
    code = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[1]
    cold, warm = [], []
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(processor_seconds(code, cache))
            warm.append(processor_seconds(code, cache))
    m = machine(0)
    versions = ", ".join(f"{name} {version}" for name, version in m.versions.items())
    text = (
        f"The README's example takes {median(cold):.1f} s of processor time with an empty cache and "
        f"{median(warm):.1f} s with a full one: medians of {options.runs} processes, measured with "
        f"`python benchmarks/first_call.py` on {m.cpu} ({versions}), {m.date[:10]}."
    )
    print(text)
    if options.markdown:
        markdown.insert(options.markdown, text, BLOCK)


if __name__ == "__main__":
    main()
