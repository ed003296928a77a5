"""The file of an item: read if it is plain and of bounded size, and known by its content."""

from __future__ import annotations

import errno
import functools
import os
import stat
import time
from pathlib import Path
from typing import BinaryIO, Protocol

from headstart.core.addresses import FarFile
from headstart.core.wording import format_bytes
from headstart.data.content import UndecodableError, digest
from headstart.data.names import composed


class DigestMemo(Protocol):
    """Remembers the digests of files that have not changed, so that they are not read again."""

    def lookup(self, path: Path | FarFile, /) -> str | None:
        """Return the digest of the file as it is now, or None if it is not known."""

    def remember(self, path: Path | FarFile, digest: str, /) -> None:
        """Keep the digest of the file as it is now."""

    def flush(self) -> None:
        """Write down what is kept so far."""


def file_digest(path: Path, memo: DigestMemo | None) -> str:
    """Return the id of a file's content, from the memo if it has not changed."""
    known = None if memo is None else memo.lookup(path)
    if known is None:
        known = digest(read_file(path))
        if memo is not None:
            memo.remember(path, known)
    return known


MAX_FILE = 2**30
"""Bytes of the largest file that is read: an image of the most pixels, stored plainly, is half."""


def read_file(path: Path) -> bytes:
    """Read a whole file; the reason of a failure in plain words.

    Only plain files are opened for reading: a pipe would wait for ever, and a device may never end.

    Raises:
        UndecodableError: missing, unreadable, a folder, a pipe, too large, ...
    """
    try:
        with _plain_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_FILE:
                raise UndecodableError(_too_large(size))
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        raise UndecodableError(_missing(path)) from None
    except IsADirectoryError:
        raise UndecodableError("a folder, not a file") from None
    except PermissionError:
        raise UndecodableError("no permission to read it") from None
    except MemoryError:
        raise UndecodableError("it needs more memory than is available") from None
    except UndecodableError:
        raise
    except (OSError, ValueError) as error:
        raise UndecodableError(getattr(error, "strerror", None) or str(error)) from None
    if len(data) > MAX_FILE:
        raise UndecodableError(_too_large(len(data)))
    return data


def _missing(path: Path) -> str:
    """Return that a file is missing, and what there is that differs in case or Unicode only."""
    found = _names_in(path.parent).get(composed(path.name).casefold())
    other = found is not None and found != path.name
    return f"no such file, but there is '{found}' beside it" if other else "no such file"


@functools.lru_cache(maxsize=4)
def _names_in(folder: Path) -> dict[str, str]:
    try:
        return {composed(name).casefold(): name for name in os.listdir(folder)}  # noqa: PTH208
    except OSError:
        return {}


def _plain_file(path: Path) -> BinaryIO:
    """Open a file for reading, without waiting; refuse what is no plain file."""
    # opened without waiting and looked at then: what a name leads to may change in between
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = _open_when_possible(path, flags)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError
    raise UndecodableError("a pipe, socket or device, not a file")


def _open_when_possible(path: Path, flags: int) -> int:
    """Open a file; wait a little where too many are open, which is no fault of this one."""
    for pause in (0.02, 0.1, 0.3, 1.0):
        try:
            return os.open(path, flags)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(pause)
    return os.open(path, flags)


def _too_large(size: int) -> str:
    return f"{format_bytes(size)}, more than the limit of {format_bytes(MAX_FILE)} for one item"


__all__ = ["MAX_FILE", "DigestMemo", "file_digest", "read_file"]
