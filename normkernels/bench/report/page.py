"""The page: one HTML file that needs no other."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from ..results import as_json
from ..summary import times
from .data import CHARTS, Report

SCRIPTS = (
    "svg.js",
    "marks.js",
    "plot.js",
    "speed.js",
    "roofline.js",
    "throughput.js",
    "history.js",
    "charts.js",
    "table.js",
    "page.js",
)

# heading, and what is in the column
COLUMNS = (
    ("norm", "text"),
    ("pass", "text"),
    ("preset", "text"),
    ("shape", "text"),
    ("dtype", "text"),
    ("time", "number"),
    ("p10–p90", "number"),
    ("GB/s", "number"),
    ("of copy", "number"),
    ("of phases", "number"),
    ("into out=", "number"),
    ("vs baseline", "number"),
    ("results", "text"),
)


def render(report: Report) -> str:
    """The page of a report. Whatever text the results hold shows as text."""
    script = "\n" + "\n".join(_text(name) for name in SCRIPTS)
    return (
        _template()
        .render(
            report=report,
            charts=CHARTS,
            columns=columns(report),
            times=times,
            data=as_json(report),
            style=Markup(_text("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        .lstrip()
    )


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_text("page.html"))


def columns(report: Report) -> list[tuple[str, str]]:
    """The columns in which some case has a value."""
    used = {
        "pass": any(entry.pass_ for entry in report.entries),
        "preset": any(entry.preset for entry in report.entries),
        "dtype": any(entry.dtype for entry in report.entries),
        "GB/s": any(entry.gbs is not None for entry in report.entries),
        "of copy": any(entry.fraction is not None for entry in report.entries),
        "of phases": any(entry.limit for entry in report.entries),
        "into out=": any(entry.into_out is not None for entry in report.entries),
        "vs baseline": any(entry.other for entry in report.entries),
        "results": len(report.runs) > 1,
    }
    return [(heading, kind) for heading, kind in COLUMNS if used.get(heading, True)]


def _text(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")
