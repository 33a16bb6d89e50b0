"""Printing, for readers that may have had enough."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import click

from ..cpu.cache import QUIET
from . import files
from .selection import BadOption


def say(text: str, stream: TextIO | None = None) -> None:
    """Print; a reader that has enough, like `head -1`, is no error."""
    stream = stream or sys.stdout
    try:
        click.echo(text, file=stream, nl=not text.endswith("\n"), color=True)
    except UnicodeEncodeError:
        say(text.encode(stream.encoding, "replace").decode(stream.encoding), stream)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # the flush at exit would fail again
        if not isinstance(error, BrokenPipeError):
            raise BadOption(f"standard output must be writeable, got {error.strerror}") from None


def note(text: str) -> None:
    """A line on stderr about what a command does, unless NORMKERNELS_QUIET asks for none."""
    if not os.environ.get(QUIET):
        with suppress(OSError):
            click.echo(f"normkernels: {text}", err=True)


def wrote(path: Path) -> None:
    """Say which file was written; of the process's own streams nothing is to be said."""
    if not files.is_stream(path, files.STDOUT, files.STDERR):
        note(f"wrote {path}")
