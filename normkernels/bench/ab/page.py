"""A run of the gate as a table: for the terminal, and as Markdown for a pull request."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..markdown import line
from ..summary import duration
from .outcome import Outcome
from .verdict import Comparison

MARKS = {"slower": "🔺 slower", "faster": "🟢 faster", "same": ""}
HEADINGS = ("case", "base", "head", "change", "99 % interval", "p", "verdict")


def rows(outcome: Outcome) -> list[list[str]]:
    """A row for each case, what changed most first; then the controls."""
    again = {c.name: c for c in outcome.again}
    ordered = sorted(outcome.first, key=lambda c: (c.verdict == "same", -abs(c.change)))
    return [_cells(c, again.get(c.name)) for c in ordered] + [_cells(c, None) for c in outcome.controls]


def _cells(first: Comparison, again: Comparison | None) -> list[str]:
    shown = again or first
    mark = MARKS[shown.verdict]
    if again and first.verdict != again.verdict:
        mark = f"({first.verdict}, did not recur)"
    return [
        shown.name,
        duration(shown.base),
        duration(shown.head),
        f"{shown.change:+.1%}",
        f"{shown.low - 1:+.1%} to {shown.high - 1:+.1%}",
        f"{shown.p:.2g}",
        mark,
    ]


def explanation(outcome: Outcome) -> str:
    """What was compared, where, and how to read it."""
    m, plan, minutes = outcome.machine, outcome.plan, f"{outcome.seconds / 60:.1f} min"
    again = {c.name: c for c in outcome.again}
    reach = max(_reach(again.get(c.name, c)) for c in outcome.first)
    second = "Flagged cases were measured again: the table shows that second run. " if again else ""
    return (
        f"{plan.pairs} pairs of processes on {m.cpu}, threads: {m.threads}; {minutes}; {m.date[:10]}. "
        "Change: median over the pairs of head's time by base's. A case is flagged beyond "
        f"{plan.threshold:.0%} where the interval excludes 0 and p, corrected for all cases, is below 0.05. "
        f"{second}The widest interval reaches {reach:.1%} from its median."
    )


def _reach(comparison: Comparison) -> float:
    """How far the interval reaches from the median."""
    return max(comparison.high / comparison.ratio, comparison.ratio / comparison.low) - 1


def show(outcome: Outcome, console: Console) -> None:
    """Print the table and the verdict."""
    table = Table(box=box.SIMPLE_HEAD)
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i in (0, 6) else "right", no_wrap=i == 0)
    for cells in rows(outcome):
        table.add_row(*map(Text, cells))
    console.print(table)
    for name, reason in outcome.only_head.items():
        console.print(f"not in base: {name} ({reason})", markup=False)
    for text in _notes(outcome):
        console.print(text, markup=False, style="yellow")
    console.print(explanation(outcome), markup=False)
    console.print(_title(outcome), style="bold", markup=False)


def _notes(outcome: Outcome) -> list[str]:
    """What is missing in head, and what else a reader has to know."""
    return [*(f"not in head: {name}" for name in outcome.only_base), *outcome.notes]


def _title(outcome: Outcome) -> str:
    base, head = outcome.base, outcome.head
    sides = f"{base.ref} ({base.commit[:9]}) to {head.ref} ({head.commit[:9]})"
    return f"{'A/A ' if outcome.plan.aa else ''}{sides}: {outcome.headline}"


def markdown(outcome: Outcome) -> str:
    """The same, fit for a comment on a pull request."""
    flagged = {c.name for c in outcome.again} | set(outcome.moved)
    every = rows(outcome)
    lines = [f"### {_escaped(_title(outcome))}", ""]
    if flagged:
        lines += [*_table([row for row in every if row[0] in flagged]), ""]
    lines += [f"<details>\n<summary>All {len(outcome.first)} cases</summary>\n", *_table(every), ""]
    lines += [f"- not in base: {_escaped(f'{name} ({why})')}" for name, why in outcome.only_head.items()]
    lines += ["</details>\n", *(f"- {_escaped(text)}" for text in _notes(outcome)), ""]
    lines += [_escaped(explanation(outcome)), ""]
    return "\n".join(lines)


def _table(body: list[list[str]]) -> list[str]:
    head = [line(HEADINGS), line(["---", *["--:"] * (len(HEADINGS) - 2), "---"])]
    return [*head, *(line([_escaped(cell) for cell in row]) for row in body)]


def _escaped(text: str) -> str:
    """Text that is no Markdown and no HTML: a case or branch may have any name."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for sign in "\\`*_[]|#@":
        text = text.replace(sign, f"&#{ord(sign)};")
    return text
