"""Rows in groups, and their means."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import exp, log
from operator import attrgetter

from .cases import COLD
from .peers import PEERS
from .results import Baseline, Results, Row

OWN = "normkernels"
# Those that are no library of peers.PEERS.
TITLES = {"steps": "steps", "triton": "Triton", "cupy": "CuPy", OWN: OWN}

# From this share on what others did meanwhile is said.
BUSY = 0.05


@dataclass(frozen=True)
class Means:
    """Geometric means over the layers of a model, each as often as the model has it.

    Fractions are over cold cases only, and None where there is none.
    """

    fresh: float | None
    into_out: float | None
    of_phases: float | None
    ratio: float | None


def group_title(row: Row) -> str:
    """What the rows of one table share."""
    case = row.case
    layout = "" if case.layout == "contiguous" else f", {case.layout}"
    condition = "" if case.condition == COLD else f", {case.condition}"
    return f"{case.name} {case.pass_}, {case.dtype}{layout}{condition}"


def preset_title(row: Row) -> str:
    """The preset of a row and its batch; for row norms a batch is a multiple of the preset's rows."""
    case = row.case
    if case.batch is None:
        return case.size
    if len(case.shape) == 2 and (case.op != "batch_norm" or case.batch == 1):  # nor has it a batch of 1
        return case.preset if case.batch == 1 else f"{case.preset} ×{case.batch}"
    return f"{case.preset}, N={case.batch}"


def groups(rows: Sequence[Row], key: Callable[[Row], str]) -> list[tuple[str, list[Row]]]:
    """Rows by key, keys in order of first appearance."""
    order = {title: i for i, title in enumerate(dict.fromkeys(map(key, rows)))}
    together = sorted(rows, key=lambda row: order[key(row)])
    return [(title, list(members)) for title, members in groupby(together, key)]


def slowest(rows: Sequence[Row]) -> Row | None:
    """The row furthest from the limit, among the cold ones."""
    cold = [row for row in rows if row.cold]
    return min(cold, key=lambda row: row.fresh.fraction, default=None)


def means(rows: Sequence[Row], ratio: Callable[[Row], float | None] = attrgetter("ratio")) -> Means:
    cold = [row for row in rows if row.cold]
    return Means(
        geometric_mean([(row.fresh.fraction, row.case.count) for row in cold]),
        geometric_mean([(row.into_out.fraction, row.case.count) for row in cold]),
        geometric_mean([(row.of_phases, row.case.count) for row in rows if row.of_phases is not None]),
        geometric_mean([(r, row.case.count) for row in rows if (r := ratio(row)) is not None]),
    )


def geometric_mean(weighted: Sequence[tuple[float, int]]) -> float | None:
    """Of values, each as often as its weight says; None of none."""
    total = sum(weight for _, weight in weighted)
    return exp(sum(weight * log(value) for value, weight in weighted) / total) if total else None


def title(name: str) -> str | None:
    """What a library is called, None where it is not known here."""
    return PEERS[name].title if name in PEERS else TITLES.get(name)


def shown(name: str) -> str:
    """As `title`, or the name itself."""
    return title(name) or name


@dataclass(frozen=True)
class Against:
    """What the ratios of a table are to."""

    title: str
    ratio: Callable[[Row], float | None]


def against(results: Results) -> Against | None:
    """The library beside the kernels, the fastest of several on the processors, None where there was none."""
    names = libraries(results)
    if results.machine.device:
        names = [row.baseline.name for row in results.rows if row.baseline]
    elif len(names) > 1:
        return Against("fastest", lambda row: row.ratio_to_fastest)
    found = title(names[0]) if names else None
    return Against(found, lambda row: ratio_to(row, names[0])) if found else None


def winner(row: Row) -> str:
    """Who is fastest, the kernels among them."""
    return row.fastest if row.fastest and (row.ratio_to_fastest or 1) < 1 else OWN


def wins(rows: Sequence[Row]) -> list[tuple[str, int]]:
    """Who is fastest, and in how many cases, the most first."""
    return Counter(map(winner, rows)).most_common()


def libraries(results: Results) -> list[str]:
    """The names of all that was measured beside the kernels."""
    return list(dict.fromkeys(each.name for row in results.rows for each in row.baselines))


def of_library(row: Row, name: str) -> Baseline | None:
    """What a library took for a case."""
    return next((each for each in row.baselines if each.name == name), None)


def ratio_to(row: Row, name: str) -> float | None:
    """How many times faster than a library; None where it was not measured."""
    other = of_library(row, name)
    return row.ratio_to(other) if other else None


def mean_ratio(rows: Sequence[Row], name: str) -> float | None:
    """How many times faster than a library, in the geometric mean over the layers of models."""
    ratios = [(ratio_to(row, name), row.case.count) for row in rows]
    return geometric_mean([(ratio, count) for ratio, count in ratios if ratio is not None])


def caption(results: Results) -> str:
    """The machine and the limit, in one line."""
    m, copy = results.machine, results.copy
    if m.device:
        form = "the driver's" if copy.streaming > copy.plain else "a kernel's"
        return (
            f"{m.device.name}, compute capability {m.device.compute_capability}, driver {m.device.driver}; "
            f"a large copy on the device: {copy.best:.0f} GB/s ({form}); {m.date[:10]}"
        )
    form = "streaming" if copy.streaming > copy.plain else "plain"
    busy = f"; others used {results.others:.0%} of the processors" if results.others > BUSY else ""
    return (
        f"{m.cpu}, {m.threads} of {m.logical_cores} cores, {m.memory_bytes / 2**30:.0f} GB; "
        f"a large copy: {copy.best:.1f} GB/s ({form} stores); {m.date[:10]}{busy}"
    )


def busy(results: Results) -> str:
    """What to do where other work used the cores that were measured; an empty string where it did not."""
    m = results.machine
    taken = results.others * m.logical_cores
    if m.device or m.threads + taken <= (1 + BUSY) * m.logical_cores:
        return ""
    used = f"other work used {taken:.1f} of {m.logical_cores} cores meanwhile"
    if m.threads == 1:
        return f"{used}: measure again when it has ended"
    return f"{used}, and {m.threads} threads wait for the slowest: use --threads 1, or wait for it to end"


def times(ratio: float | None) -> str:
    """How many times faster, with two digits where it is slower."""
    if ratio is None:
        return "–"
    return f"{ratio:.1f}×" if ratio >= 1 else f"{ratio:.2g}×"


def duration(seconds: float, like: float | None = None) -> str:
    """Three digits with a unit; as a bare number in the unit of `like` where that is given."""
    units = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
    unit, scale = next((u for u in units.items() if (like or seconds) >= u[1]), ("ns", 1e-9))
    value = seconds / scale
    digits = f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    return digits if like else f"{digits} {unit}"
