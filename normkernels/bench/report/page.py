"""The page: one HTML file that needs no other."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
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
    ("into out=", "number"),
    ("vs baseline", "number"),
    ("results", "text"),
)


def render(report: Report) -> str:
    """The page of a report. Whatever text the results hold shows as text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script = "\n" + "\n".join(_text(name) for name in SCRIPTS)
    return (
        environment.from_string(_text("page.html"))
        .render(
            report=report,
            charts=CHARTS,
            columns=COLUMNS,
            times=times,
            data=as_json(report),
            style=Markup(_text("page.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
        .lstrip()
    )


def _text(name: str) -> str:
    return files(__package__).joinpath("page", name).read_text(encoding="utf-8")
