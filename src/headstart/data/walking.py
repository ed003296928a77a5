"""Files and folders below a source: listed in order, links followed but never out of their place.

A link to a folder is followed, since pictures are often kept elsewhere, with two exceptions: one
that leads back above itself, and one into a folder that belongs to another class. Either would
give images a label that nobody gave them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import did_you_mean

FileId = tuple[int, int]
"""Device and number of a file or folder, the same by whatever name it is reached."""

_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx", "lost+found"})


@dataclass
class Below:
    """What lies below one folder.

    Attributes:
        files: sorted as a walk finds them: by name in each folder, deeper ones in their place.
        ids: of each file.
        links: which files are links.
        skipped: what was not entered or is no file, with the reason.
    """

    files: list[Path] = field(default_factory=list)
    ids: list[FileId] = field(default_factory=list)
    links: list[bool] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def sort(self, top: Path) -> None:
        """Sort the files in the order of a walk."""
        depth = len(top.parts)
        order = sorted(range(len(self.files)), key=lambda i: self.files[i].parts[depth:])
        self.files = [self.files[i] for i in order]
        self.ids = [self.ids[i] for i in order]
        self.links = [self.links[i] for i in order]


def survey(folders: Sequence[Path]) -> list[Below]:
    """Return what lies below each of several folders that have nothing in common.

    Folders are walked without their links first, so that a link never takes what is really
    elsewhere.

    Raises:
        DataError: no permission to list a folder.
    """
    owner: dict[FileId, int] = {}
    above = [_ancestors(folder) for folder in folders]
    found = [Below() for _ in folders]
    links: list[tuple[int, Path]] = []
    for number, folder in sorted(enumerate(folders), key=lambda pair: pair[1].is_symlink()):
        twin = _id_of(folder) in owner  # two links to one folder; whoever calls says so
        _enter(folder, number, {} if twin else owner, found[number], links)
    for number, link in links:  # grows while links are followed
        target = _id_of(link)
        if target is None or target in above[number] or target in _ancestors(link):
            found[number].skipped.append((link, "a link back to a folder that holds it"))
        elif target in owner:
            same = owner[target] == number
            found[number].skipped.append(
                (link, "a link to a folder that is read by its own name")
                if same
                else (link, f"a link into '{folders[owner[target]].name}'")
            )
        else:
            _enter(link, number, owner, found[number], links)
    for number, folder in enumerate(folders):
        if any(where == number for where, _ in links):
            found[number].sort(folder)
    return found


def walk(folder: Path) -> list[Path]:
    """Return the files below a folder, sorted by path; links are followed, never in a circle.

    Raises:
        DataError: no permission to list a folder.
    """
    return survey([folder])[0].files


def _enter(
    top: Path, number: int, owner: dict[FileId, int], found: Below, links: list[tuple[int, Path]]
) -> None:
    """Walk a folder without following links to folders; these are added to ``links``."""
    here = _id_of(top)
    if here is None or here in owner:
        if here is not None:
            found.skipped.append((top, "the same folder by another name"))
        return
    owner[here] = number
    device = here[0]
    open_folders = [(device, iter(entries(top)))]
    while open_folders:  # without recursion: folders may be nested more deeply than Python's stack
        device, rest = open_folders[-1]
        entry = next(rest, None)
        if entry is None:
            open_folders.pop()
        elif is_junk(entry.name):
            continue
        elif is_folder(entry):
            path = Path(entry.path)
            if entry.is_symlink():
                links.append((number, path))
            elif (inner := _id_of(path)) is not None and inner not in owner:
                owner[inner] = number
                open_folders.append((inner[0], iter(entries(path))))
        elif reason := _no_file(entry):
            found.skipped.append((Path(entry.path), reason))
        else:
            link = entry.is_symlink()
            found.files.append(Path(entry.path))
            found.ids.append(_id_of(entry) or (0, 0) if link else (device, entry.inode()))
            found.links.append(link)


def any_file(folder: Path, suffixes: frozenset[str]) -> bool:
    """Return whether a file below a folder has one of these endings (lower case, with a dot)."""
    seen: set[FileId] = set()
    todo = [folder]
    while todo:
        here = todo.pop()
        number = _id_of(here)
        if number is None or number in seen:
            continue
        seen.add(number)
        for entry in entries(here):
            if is_junk(entry.name):
                continue
            if is_folder(entry):
                todo.append(Path(entry.path))
            elif Path(entry.name).suffix.lower() in suffixes:
                return True
    return False


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly below, sorted by name, without hidden ones."""
    return [
        Path(entry.path)
        for entry in entries(folder)
        if not is_junk(entry.name) and is_folder(entry)
    ]


