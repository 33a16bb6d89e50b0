"""Process pairs: base and head one right after the other, in a balanced random order."""

import json
import math
import random
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from ..selection import BadOption
from .checkouts import CasesAt, Checkout
from .verdict import FALSE_DISCOVERIES, Pair

WORKER = Path(__file__).with_name("worker.py")
BASE, HEAD = "base", "head"
# With fewer no outcome is significant beside many cases: the least p that n pairs can give is 2 / 2**n.
LEAST_PAIRS, MOST_PAIRS = 12, 500
# Seconds for each case in each process: with less, the scheduler is measured; more gains nothing.
LEAST_SECONDS, MOST_SECONDS = 0.04, 0.3
# Of the minutes allowed; a rerun of all cases takes as long again.
FIRST_RUN = 0.5
# Unless the least that pairs and cases need is more.
DEFAULT_MINUTES = 10
# What says that base does not have something, rather than that it is broken.
ABSENT = ("AttributeError", "ImportError", "ModuleNotFoundError", "NotImplementedError")


class Failed(Exception):
    """A process of the code under test ended without an answer, or a case is wrong."""


@dataclass
class Arms:
    """Both checkouts, their common cases, and how long a process takes."""

    checkouts: dict[str, Checkout]
    at: CasesAt
    root_matters: bool
    names: list[str] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    only_head: dict[str, str] = field(default_factory=dict)
    """Cases that base cannot run, with its reason."""
    bytes: dict[str, int | None] = field(default_factory=dict)
    """What each case must move, where it says so."""
    shared: list[str] = field(default_factory=list)
    """Files beside the cases that are read from head in both arms, although base has others."""

    def answer(
        self,
        arm: str,
        names: Sequence[str] | None,
        seconds: float,
        seed: int = 0,
        at: CasesAt | None = None,
    ) -> dict[str, Any]:
        """What one process says of some cases; `at` is where they come from if not from head."""
        checkout, at = self.checkouts[arm], at or self.at
        request = {
            "module": at.module,
            "function": at.function,
            "file": at.file and str(at.file),
            "beside": at.beside and str(at.beside),
            "root": str(checkout.root),
            "other": str(self.checkouts[HEAD if arm == BASE else BASE].root),
            "repository": str(checkout.repository),
            "isolated": not self.root_matters,
            "names": names,
            "seconds": seconds,
            "seed": seed,
        }
        with tempfile.TemporaryDirectory(prefix="normkernels-ab-") as folder:
            asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
            asked.write_text(json.dumps(request))
            done = subprocess.run(
                [str(checkout.python), "-P", str(WORKER), str(asked), str(answered)],
                cwd=folder,
                env=checkout.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            if done.returncode or not answered.is_file():
                last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                raise Failed(f"the cases must run in {arm} ({checkout.ref}), got {last}")
            answer: dict[str, Any] = json.loads(answered.read_text())
        if "error" in answer:
            raise Failed(f"the cases must run in {arm} ({checkout.ref}), got {answer['error']}")
        return answer

    def prepare(self) -> None:
        """Compile and check every case in both arms; what base does not have is left out."""
        answers = {arm: self.answer(arm, None, 0) for arm in (HEAD, BASE)}
        for arm, answer in answers.items():
            if answer["stray"] or not answer["found"]:
                raise BadOption(
                    f"--cases must import the code of the checkout (its root, or its src), got "
                    f"{answer['stray'] or 'none'} in {arm}; --isolated installs what cannot be imported so"
                )
        for name, message in answers[HEAD]["failed"].items():
            raise Failed(f"case {name} must run and be right in head, got {message}")
        names = answers[HEAD]["names"]
        for name, message in answers[BASE]["failed"].items():
            if not message.startswith(ABSENT):
                raise Failed(f"case {name} must run and be right in base, or not be there, got {message}")
        self.only_head, self.bytes = answers[BASE]["failed"], answers[HEAD]["bytes"]
        self.shared = answers[BASE]["shared"]
        self.controls = [name for name in names if name.startswith("control: ")]
        self.names = [name for name in names if name not in {*self.only_head, *self.controls}]
        if not self.names:
            raise BadOption(f"--cases must have one that runs in both commits, got {len(names)} that do not")

    def removed(self, own: CasesAt) -> list[str]:
        """The cases that base has by its own list, and head has not."""
        gone = {*self.answer(BASE, [], 0, at=own)["names"]}
        return sorted(gone - {*self.names, *self.only_head, *self.controls})

    def check_power(self, pairs: int) -> None:
        """Refuse so many cases that the least p, corrected for them, is no longer significant."""
        needed = 1 + math.ceil(math.log2(len(self.names) / FALSE_DISCOVERIES))
        if pairs < needed:
            raise BadOption(f"--pairs must be {needed} or more for {len(self.names)} cases, got {pairs}")

    def seconds_to_spend(self, pairs: int, minutes: float | None, spent: float) -> tuple[float, float]:
        """Seconds for each case, found by a pair that is not kept, and minutes for pairs and rerun.

        `spent` minutes have passed already. Without `minutes` it is DEFAULT_MINUTES, or more if needed.
        """
        names = [*self.names, *self.controls]
        start = perf_counter()
        for arm in (BASE, HEAD):
            self.answer(arm, names, LEAST_SECONDS)
        fixed = (perf_counter() - start) / 2 - LEAST_SECONDS * len(names)
        least = math.ceil(spent + 2 * pairs * (fixed + LEAST_SECONDS * len(names)) / 60 / FIRST_RUN)
        if minutes is not None and minutes < least:
            raise BadOption(
                f"--max-minutes must be {least} or more for {pairs} pairs of {len(self.names)} cases, "
                f"got {minutes:g}"
            )
        minutes = minutes or max(DEFAULT_MINUTES, least)
        room = FIRST_RUN * (minutes - spent) * 60 / (2 * pairs) - fixed
        return min(MOST_SECONDS, room / len(names)), minutes

    def measure(
        self, names: Sequence[str], pairs: int, seconds: float, seed: int, step: Callable[[], None]
    ) -> dict[str, list[Pair]]:
        """Seconds of base and head by case and pair of processes; `step` is told of every process."""
        taken: dict[str, list[Pair]] = {name: [] for name in names}
        for number, order in enumerate(orders(pairs, seed)):
            answers = {}
            for arm in order:
                answers[arm] = self.answer(arm, names, seconds, seed + number)
                for name, message in answers[arm]["failed"].items():
                    raise Failed(f"case {name} must be right every time, got {message} in {arm}")
                step()
            for name in names:
                taken[name].append((answers[BASE]["seconds"][name], answers[HEAD]["seconds"][name]))
        return taken


def orders(pairs: int, seed: int) -> list[tuple[str, str]]:
    """Which arm goes first in each pair: each as often as the other, in random order."""
    first = [(BASE, HEAD)] * ((pairs + 1) // 2) + [(HEAD, BASE)] * (pairs // 2)
    random.Random(seed).shuffle(first)
    return first
