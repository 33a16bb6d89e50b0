"""Printing, for readers that may have had enough."""

import os
import sys
from typing import TextIO

import click

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
