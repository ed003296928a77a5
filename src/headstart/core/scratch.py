"""Temporary files and folders: those of this process, and those in a folder that several share."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from headstart.core.files import share
from headstart.core.locks import new_locked_file, try_lock

_SCRATCH: set[Path] = set()


@contextlib.contextmanager
def locked_temporary(folder: Path, suffix: str = "") -> Iterator[Path]:
    """Create an empty file with a random name, which :func:`remove_abandoned` leaves alone.

    A lock held during the context distinguishes it from the file of a dead process. If the file
    still has this name at the end of the context, it is removed.

    Raises:
        OSError: the folder cannot be written to.
    """
    lock = new_locked_file(folder, suffix)
    share(lock.path)
    try:
        yield lock.path
    finally:
        lock.path.unlink(missing_ok=True)
        lock.release()


def remove_abandoned(folder: Path) -> list[Path]:
    """Remove temporary files whose writers have died, and return their paths."""
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        with contextlib.suppress(OSError):
            lock = try_lock(path, exclusive=True, create=False)
            if lock is not None:
                path.unlink(missing_ok=True)
                lock.release()
                removed.append(path)
    return removed


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a private folder in the system's temporary directory, which is removed on exit."""
    with tempfile.TemporaryDirectory(prefix="headstart-", ignore_cleanup_errors=True) as name:
        _SCRATCH.add(Path(name))
        yield Path(name)


def is_scratch(path: Path) -> bool:
    """Whether a path is in a folder of :func:`scratch_folder`, and so will not last."""
    return not _SCRATCH.isdisjoint((path, *path.parents))


__all__ = ["is_scratch", "locked_temporary", "remove_abandoned", "scratch_folder"]
