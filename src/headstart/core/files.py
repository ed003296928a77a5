"""Files on disk: atomic, durable writes, folders published as a whole, free space.

Every writer follows one pattern: write under a temporary name on the same disk, flush to the
device, rename into place. A reader sees the old content or the new, never half of either, and a
kill or a power failure at any moment leaves one of the two. New files honour the umask, so
colleagues who share a folder can read them.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from headstart.core.errors import ConfigError, DataError, HeadstartError

NO_LOCKS = (
    "this file system does not support file locks",
    "choose a folder on a local disk (for the feature cache: cache=FOLDER)",
)
"""Reason and hint where locking is impossible, as on a network disk without a lock service."""

_REASONS = {
    errno.ENOSPC: ("the disk is full", "free some space and run again; what is committed stays"),
    errno.EDQUOT: ("the disk quota is used up", "free some space; what is committed stays"),
    errno.EFBIG: ("the file would grow too large for this disk", "raise the file size limit"),
    errno.EROFS: ("the disk is read-only", "choose another location"),
    errno.EACCES: ("permission is denied", "fix the permissions or choose another location"),
    errno.EPERM: ("permission is denied", "fix the permissions or choose another location"),
    errno.EMFILE: ("too many files are open in this process", "raise the limit of open files"),
    errno.ENFILE: ("too many files are open on this machine", "close other programs"),
    errno.EIO: ("the disk reports an input/output error", "check the disk and its cables"),
    errno.ESTALE: ("the network disk has lost the file handle", "mount it again"),
    errno.EISDIR: ("a folder is in the place of a file", "move the folder away"),
    errno.ENOTDIR: ("a file is in the place of a folder", "move the file away"),
    errno.EEXIST: ("something else is in its place", "move that away"),
    errno.ENOLCK: NO_LOCKS,
    errno.ENOSYS: NO_LOCKS,
    errno.ENOTSUP: NO_LOCKS,
}
_CLOCK_SKEW_SECONDS = 60.0
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)  # CIFS, some FUSE mounts


@contextlib.contextmanager
def clear_errors(doing: str, kind: type[HeadstartError] = HeadstartError) -> Iterator[None]:
    """Turn an OSError into one clear line with the reason and what to do about it.

    Args:
        doing: what was tried and where, to follow "cannot" (``"write a shard in PATH"``).
        kind: the error to raise.
    """
    try:
        yield
    except OSError as error:
        reason, hint = reason_of(error)
        text = f"cannot {doing}: {reason}"
        if issubclass(kind, ConfigError):
            raise kind((text,), hint=hint) from error
        raise kind(text, hint=hint) from error


def reason_of(error: OSError) -> tuple[str, str]:
    """Return in plain words why a file operation failed, and what to do about it."""
    fallback = (error.strerror or str(error), "choose a place that exists and is writable")
    return _REASONS.get(error.errno or 0, fallback)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file or folder in an OSError that names none, as errors of writing do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


# -- single files --------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that replaces ``path`` when the context ends without an error.

    Args:
        path: the file to create or replace; its folder must exist.

    Yields:
        A binary stream to write to.

    Raises:
        OSError: it cannot be written; ``path`` is then unchanged.
    """
    temporary = _temporary_name(path)
    try:
        with naming(path), temporary.open("xb") as file:
            yield file
            _flush(file)
        _move(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace a file with ``content``, atomically and durably.

    Raises:
        OSError: it cannot be written; ``path`` is then unchanged.
    """
    with replacing(path) as file:
        file.write(content)


def put_in_place(source: Path, target: Path) -> None:
    """Replace ``target`` by the content of ``source``, at once; ``source`` stays.

    Both are one file on the disk where it has hard links, else ``target`` is a copy.

    Raises:
        OSError: it cannot be written; ``target`` is then unchanged.
    """
    temporary = _temporary_name(target)
    try:
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
            sync_file(temporary)
        temporary.replace(target)
    finally:
        # Renaming one of two names of a file over the other leaves both.
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Create or replace a file with ``text`` in UTF-8, as :func:`write_bytes` does."""
    # A lone surrogate, as in a file name that is not UTF-8, becomes what JSON writes for it.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Create or replace a file with readable JSON, as :func:`write_bytes` does.

    NaN and infinity, which JSON lacks, become null; other values without a JSON form become text.
    """
    text = json.dumps(
        without_nan(value), indent=2, ensure_ascii=False, allow_nan=False, default=str
    )
    write_text(path, text + "\n")


def without_nan(value: Any) -> Any:
    """Return plain values with every NaN and infinity, which JSON lacks, replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


def write_if_absent(path: Path, content: bytes) -> bool:
    """Create a file unless it exists, whole or not at all; the first of several writers wins.

    Args:
        path: the file to create; its folder must exist.
        content: its content.

    Returns:
        Whether this call created the file.

    Raises:
        OSError: it cannot be written, or the file system has no hard links.
    """
    temporary = _temporary_name(path)
    try:
        with temporary.open("xb") as file:
            file.write(content)
            _flush(file)
        path.hardlink_to(temporary)
        sync_folder(path.parent)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


# -- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def publishing_folder(place: Path) -> Iterator[Path]:
    """Build a folder that appears at ``place`` complete, by one rename, or not at all.

    Args:
        place: where it appears; missing parents are created.

    Yields:
        An empty temporary folder next to ``place``, to write into.

    Raises:
        OSError: it cannot be written, or ``place`` already exists and is not empty (another
            process was first), in which case that folder stays.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(place)
    temporary.mkdir()
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                sync_file(path)
        temporary.rename(place)
        sync_folder(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync_file(path: Path) -> None:
    """Flush a file that other code wrote to the device."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the renames in ``folder`` survive a power failure, where the file system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def share(path: Path) -> None:
    """Give a file or folder of ours the access that the folder around it grants to others.

    In a folder that a group may write to, a file is of that group and writable by it, whatever the
    umask and the main group of who made it. Folders whose entries belong to their makers (the
    sticky bit, as on /tmp) grant nothing. What cannot be changed stays as it is.
    """
    if os.name == "nt":
        return
    with contextlib.suppress(OSError):
        around, found = path.parent.stat(), path.lstat()
        if found.st_uid != os.geteuid() or around.st_mode & stat.S_ISVTX:
            return
        granted = 0
        for write, access in ((stat.S_IWGRP, 0o070), (stat.S_IWOTH, 0o007)):
            granted |= access if around.st_mode & write else 0
        if granted & 0o070 and found.st_gid != around.st_gid:
            os.chown(path, -1, around.st_gid, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            granted |= around.st_mode & stat.S_ISGID if granted else 0
        else:
            granted &= 0o066
        if found.st_mode & granted != granted and not stat.S_ISLNK(found.st_mode):
            path.chmod(stat.S_IMODE(found.st_mode) | granted)


def make_folder(path: Path) -> None:
    """Make a folder, shared as the folder around it is; one that is there stays as it is.

    Raises:
        OSError: it cannot be made.
    """
    try:
        path.mkdir()
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        share(path)


def is_writable(path: Path) -> bool:
    """Whether this user may write to a file or folder, as far as its permissions say."""
    return os.access(path, os.W_OK)


# -- what is in the way, and how old it is -------------------------------------------------------


def set_aside(path: Path) -> Path:
    """Rename what is in the way of one of our files, whatever it is, and return its new path.

    Used where the content is not ours to delete: a folder in the place of a file, say.

    Raises:
        OSError: it cannot be renamed.
    """
    aside = path.with_name(f"{path.name}.aside-{secrets.token_hex(4)}")
    path.rename(aside)
    return aside


def last_used(found: os.stat_result) -> float:
    """Return when a file was last written or touched, in seconds since the epoch.

    A time in the future, as a wrong clock or an unpacked archive leaves it, says nothing: then the
    time counts at which it was set, which no program can choose, and in the end the present.
    """
    now = time.time()
    for then in (found.st_mtime, found.st_ctime):
        if then <= now + _CLOCK_SKEW_SECONDS:
            return then
    return now


# -- places --------------------------------------------------------------------------------------


def own_file(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder that may come from anybody.

    Args:
        folder: the folder; it may be a link itself, which is the user's word.
        name: of the file, known beforehand.

    Raises:
        DataError: it is a link that leads out of the folder, or no file: it is not read.
    """
    path = folder / name
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            f"'{path}' is a link to '{path.resolve()}', outside its folder: it is not read",
            hint="if it belongs there, replace the link by the file itself",
        )
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise DataError(f"'{path}' is not a file but a folder, a pipe or a device")
    return path


def existing_parent(place: Path) -> Path:
    """Return ``place`` if it exists, else the nearest folder above it that does."""
    place = place.absolute()
    while not place.exists():
        place = place.parent
    return place


def free_bytes(place: Path) -> int:
    """Return the free bytes of the disk that ``place`` is on, or would be created on."""
    return shutil.disk_usage(existing_parent(place)).free


def _temporary_name(path: Path) -> Path:
    # Not tempfile: its mode 0600 would hide the result from colleagues.
    return path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.tmp")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _move(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    sync_folder(path.parent)


__all__ = [
    "clear_errors",
    "existing_parent",
    "free_bytes",
    "is_writable",
    "last_used",
    "make_folder",
    "naming",
    "own_file",
    "publishing_folder",
    "put_in_place",
    "reason_of",
    "replacing",
    "set_aside",
    "share",
    "sync_file",
    "sync_folder",
    "without_nan",
    "write_bytes",
    "write_if_absent",
    "write_json",
    "write_text",
]
