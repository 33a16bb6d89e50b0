"""The files that a run leaves behind, each by the option that names it."""

import os
from collections.abc import Mapping
from pathlib import Path

from . import files, markdown, results
from .results import Results
from .say import wrote
from .selection import BadOption

JSON, PLOT, MARKDOWN = "--json", "--plot", "--markdown"
ERRORS = (OSError, UnicodeDecodeError, markdown.MarkersMissing)


def check(paths: Mapping[str, Path], block: str = markdown.RESULTS) -> None:
    """Say before a long run, not after it, that its results cannot be written; raises BadOption.

    `block` is the one of the page that they go to.
    """
    options: dict[str, str] = {}
    for option, path in paths.items():
        other = options.setdefault(os.path.realpath(path), option)
        if other != option:
            raise BadOption(f"{option} must name another file than {other}, got {path}")
        if option == MARKDOWN and not path.is_file():  # a fifo would be waited for
            raise BadOption(f"{option} must name a readable page, got {path}")
        try:
            files.check(path)
            if option == MARKDOWN:
                markdown.split(path, block)
        except ERRORS as error:
            raise BadOption(_problem(option, path, error)) from None
        if option == PLOT:
            _check_plot(path)


def write(outcome: Results, paths: Mapping[str, Path]) -> None:
    """Write every file that can be written; raises BadOption where one cannot."""
    problems = []
    for option, path in paths.items():
        try:
            _write(outcome, option, path)
        except ERRORS as error:
            problems.append(_problem(option, path, error))
        else:
            wrote(path)
    if problems:
        raise BadOption("; ".join(problems))


def _write(outcome: Results, option: str, path: Path) -> None:
    if option == JSON:
        results.save(outcome, path)
    elif option == MARKDOWN:
        markdown.update(path, outcome)
    else:
        from .plot import plot  # matplotlib takes a second to import

        plot(outcome, path)


def _check_plot(path: Path) -> None:
    if path.suffix.lower() != ".png" and (path.is_file() or not path.exists()):
        raise BadOption(f"{PLOT} must name a .png file, got {path}")
    from . import plot  # noqa: F401  a missing matplotlib is better found now


def _problem(option: str, path: Path, error: Exception) -> str:
    if isinstance(error, markdown.MarkersMissing):
        return f"{option}: {error}"
    if isinstance(error, UnicodeDecodeError):
        return f"{option} must name a page in UTF-8, got {path}"
    reason = getattr(error, "strerror", None) or error
    return f"{option} must name a file that can be written, got {path} ({reason})"
