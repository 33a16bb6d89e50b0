"""A run as a table: for the terminal, and as Markdown between the markers of a page."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ..markdown import line, rule
from ..summary import BUSY, duration
from .cases import ALL, BFLOAT16, EAGER, MODES
from .results import Ratio, Results, Row

# A run writes the block of the way in which it called models.
BLOCKS = {mode: f"models-{mode}" for mode in MODES}
LEFT = ("model", "pass", "dtype", "batch")
RIGHT = (
    *("step before", "after", "times faster"),
    *("norms of it before", "after", "norms, times faster"),
    *("peak before", "after"),
)


def cells(row: Row) -> list[str]:
    """As many as there are headings."""
    case, (before, after) = row.case, (row.seconds(variant) for variant in (0, 1))
    return [
        ALL[case.model].title,
        case.pass_,
        case.dtype,
        str(case.batch),
        duration(before),
        duration(after),
        _times(row.ratio),
        *(_share(row.share(variant)) for variant in (0, 1)),
        _times(row.norms_ratio),
        *(f"{peak / 2**20:.0f} MB" for peak in row.peaks),
    ]


def _times(found: Ratio | None) -> str:
    return "–" if found is None else f"{found.middle:.2f} ({found.low:.2f}–{found.high:.2f})"


def _share(found: float | None) -> str:
    return "–" if found is None else f"{found:.1%}"


def render(results: Results) -> str:
    """What was measured where, the table, and how each number came about."""
    m = results.machine
    versions = ", ".join(f"{name} {v}" for name, v in m.versions.items())
    used = f"other work used {results.others:.0%} of the processors meanwhile"
    return "\n".join(
        [
            *([f"**{used.capitalize()}.**", ""] if results.others > BUSY else []),
            f"Measured with `{results.command}` on {m.title}, {m.memory_bytes / 2**30:.0f} GB "
            f"({versions}), {m.date[:10]}.",
            "",
            line([*LEFT, *RIGHT]),
            rule(len(LEFT), len(RIGHT)),
            *(line(cells(row)) for row in results.rows),
            "",
            explanation(results),
        ]
    )


def explanation(results: Results) -> str:
    """How to read the table."""
    rows, mode = results.rows, results.rows[0].case.mode
    said = [
        "Before and after `replace_norms` of the same model; both take turns in one process, "
        f"{min(len(row.steps) for row in rows)} pairs of steps or more. Times faster: the median over the "
        "pairs of the time before by the time after, and its 99 % interval."
    ]
    if any(row.case.training for row in rows):
        said.append("A training step is forward, loss, backward and SGD; inference is forward alone.")
    if any(row.case.dtype == BFLOAT16 for row in rows):
        said.append("bfloat16 is autocast in training, and weights in bfloat16 in inference.")
    if mode == EAGER:
        said.append(
            "Norms: all that `replace_norms` changes, with the activation that some have, forward and "
            "backward alone, one after the other, on tensors of the shapes, strides and dtypes that hooks "
            "saw in the model; as a part of the step's time."
        )
    else:
        said.append("Norms have no time of their own where PyTorch's are compiled into their neighbours.")
    said.append(
        "Peak: the largest resident size of a process that takes steps with one model, in which the "
        "same libraries are loaded."
    )
    return " ".join([*said, *_errors(rows)])


def _errors(rows: Sequence[Row]) -> list[str]:
    """The largest errors from float64, by dtype."""
    said = []
    for dtype in dict.fromkeys(row.case.dtype for row in rows):
        own = [row.errors for row in rows if row.case.dtype == dtype]
        kinds = [("outputs", [each.output for each in own])]
        kinds += [("gradients", found)] if (found := [e.gradients for e in own if e.gradients]) else []
        for what, errors in kinds:
            before, after = map(max, zip(*errors, strict=True))
            said.append(f"{what} in {dtype} {before:.1e} before and {after:.1e} after")
    return [f"Largest errors beside float64, relative to the size of a tensor: {'; '.join(said)}."]


def table(results: Results) -> Table:
    """For the terminal."""
    shown = Table()
    for number, heading in enumerate((*LEFT, *RIGHT)):
        shown.add_column(heading, justify="left" if number < len(LEFT) else "right")
    for row in results.rows:
        shown.add_row(*cells(row))
    return shown


def show(results: Results, console: Console) -> None:
    """Print it."""
    console.print(table(results))
    console.print(explanation(results), highlight=False)
