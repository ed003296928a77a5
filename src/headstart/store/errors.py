"""Why a file of the store cannot be used: it is damaged, or it may well be sound.

The difference decides what a repair may drop. Content that contradicts its digest is lost anyway.
A file that cannot be read now (permission, too many open files, an I/O error), or that a newer
edition wrote, is somebody's rows: it is named and left alone.
"""

from __future__ import annotations

import stat
from pathlib import Path

from headstart.core.errors import StoreError
from headstart.core.files import reason_of
from headstart.store.layout import FORMAT, REPAIR_HINT


class DamagedError(StoreError):
    """The content contradicts its digest, the format, or what refers to it.

    Attributes:
        intact: whether the bytes match their digest all the same, as those of a shard that belongs
            to another space do. A repair moves such a file aside instead of removing it.
    """

    intact = False


class MissingShardError(DamagedError):
    """The file of a shard is not there.

    Attributes:
        name: of the shard.
    """

    name = ""


class UnreadableError(StoreError):
    """The file cannot be read, which says nothing about its content."""


class NewerFormatError(UnreadableError):
    """The file was written by a newer edition."""


def damaged(what: str, why: str, *, intact: bool = False) -> DamagedError:
    """Return the error for content that cannot be trusted."""
    error = DamagedError(f"{what} is damaged: {why}", hint=REPAIR_HINT)
    error.intact = intact
    return error


def unreadable(what: str, error: OSError | MemoryError) -> UnreadableError:
    """Return the error for a file that cannot be read now."""
    if isinstance(error, MemoryError):
        return UnreadableError(f"{what} cannot be read: there is not enough memory")
    reason, hint = reason_of(error)
    return UnreadableError(f"{what} cannot be read: {reason}", hint=hint)


def newer(what: str, version: object) -> NewerFormatError:
    """Return the error for a file of a later version of the format."""
    return NewerFormatError(
        f"{what} has format {str(version)[:20]}, and this version of headstart reads format"
        f" {FORMAT}",
        hint="use the version that wrote it, or a newer one",
    )


def is_newer(version: object) -> bool:
    """Whether a version, as found in a file, is later than the one this edition writes."""
    if isinstance(version, str) and version.isdecimal() and len(version) < 10:
        version = int(version)
    return type(version) is int and version > FORMAT


def obstacle(path: Path, *, folder: bool) -> str | None:
    """Return what is in the place of a file or a folder of ours, or None if nothing else is.

    A link that leads to the right kind of thing is followed.

    Raises:
        OSError: the path cannot be examined.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "a link that leads nowhere" if path.is_symlink() else None
    if stat.S_ISDIR(mode) if folder else stat.S_ISREG(mode):
        return None
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "a special file"
