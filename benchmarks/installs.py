"""What the README's commands cost a newcomer: size and time of each in a fresh clone and virtual environment.

    python benchmarks/installs.py --into README.md

writes the table between the markers of `installs`. Needs a package index, and an idle machine.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from normkernels.bench.machine import machine
from normkernels.bench.markdown import insert, line, rule

ROOT = Path(__file__).parents[1]
BLOCK = "installs"


def commands() -> list[tuple[str, str]]:
    """The README's commands, in two parts each: an install, and what is run then."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Use\n")[0]
    return re.findall(r"^(pip install -e \S+) && (.+)$", text, re.MULTILINE)


def measured(install: str, then: str) -> list[str]:
    """Megabytes of the environment, duration of the install, and of what is run then if anything is."""
    with tempfile.TemporaryDirectory(prefix="normkernels-installs-") as folder:
        clone, environment = Path(folder, "clone"), Path(folder, "venv")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "PYTHON"))
        }
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"

        def duration(command: str) -> str:
            start = perf_counter()
            subprocess.run(command, shell=True, cwd=clone, env=variables, check=True)
            seconds = perf_counter() - start
            return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"

        installing = duration(install)
        size = sum(file.lstat().st_blocks * 512 for file in environment.rglob("*"))
        return [f"{size / 2**20:.0f} MB", installing, duration(then) if then else "–"]


def table(run: bool) -> str:
    """A row for each command, and where they ran."""
    m = machine(1)
    rows = [
        [f"`{install}`", f"`{then}`", *measured(install, then if run else "")] for install, then in commands()
    ]
    head = ["install", "then", "environment", "the install takes", "what is run then takes"]
    where = f"{m.cpu}, {m.cores} cores, Python {m.python}; {m.date[:10]}"
    return "\n".join(
        [
            *(line(head), rule(2, 3), *map(line, rows)),
            "",
            f"Measured with `python benchmarks/installs.py{'' if run else ' --install-only'}` on {where}.",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--into", type=Path, help="The page to write into.")
    parser.add_argument(
        "--install-only", action="store_true", help="Run nothing: sizes hold on a busy machine."
    )
    options = parser.parse_args()
    text = table(run=not options.install_only)
    print(text)
    if options.into:
        insert(options.into, text, BLOCK)


if __name__ == "__main__":
    main()
