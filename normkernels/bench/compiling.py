"""What compiling costs, as a table."""

from collections.abc import Sequence

from .._ahead import Compiled
from .machine import machine


def render(compiled: Sequence[Compiled], command: str) -> str:
    """Seconds as Markdown: a row for a kernel and what is fused, a column for a dtype."""
    columns = list(dict.fromkeys(c.dtype for c in compiled))
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for c in compiled:
        row = lines.setdefault((c.kernel, c.fused), {})
        row[c.dtype] = row.get(c.dtype, 0.0) + c.seconds
    m = machine(0)
    rows = [["kernel", "fused", *columns], ["---", "---", *["--:"] * len(columns)]]
    for (kernel, fused), row in lines.items():
        rows.append([kernel, fused, *(f"{row[c]:.1f} s" if c in row else "–" for c in columns)])
    versions = ", ".join(f"{name} {v}" for name, v in m.versions.items())
    total = f"{len(compiled)} variants, {sum(c.seconds for c in compiled):.0f} s"
    head = f"Measured with `{command}` on {m.cpu} ({versions}), {m.date[:10]}: {total}."
    return "\n".join([head, "", *(f"| {' | '.join(row)} |" for row in rows)])
