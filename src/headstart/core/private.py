"""Folders and files that nobody but their user, and root, can have written: for what runs as code.

A file in such a folder is one that this user put there. The folder itself and every folder above it
are checked, since whoever may write to one of these can put another in its place. Where users and
modes are not those of POSIX nothing is private.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

_ROOT = 0
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def private_folder(path: Path) -> Path | None:
    """Make a folder that is this user's alone, or check one that is there.

    Args:
        path: the folder; missing folders above it are made.

    Returns:
        Its path without links; None: it is not, or cannot be made, this user's alone.
    """
    if os.name != "posix":
        return None
    with contextlib.suppress(OSError, RuntimeError):
        around = path.expanduser().absolute().parent
        around.mkdir(parents=True, exist_ok=True)
        place = around.resolve(strict=True) / path.name
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
        return place if _is_own(place.lstat()) and _is_guarded(place.parent) else None
    return None


def is_private_file(path: Path) -> bool:
    """Whether a file of a private folder is a plain one of this user's alone."""
    try:
        found = path.lstat()
    except OSError:
        return False
    own = found.st_uid == os.geteuid() and not found.st_mode & _OTHERS
    return own and stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _is_own(found: os.stat_result) -> bool:
    own = found.st_uid == os.geteuid()
    return own and stat.S_ISDIR(found.st_mode) and not found.st_mode & _OTHERS


def _is_guarded(folder: Path) -> bool:
    """Whether no other user can rename what is in a folder, nor the folders above it."""
    for each in (folder, *folder.parents):
        found = each.lstat()
        if found.st_uid not in (_ROOT, os.geteuid()):
            return False
        # With the sticky bit, as on /tmp, entries are their owners'; the owner of each is checked.
        if found.st_mode & _OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
            return False
    return True


__all__ = ["is_private_file", "private_folder"]
