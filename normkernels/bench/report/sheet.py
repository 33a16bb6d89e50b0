"""The cases of a page as a table for other programs."""

import csv
import io

from .data import Report

COLUMNS = (
    "file", "date", "commit", "machine", "norm", "pass", "preset", "shape", "dtype", "bytes", "seconds",
    "seconds_p10", "seconds_p90", "gb_per_s", "of_copy", "of_copy_into_out", "of_phases",
    "baseline", "times_faster",
)  # fmt: skip


def render(report: Report) -> str:
    """CSV with a row for each case of each run; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in report.entries:
        run, other = report.runs[entry.run], entry.other
        case = [entry.norm, entry.pass_, entry.preset, entry.shape, entry.dtype, entry.bytes]
        seconds, speeds = [entry.median, entry.p10, entry.p90], [entry.gbs, entry.fraction, entry.into_out]
        speeds.append(entry.limit.ratio if entry.limit else None)
        beside = [other.name, other.ratio] if other else [None, None]
        writer.writerow([run.file, run.date, run.label, run.machine, *case, *seconds, *speeds, *beside])
    return text.getvalue()
