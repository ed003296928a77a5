"""Durable files: temporary name, fsync, rename; and their errors in one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from headstart.core.errors import StoreError
from headstart.store.locks import new_locked_file, try_lock

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run again; what is committed stays"),
    errno.EDQUOT: ("the disk quota is used up", "free some space; what is committed stays"),
    errno.EFBIG: ("the file would grow too large for this disk", "raise the file size limit"),
    errno.EROFS: ("the disk is read-only", "choose another location"),
    errno.EACCES: ("permission is denied", "mend the permissions or choose another location"),
    errno.EPERM: ("permission is denied", "mend the permissions or choose another location"),
    errno.EMFILE: ("too many files are open in this process", "raise the limit of open files"),
}


@contextlib.contextmanager
def clear_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an OSError into a :class:`StoreError` of one line.

    Args:
        doing: what was tried, to follow "cannot" ("write a shard").
        path: where.
    """
    try:
        yield
    except OSError as error:
        fallback = (error.strerror or str(error), None)
        reason, hint = _REASONS.get(error.errno or 0, fallback)
        raise StoreError(f"cannot {doing} in {path}: {reason}", hint=hint) from error


def fsync_folder(folder: Path) -> None:
    """Make renames in ``folder`` survive a loss of power (where the system can)."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_if_absent(path: Path, data: bytes, tmp: Path) -> bool:
    """Create ``path`` with ``data``, whole or not at all; the first writer wins.

    Args:
        path: the file to create.
        data: its content.
        tmp: a folder on the same disk for the temporary file.

    Returns:
        Whether this call created the file.
    """
    lock = new_locked_file(tmp, ".part")
    temporary = lock.path
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        except OSError:
            # Some file systems have no hard links. The content of a name is the same whoever
            # writes it, so a rename that overwrites is as good.
            temporary.replace(path)
        fsync_folder(path.parent)
        return True
    finally:
        temporary.unlink(missing_ok=True)
        lock.release()


def sweep_temporary(folder: Path) -> list[Path]:
    """Remove the temporary files whose writers are dead; return what was removed."""
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            lock = try_lock(path, exclusive=True, create=False)
            if lock is not None:
                path.unlink(missing_ok=True)
                lock.release()
                removed.append(path)
    return removed