def files_in(folder: Path) -> list[Path]:
    """Return the files directly in a folder, sorted by name, without hidden ones."""
    return [
        Path(entry.path)
        for entry in entries(folder)
        if not is_junk(entry.name) and not is_folder(entry) and not _no_file(entry)
    ]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what a folder holds, sorted by name.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        raise _no_permission(folder) from None
    except OSError as error:
        raise DataError(f"cannot list the folder '{_short(folder)}': {error.strerror}") from error


def existing(path: Path) -> Path:
    """Return the path if it exists, else say which part of it does not, and what is near."""
    try:
        if path.is_dir():
            require_open(path)
        if path.exists() and not (path.is_dir() or path.is_file()):
            raise DataError(
                f"'{path}' is a pipe, socket or device, which is not opened",
                hint="give a folder or a file",
            )
        if path.exists():
            return path
    except (OSError, ValueError) as error:  # a link in a circle, a name that is too long
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"'{path}' cannot be reached: {reason}") from error
    parent = path.parent
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    missing = path.relative_to(parent).parts[0]
    try:
        near = [entry.name for entry in parent.iterdir()]
    except OSError:
        near = []
    hint = did_you_mean(missing, near) or "expected the path of the data, or the word digits"
    raise DataError(f"'{path}' does not exist ('{parent}' holds no '{missing}')", hint=hint)


def require_open(folder: Path) -> None:
    """Make sure that this user may list a folder and enter it.

    Raises:
        DataError: no permission.
    """
    entries(folder)
    try:
        (folder / ".").stat()
    except PermissionError:
        raise _no_permission(folder) from None


def is_junk(name: str) -> bool:
    """Return whether a name is that of a hidden file or of what a system leaves behind."""
    return name.startswith(".") or name.casefold() in _JUNK


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or leads to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def same_folder(one: Path, other: Path) -> bool:
    """Return whether two names lead to one folder."""
    return _id_of(one) is not None and _id_of(one) == _id_of(other)


def _no_file(entry: os.DirEntry[str]) -> str | None:
    """Return what an entry is if it is a pipe, a socket or a device; opening one may wait for ever.

    A link that leads nowhere counts as a file: reading it says that it is missing.
    """
    try:
        if entry.is_file() or entry.is_symlink():
            return None
    except OSError:
        return None
    return "a pipe, socket or device, not a file"


def _id_of(path: Path | os.DirEntry[str]) -> FileId | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _ancestors(path: Path) -> frozenset[FileId]:
    """Return the ids of the folders that hold a path, by its own name and by its real one."""
    try:
        real = path.resolve()
    except (OSError, RuntimeError):
        real = path
    lexical = Path(os.path.abspath(path))  # noqa: PTH100  # resolve() would follow the link
    folders: set[Path] = {*real.parents, *lexical.parents}
    return frozenset(number for folder in folders if (number := _id_of(folder)) is not None)


def _no_permission(folder: Path) -> DataError:
    return DataError(
        f"no permission to list the folder '{_short(folder)}'",
        hint="grant it, or give another folder",
    )


def _short(folder: Path) -> str:
    text = str(folder)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"


def unfollowed(found: Sequence[Below], top: Path) -> Iterator[str]:
    """Yield what was not entered or is no file, with the reason: ``cat/up (a link back ...)``."""
    for below in found:
        for path, reason in below.skipped:
            yield f"{path.relative_to(top).as_posix()} ({reason})"


__all__ = [
    "Below",
    "FileId",
    "any_file",
    "entries",
    "existing",
    "files_in",
    "is_folder",
    "is_junk",
    "require_open",
    "same_folder",
    "subfolders",
    "survey",
    "unfollowed",
    "walk",
]
