"""File locks that the operating system releases when a process dies, however it dies.

A lock belongs to an open file description: forked children share it, and it ends when the last of
them closes it. So a dead owner never blocks anyone, and no clock is involved.
"""

from __future__ import annotations

import errno
import os
import secrets
import sys
import weakref
from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int, exclusive: bool) -> bool:
        # Windows has no shared locks here: each holder locks a byte of its own instead.
        offset = 0 if exclusive else 1 + os.getpid() % (1 << 20)
        length = (1 << 20) + 2 if exclusive else 1
        os.lseek(fd, offset, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, length)
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(fd: int, exclusive: bool) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


class FileLock:
    """A lock on one file, held until :meth:`release`, garbage collection or the process's death.

    Build it with :func:`try_lock`.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._finalizer = weakref.finalize(self, os.close, fd)

    @property
    def held(self) -> bool:
        """Whether the lock has not been released yet."""
        return self._finalizer.alive

    def release(self) -> None:
        """Release the lock. Calling it again does nothing."""
        self._finalizer()


class NoLock(FileLock):
    """Stands for a lock where none is needed or possible: on a disk that nobody writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def held(self) -> bool:
        """Always."""
        return True

    def release(self) -> None:
        """Do nothing."""


def try_lock(path: Path, *, exclusive: bool, create: bool = True) -> FileLock | None:
    """Lock a file without waiting.

    Args:
        path: the file; its folder must exist.
        exclusive: exclude every other holder (True), or only exclusive ones (False).
        create: create the file if it is missing.

    Returns:
        The lock, or None if another process holds one that excludes it.

    Raises:
        OSError: the file cannot be opened, or the file system has no locks.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        except OSError as error:
            # A file that is read-only to us can still be locked.
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                raise error from None  # it cannot be created
        try:
            locked = _try_lock(fd, exclusive)
        except BaseException:
            os.close(fd)
            raise
        if not locked:
            os.close(fd)
            return None
        # If the file was removed between opening and locking, this lock guards nothing.
        try:
            same = os.path.samestat(os.fstat(fd), path.stat())
        except FileNotFoundError:
            same = False
        if same:
            return FileLock(path, fd)
        os.close(fd)
        if not create:
            raise FileNotFoundError(path)


def new_locked_file(folder: Path, suffix: str = "") -> FileLock:
    """Create an empty file with a random name (32 hexadecimal characters) and lock it exclusively.

    A cleanup that runs between creation and locking takes the file for an abandoned one and
    removes it; another is then created.

    Raises:
        OSError: the folder cannot be written to.
    """
    while True:
        path = folder / f"{secrets.token_hex(16)}{suffix}"
        try:
            lock = try_lock(path, exclusive=True)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
            continue
        if lock is not None:
            return lock
