"""Can the gate be trusted on this machine? Runs it on commits whose difference is known, and writes a table.

`python benchmarks/ab_trials.py --results DIR --markdown docs/tracking.md`: A/A runs, runs with a planted
slowdown of the row forward kernel, and runs with that slowdown taken back. Results that DIR has already are
not measured again.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click

from normkernels.bench import markdown
from normkernels.bench.ab import outcome as outcomes
from normkernels.bench.ab.outcome import Outcome

ROOT = Path(__file__).parents[1]
SLOWDOWN = ROOT / "tests" / "data" / "slowdown.patch"
# What uses the kernel that the patch slows down.
USES_IT = {"layer_norm/forward", "rms_norm/forward"}
OPTIONS = ("--cases", "benchmarks.ab_cases:short", "--max-minutes", "3")


HEADINGS = "trial", "runs", "right", "inconclusive", "that kernel's cases", "largest of the rest", "each took"


@dataclass(frozen=True)
class Trial:
    """Runs of one kind."""

    name: str
    title: str
    base: str
    head: str
    verdict: str | None

    def right(self, outcome: Outcome) -> bool:
        """Whether a run said what is true: these cases, no others, and the exit code that goes with them."""
        named = {v: {_kernel(c.name) for c in outcome.recurred(v)} for v in ("slower", "faster")}
        wanted: dict[str, set[str]] = {"slower": set(), "faster": set()}
        if self.verdict:
            wanted[self.verdict] = USES_IT
        return named == wanted and outcome.exit_code == (self.verdict == "slower")


TRIALS = (
    Trial("aa", "the same commit twice", "fast", "fast", None),
    Trial("slower", "a planted slowdown of about 20 %", "fast", "slow", "slower"),
    Trial("faster", "the slowdown taken back", "slow", "fast", "faster"),
)


def _kernel(case: str) -> str:
    return case.rpartition("/")[0]


def repository(folder: Path) -> None:
    """A clone of this repository at its last commit, `fast`, and with the patch, `slow`."""
    for words in (
        ["clone", "--quiet", "--shared", str(ROOT), str(folder)],
        ["-C", str(folder), "checkout", "--quiet", "-B", "fast"],
        ["-C", str(folder), "checkout", "--quiet", "-B", "slow"],
        ["-C", str(folder), "apply", str(SLOWDOWN)],
        ["-C", str(folder), "-c", "user.name=ab", "-c", "user.email=ab@localhost", "commit", "-qam", "slow"],
    ):
        subprocess.run(["git", *words], check=True)


def run(trial: Trial, seed: int, file: Path, clone: Path) -> Outcome:
    """One run of the gate, if its result is not there yet."""
    if not file.exists():
        words = ["--base", trial.base, *(["--aa"] if trial.base == trial.head else ["--head", trial.head])]
        words += ["--seed", str(seed), "--json", str(file.resolve()), *OPTIONS]
        gate = [sys.executable, "-m", "normkernels.cli", "ab", *words]
        subprocess.run(gate, cwd=clone, stdout=subprocess.DEVNULL)
    return outcomes.load(file)


def row(trial: Trial, found: list[Outcome]) -> str:
    """What came out of the runs of a trial."""
    minutes = [outcome.seconds / 60 for outcome in found]
    right = sum(trial.right(outcome) for outcome in found)
    inconclusive = sum(bool(outcome.moved) for outcome in found)
    ratios = [c.ratio for o in found for c in o.first if _kernel(c.name) in USES_IT]
    rest = [c for o in found for c in o.first if not trial.verdict or _kernel(c.name) not in USES_IT]
    cells = [
        trial.title,
        f"{len(found)}",
        f"**{right}**",
        f"{inconclusive}",
        f"{min(ratios) - 1:+.0%} to {max(ratios) - 1:+.0%}",
        f"{max(abs(c.change) for c in rest):.1%}",
        f"{min(minutes):.1f} to {max(minutes):.1f} min",
    ]
    return markdown.line(cells)


@click.command()
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), required=True)
@click.option("--markdown", "page", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--aa", default=12, show_default=True)
@click.option("--slower", default=5, show_default=True)
@click.option("--faster", default=3, show_default=True)
def main(results: Path, page: Path, **counts: int) -> None:
    """Run the trials and write their table into a page."""
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "clone")
        repository(clone)
        found = {
            trial: [
                run(trial, seed, results / f"{trial.name}-{seed}.json", clone)
                for seed in range(counts[trial.name])
            ]
            for trial in TRIALS
            if counts[trial.name]
        }
    every = [outcome for each in found.values() for outcome in each]
    sides = [side for outcome in every for side in (outcome.base, outcome.head) if side.ref == "fast"]
    code = " and ".join(dict.fromkeys(side.commit[:9] for side in sides))
    cpu, date = every[0].machine.cpu, every[0].machine.date[:10]
    lines = [
        f"Measured with `python benchmarks/ab_trials.py` at {code} on {cpu}, {date}.",
        "",
        markdown.line(HEADINGS),
        markdown.rule(1, len(HEADINGS) - 1),
        *(row(trial, each) for trial, each in found.items()),
    ]
    markdown.insert(page, "\n".join(lines))


if __name__ == "__main__":
    main()
