"""Folders of images: one folder per class, with or without train/val/test above them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, quoted
from headstart.data.decoding import SUFFIXES
from headstart.data.items import DigestMemo, FileItems
from headstart.data.source import (
    WHOLE,
    Part,
    Request,
    Source,
    is_table,
    roles,
    table_files,
    unlabelled,
)

_JUNK = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


@dataclass
class _Found:
    """What a walk came across."""

    paths: list[Path]
    classes: list[str]
    empty: list[str]
    skipped: list[str]


def read_folder(root: Path, request: Request) -> Source:
    """Read a folder of class folders, or of split folders that hold class folders.

    Raises:
        DataError: no class folders, no images, no permission, no such split folder.
    """
    names = [path.name for path in subfolders(root)]
    for option, name in (("train", request.train), ("test", request.test)):
        if name is not None and name not in names:
            raise DataError(
                f"'{root}' holds no folder '{name}', expected the {option} split there",
                hint=did_you_mean(name, names) or f"it holds {quoted(names, 5)}",
            )
    split_folders = _split_folders(root, names, request)
    if not split_folders:
        part, notes = _read_classes(root, root, request.memo)
        return Source(root.resolve().name, {WHOLE: part}, notes=tuple(notes))
    parts: dict[str, Part] = {}
    notes = []
    for name, role in split_folders.items():
        if role in parts:
            twins = [n for n, r in split_folders.items() if r == role]
            raise DataError(
                f"'{root}' holds more than one {role} split: {quoted(twins, 5)}",
                hint="keep one of them, or merge them",
            )
        parts[role], found = _read_classes(root / name, root, request.memo)
        notes += found
    if others := [name for name in names if name not in split_folders]:
        notes.append(f"Not read, because they are not splits: {quoted(others, 5)}.")
    return Source(root.resolve().name, parts, notes=tuple(notes))


def _split_folders(root: Path, names: list[str], request: Request) -> dict[str, str]:
    """Return folder name → role where the folder is divided into splits, {} where it is not.

    A folder called "train" is a split only if it holds folders itself; a picture collection of
    vehicles may well have a class "train".
    """
    found = {
        name: role
        for name, role in roles(names, request).items()
        if subfolders(root / name) or name in (request.train, request.test)
    }
    return found if "train" in found.values() or set(found) == set(names) else {}


def _read_classes(folder: Path, root: Path, memo: DigestMemo | None) -> tuple[Part, list[str]]:
    found = _Found([], [], [], [])
    for entry in _entries(folder):
        if _is_junk(entry.name):
            continue
        if not _is_folder(entry):
            found.skipped.append(entry.name)
            continue
        before = len(found.paths)
        for path in walk(Path(entry.path)):
            if path.suffix.lower() in SUFFIXES:
                found.paths.append(path)
                found.classes.append(entry.name)
            else:
                found.skipped.append(str(path.relative_to(folder)))
        if len(found.paths) == before:
            found.empty.append(entry.name)
    if not found.paths:
        raise _nothing_found(folder, found)
    origins = [path.relative_to(root).as_posix() for path in found.paths]
    items = FileItems(found.paths, origins, memo)
    where = f"'{folder.name}'"
    return Part(items, tuple(found.classes), where), _folder_notes(where, found)


def _folder_notes(where: str, found: _Found) -> list[str]:
    notes = []
    if found.empty:
        folders = count(len(found.empty), "folder")
        notes.append(f"{folders} of {where} without any image left out: {quoted(found.empty, 5)}.")
    if found.skipped:
        notes.append(
            f"{count(len(found.skipped), 'file')} of {where} skipped, because they are in no"
            f" class folder or do not have the name of an image: {quoted(found.skipped, 3)}."
        )
    return notes


def _nothing_found(folder: Path, found: _Found) -> DataError:
    loose = [name for name in found.skipped if Path(name).suffix.lower() in SUFFIXES]
    if loose:
        return DataError(
            f"'{folder}' holds {count(len(loose), 'image')} but no folder per class",
            hint="put the images of each class into a folder with the class's name, or give a"
            " table (CSV, Parquet) with a column of paths and one of labels",
        )
    if found.empty:
        return DataError(
            f"all {count(len(found.empty), 'class folder')} of '{folder}' are without images:"
            f" {quoted(found.empty, 5)}",
            hint=f"images are known by their ending: {', '.join(sorted(SUFFIXES)[:6])}, ...",
        )
    return DataError(
        f"'{folder}' holds no images" if found.skipped else f"'{folder}' is an empty folder",
        hint="expected one folder per class with images in it, or train.* and test.* tables",
    )


def holds_images(path: Path, request: Request) -> bool:
    """Return whether a path is images to predict for, and not a list of them."""
    if request.labels_required:
        return False
    if not path.is_dir():
        return not is_table(path) and path.suffix.lower() != ".npz"
    return not table_files(path) or any_image(path)


def read_images(path: Path, request: Request) -> Source:
    """Return one image, or all images anywhere below a folder, sorted by path; without labels.

    Raises:
        DataError: the folder holds no image.
    """
    paths, names = [path], [path.name]
    if path.is_dir():
        paths = [found for found in walk(path) if found.suffix.lower() in SUFFIXES]
        names = [found.relative_to(path).as_posix() for found in paths]
    if not paths:
        raise DataError(
            f"'{path}' holds no images",
            hint=f"images are known by their ending: {', '.join(sorted(SUFFIXES)[:6])}, ...",
        )
    items = FileItems(paths, names, request.memo)
    return Source(path.name, {WHOLE: unlabelled(items, f"'{path.name}'")})


def existing(path: Path) -> Path:
    """Return the path if it exists, else say which part of it does not, and what is near."""
    try:
        if path.is_dir():
            require_open(path)
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
    _entries(folder)
    try:
        (folder / ".").stat()
    except PermissionError:
        raise _no_permission(folder) from None


def any_image(folder: Path) -> bool:
    """Return whether there is any image below a folder."""
    return any(path.suffix.lower() in SUFFIXES for path in walk(folder))


def subfolders(folder: Path) -> list[Path]:
    """Return the folders directly below, sorted by name, without hidden ones."""
    return [
        Path(entry.path)
        for entry in _entries(folder)
        if not _is_junk(entry.name) and _is_folder(entry)
    ]


def walk(folder: Path, _above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield the files below, sorted by path, following links but never in a circle.

    Raises:
        DataError: no permission to list a folder.
    """
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in _above:
        return
    for entry in _entries(folder):
        if _is_junk(entry.name):
            continue
        if _is_folder(entry):
            yield from walk(Path(entry.path), _above | {here})
        else:
            yield Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        raise _no_permission(folder) from None
    except OSError as error:
        raise DataError(f"cannot list the folder '{folder}': {error.strerror}") from error


def _no_permission(folder: Path) -> DataError:
    return DataError(
        f"no permission to list the folder '{folder}'", hint="grant it, or give another folder"
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _JUNK
