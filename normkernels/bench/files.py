"""Writing files: a regular one whole or not at all, anything else (a device, a fifo) directly."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STDOUT, STDERR = 1, 2


def check(path: Path) -> None:
    """Raise OSError where `write` is bound to fail."""
    status = _status(path)
    if _replaceable(path, status):
        with _temporary(path):
            pass


def write(path: Path, content: bytes) -> None:
    """Put `content` into the file that `path` leads to; an interrupted write leaves it as it was."""
    status = _status(path)
    if not _replaceable(path, status):
        # to append: a redirected /dev/stdout keeps what it holds; and a reader may have had enough
        with suppress(BrokenPipeError), path.open("ab") as stream:
            stream.write(content)
        return
    with _temporary(path) as temporary:
        temporary.write_bytes(content)
        temporary.chmod(stat.S_IMODE(status.st_mode) if status else 0o666 & ~_umask())
        temporary.replace(os.path.realpath(path))


def is_stream(path: Path, *streams: int) -> bool:
    """Whether `path` is what one of the process's own streams writes to."""
    for stream in streams:
        with suppress(OSError):
            if os.path.samestat(os.fstat(stream), path.stat()):
                return True
    return False


def _status(path: Path) -> os.stat_result | None:
    """What is at the end of the path, None where there is nothing yet; OSError for what cannot be written."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    # root may write to any file, but one that nobody may write to was protected on purpose
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return status


def _replaceable(path: Path, status: os.stat_result | None) -> bool:
    return status is None or (stat.S_ISREG(status.st_mode) and not is_stream(path, STDOUT, STDERR))


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """An empty file in the folder of what `path` leads to, gone after the block unless it was moved."""
    handle, name = tempfile.mkstemp(dir=os.path.dirname(os.path.realpath(path)), prefix=".normkernels-")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
