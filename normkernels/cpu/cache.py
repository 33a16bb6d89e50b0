"""Machine code kept on disk: one file for each kernel and signature, named after them.

A file holds two digests, of what it was compiled for and of the code, then the code. It is written aside and
put in place whole, so that a reader finds an old file, a new one or none. Code that is cut, foreign or out of
date is compiled again and replaced. A cache can cost time, never a result.
"""

import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import llvmlite
import numba
from filelock import FileLock, Timeout
from numba.core.caching import CompileResultCacheImpl, NullCache
from numba.core.serialize import dumps

logger = logging.getLogger("normkernels")
QUIET = "NORMKERNELS_QUIET"
# A process that compiles a kernel has it in seconds. One that was stopped must not hold others up for good.
LONGEST_WAIT_S = 60.0
VERSIONS = (numba.__version__, llvmlite.__version__)
_announcing = True


def _digest(content: bytes | tuple[Any, ...]) -> bytes:
    return hashlib.sha256(content if isinstance(content, bytes) else repr(content).encode()).digest()


def folder() -> Path | None:
    """Where kernels of this package are kept; None where nothing can be written."""
    try:
        return Path(CompileResultCacheImpl(_digest).locator.get_cache_path())
    except RuntimeError:
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """While a progress bar says what is compiled."""
    global _announcing
    _announcing = False
    try:
        yield
    finally:
        _announcing = True


def _is_for(path: Path, key: tuple[Any, ...]) -> bool:
    """Whether a file is there, and of these versions."""
    try:
        with path.open("rb") as file:
            return file.read(32) == _digest(key)
    except OSError:
        return False


class KernelCache(NullCache):  # type: ignore[misc]  # numba is untyped
    """The files of one kernel, as numba's dispatchers use a cache."""

    def __init__(self, function: Callable[..., Any], name: str, stamp: bytes) -> None:
        self.name = name
        self._stamp = stamp
        try:
            self._directory: Path | None = Path(CompileResultCacheImpl(function).locator.get_cache_path())
        except RuntimeError:  # no writable place: kernels are compiled in every process
            self._directory = None

    @property
    def cache_path(self) -> str | None:
        return None if self._directory is None else str(self._directory)

    def _key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        """What machine code depends on: kernel, signature, processor (they name its file); versions."""
        arguments = ", ".join(str(a) for a in sig)
        return (
            self.name,
            arguments,
            sys.implementation.cache_tag,
            codegen.magic_tuple(),
            VERSIONS,
            self._stamp,
        )

    def _path(self, key: tuple[Any, ...]) -> Path | None:
        if self._directory is None:
            return None
        return self._directory / f"{self.name}-{_digest(key[:4]).hex()[:24]}.nbc"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled kernel, or None, after which numba compiles it."""
        target_context.refresh()
        key = self._key(sig, target_context.codegen())
        path = self._path(key)
        if path is not None:
            try:
                return self._rebuilt(path.read_bytes(), key, sig, target_context)
            except FileNotFoundError:
                pass
            except Exception as error:  # of whatever kind: unpickling alone may raise any
                logger.info("%s is compiled again: %s", path, error)
                with suppress(OSError):
                    path.unlink()
        self._say(sig)
        return None

    def _rebuilt(self, content: bytes, key: tuple[Any, ...], sig: Any, target_context: Any) -> Any:
        made_for, digest, code = content[:32], content[32:64], content[64:]
        if made_for != _digest(key):
            raise ValueError("the file belongs to another version")
        if digest != _digest(code):
            raise ValueError("the file is damaged")
        compiled = CompileResultCacheImpl.rebuild(None, target_context, pickle.loads(code))
        if compiled.signature.args != tuple(sig):
            raise ValueError(f"the file holds {compiled.signature}")
        return compiled

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled kernel, where that can be done."""
        path = self._path(key := self._key(sig, data.codegen))
        if path is None:
            return
        code = dumps(data._reduce())
        aside = path.with_name(f"{path.name}.{uuid4().hex[:12]}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(_digest(key) + _digest(code) + code)
            os.replace(aside, path)
        except OSError as error:  # a full disk, a directory that is read-only by now
            logger.info("%s is not kept: %s", self.name, error)
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)

    @contextmanager
    def alone(self, sig: Any, codegen: Any) -> Iterator[None]:
        """While no other process compiles the same; without a wait where the kernel is kept already."""
        path = self._path(key := self._key(sig, codegen))
        if path is None or _is_for(path, key):
            yield
            return
        lock = FileLock(f"{path}.lock", timeout=LONGEST_WAIT_S)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except (OSError, NotImplementedError, Timeout):
            yield
            return
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                os.unlink(lock.lock_file)

    def _say(self, sig: Any) -> None:
        kept = "in this process only" if self._directory is None else f"in {self._directory}"
        line = f"compiling {self.name}, kept {kept}; ahead of use: normkernels compile"
        logger.info(line)
        if _announcing and not os.environ.get(QUIET) and sys.stderr is not None and sys.stderr.isatty():
            print(f"normkernels: {line}", file=sys.stderr)
