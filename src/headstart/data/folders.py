"""Folders of images: one folder per class, with or without train/val/test above them.

Where the splits are, and which folders are classes, is decided in :mod:`headstart.data.layout`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, listed, quoted
from headstart.data import metadata_tables, tables
from headstart.data.formats import IMAGE_SUFFIXES, suffix_hint
from headstart.data.items import FileItems
from headstart.data.layout import Layout, class_level, lay_out, named_like_splits
from headstart.data.roles import NO_ROLE
from headstart.data.source import (
    WHOLE,
    Part,
    Request,
    Source,
    is_table,
    table_files,
    unlabelled,
)
from headstart.data.walking import (
    Below,
    FileId,
    any_file,
    entries,
    files_in,
    is_folder,
    is_junk,
    same_folder,
    subfolders,
    survey,
    unfollowed,
)

_ENDINGS = f"images are recognised by their extension: {', '.join(sorted(IMAGE_SUFFIXES)[:6])}, ..."


@dataclass
class _Found:
    """What a walk came across."""

    paths: list[Path]
    classes: list[str]
    empty: list[str]
    skipped: list[str]


def read_folder(root: Path, request: Request) -> Source:
    """Read a folder of class folders, or of split folders that hold class folders or a table.

    Raises:
        DataError: no class folders, no images, no permission, no such split folder, or folders
            of which it cannot be said whether they are splits or classes.
    """
    _require_named(root, request)
    layout = lay_out(root, request)
    name, notes = root.resolve().name, list(layout.notes)
    if layout.by_class:
        return _read_divided_classes(root, layout, request)
    if not layout.splits:
        part, found = _read_labelled(layout.base, root, request)
        return Source(name, {WHOLE: part}, notes=tuple(notes + found))
    parts: dict[str, Part] = {}
    for split, role in layout.splits.items():
        twins = [n for n, r in layout.splits.items() if r == role]
        if len(twins) > 1:
            raise DataError(
                f"'{layout.base}' holds more than one {role} split: {quoted(twins, 5)}",
                hint=f"keep only one, merge them, or choose one with {_chooser(role)}",
            )
        parts[role], found = _read_split(layout.base / split, role, root, request)
        notes += found
    _refuse_one_folder_twice(layout)
    if layout.others:
        notes.append(f"Not read, because they are not splits: {quoted(layout.others, 5)}.")
    return Source(name, parts, notes=tuple(notes))


def _require_named(root: Path, request: Request) -> None:
    names = [path.name for path in subfolders(root)]
    for option, name in (("train", request.train), ("test", request.test)):
        if name is not None and not (root / name).is_dir():
            raise DataError(
                f"'{root}' holds no folder '{name}', expected the {option} split there",
                hint=did_you_mean(name, names) or f"it holds {quoted(names, 5)}",
            )


def _chooser(role: str) -> str:
    return "train=NAME" if role == "train" else "test=NAME"


def _refuse_one_folder_twice(layout: Layout) -> None:
    names = list(layout.splits)
    for i, one in enumerate(names):
        for other in names[:i]:
            if same_folder(layout.base / one, layout.base / other):
                raise DataError(
                    f"'{other}' and '{one}' of '{layout.base}' are the same folder under two names",
                    hint="the test split must not be the training split",
                )


def _read_split(folder: Path, role: str, root: Path, request: Request) -> tuple[Part, list[str]]:
    """Read the folder of one split: class folders, or images with a table beside them."""
    _, classes = class_level(folder, request)
    table = metadata_tables.tables_for(folder)
    by_table = table and (
        request.label_column or metadata_tables.has_metadata_labels(folder, request)
    )
    if classes and not by_table:
        return _read_labelled(folder, root, request)
    if table:
        return metadata_tables.read_images_with_table(folder, table, root, request)
    if role == "train" or not any_image(folder):
        raise _nothing_found(folder, _loose(folder))
    found = _images_below(folder)
    origins = [path.relative_to(root).as_posix() for path in found]
    where = f"'{folder.name}'"
    return unlabelled(FileItems(found, origins, request.memo), where), []


def _read_labelled(folder: Path, root: Path, request: Request) -> tuple[Part, list[str]]:
    """Read class folders, however deep they are below a folder of theirs."""
    level, classes = class_level(folder, request)
    notes = []
    if not classes:
        raise _nothing_found(level, _loose(level))
    if level != folder:
        notes.append(f"The class folders of '{folder.name}' are in '{level.relative_to(folder)}'.")
    if request.splits != "none":
        notes += named_like_splits(level, classes)
    part, found = _read_classes(level, root, request)
    return part, notes + found


def _read_divided_classes(root: Path, layout: Layout, request: Request) -> Source:
    """Read class folders that are each divided: ``cat/train``, ``cat/test``."""
    notes = list(layout.notes)
    classes, aliases = _without_aliases(layout.base, subfolders(layout.base))
    parts: dict[str, Part] = {}
    for role in dict.fromkeys(layout.splits.values()):
        paths: list[Path] = []
        names: list[str] = []
        inner = [f for c in classes for f in subfolders(c) if layout.splits.get(f.name) == role]
        for folder, held in zip(inner, survey(inner), strict=True):
            images = [file for file in held.files if file.suffix.lower() in IMAGE_SUFFIXES]
            paths += images
            names += [folder.parent.name] * len(images)
        if role != NO_ROLE and paths:
            origins = [path.relative_to(root).as_posix() for path in paths]
            items = FileItems(paths, origins, request.memo)
            parts[role] = Part(items, tuple(names), f"'{layout.base.name}' ({role})")
    return Source(root.resolve().name, parts, notes=tuple(notes + aliases))


def _read_classes(folder: Path, root: Path, request: Request) -> tuple[Part, list[str]]:
    found = _Found([], [], [], [])
    kept, notes = _without_aliases(folder, subfolders(folder))
    found.skipped += [
        entry.name for entry in entries(folder) if not is_junk(entry.name) and not is_folder(entry)
    ]
    below = survey(kept)
    dropped = _aliases(below, [path.name for path in kept], notes)
    for number, (path, held) in enumerate(zip(kept, below, strict=True)):
        before = len(found.paths)
        for i, file in enumerate(held.files):
            if file.suffix.lower() not in IMAGE_SUFFIXES:
                found.skipped.append(str(file.relative_to(folder)))
            elif (number, i) not in dropped:
                found.paths.append(file)
                found.classes.append(path.name)
        if len(found.paths) == before:
            found.empty.append(path.name)
    if not found.paths:
        raise _nothing_found(folder, found)
    if ways := list(unfollowed(below, folder)):
        notes.append(f"{count(len(ways), 'entry', 'entries')} not read: {listed(ways, 5)}.")
    origins = [path.relative_to(root).as_posix() for path in found.paths]
    items = FileItems(found.paths, origins, request.memo)
    where = f"'{folder.name}'"
    return Part(items, tuple(found.classes), where), notes + _folder_notes(where, found)


def _without_aliases(level: Path, folders: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Leave out links that make a class of what is a class by its own name, or of all of them."""
    kept, left = [], []
    for path in folders:
        if path.is_symlink() and any(
            same_folder(path, other) for other in (level, *level.resolve().parents)
        ):
            left.append(f"{path.name} (a link back to a folder that holds it)")
            continue
        twins = [other for other in folders if other != path and same_folder(path, other)]
        if path.is_symlink() and twins:
            real = [other for other in twins if not other.is_symlink()]
            if real:
                left.append(f"{path.name} (a link to '{real[0].name}')")
                continue
        kept.append(path)
    return kept, [f"Links that are not classes of their own: {listed(left, 5)}."] if left else []


def _aliases(
    below: Sequence[Below], names: Sequence[str], notes: list[str]
) -> set[tuple[int, int]]:
    """Return links to files of another class, as (class, file), and note files in two classes."""
    ids = [number for held in below for number in held.ids]
    if len(set(ids)) == len(ids):
        return set()
    places: dict[FileId, list[tuple[int, int]]] = defaultdict(list)
    for number, held in enumerate(below):
        for i, key in enumerate(held.ids):
            places[key].append((number, i))
    dropped: set[tuple[int, int]] = set()
    shared = []
    for key, found in places.items():
        if key == (0, 0) or len({number for number, _ in found}) == 1:
            continue
        real = {number for number, i in found if not below[number].links[i]}
        links = [(n, i) for n, i in found if below[n].links[i] and real and n not in real]
        dropped.update(links)
        if len(real) != 1:
            number, i = found[0]
            shared.append(f"{names[number]}/{below[number].files[i].name}")
    if dropped:
        some = [str(Path(names[n]) / below[n].files[i].name) for n, i in sorted(dropped)]
        notes.append(
            f"{count(len(dropped), 'link')} to an image of another class skipped:"
            f" {quoted(some, 3)}."
        )
    if shared:
        verb = "is" if len(shared) == 1 else "are"
        notes.append(
            f"{count(len(shared), 'file')} {verb} in more than one class folder, by links:"
            f" {quoted(shared, 3)}; one of the labels must be wrong."
        )
    return dropped


def _folder_notes(where: str, found: _Found) -> list[str]:
    notes = []
    if found.empty:
        folders = count(len(found.empty), "folder")
        notes.append(f"{folders} of {where} without images skipped: {quoted(found.empty, 5)}.")
    found.skipped.sort()
    if found.skipped:
        notes.append(
            f"{count(len(found.skipped), 'file')} of {where} skipped, because they are not in a"
            " class folder or do not have an image extension:"
            f" {quoted(found.skipped, 3)}{suffix_hint(found.skipped)}."
        )
    return notes


def _loose(folder: Path) -> _Found:
    """Return what a folder without class folders holds."""
    images = [path.name for path in _images_below(folder)]
    others = [path.name for path in files_in(folder) if path.suffix.lower() not in IMAGE_SUFFIXES]
    empty = [] if images else [path.name for path in subfolders(folder)]
    return _Found([], [], empty, images + others)


def _images_below(folder: Path) -> list[Path]:
    return [path for path in survey([folder])[0].files if path.suffix.lower() in IMAGE_SUFFIXES]


def any_image(folder: Path) -> bool:
    """Return whether there is any image below a folder."""
    return any_file(folder, IMAGE_SUFFIXES)


def _nothing_found(folder: Path, found: _Found) -> DataError:
    loose = [name for name in found.skipped if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if loose:
        return DataError(
            f"'{folder}' holds {count(len(loose), 'image')} but no class"
            f" folders{_names_hold_classes(loose)}",
            hint="put the images of each class into a folder with the class's name, or give a"
            " table (CSV, Parquet) with a column of paths and one of labels",
        )
    if found.empty:
        return DataError(
            f"all {count(len(found.empty), 'class folder')} of '{folder}' have no images:"
            f" {quoted(found.empty, 5)}",
            hint=_ENDINGS,
        )
    return DataError(
        f"'{folder}' holds no images" if found.skipped else f"'{folder}' is an empty folder",
        hint="expected one folder of images per class, or train.* and test.* tables",
    )


def _names_hold_classes(names: Iterable[str]) -> str:
    """Say so where file names begin with what may be classes: ``cat.0.jpg``, ``dog_12.png``."""
    heads: dict[str, int] = defaultdict(int)
    for name in names:
        found = re.match(r"[^\W\d_]+", Path(name).name)
        heads[found[0].casefold() if found else ""] += 1
    if not 2 <= len(heads) <= sum(heads.values()) // 2 or "" in heads:
        return ""
    return f" (their names begin with {quoted(sorted(heads), 4)}, which is not taken as a label)"


# -- tables beside images --------------------------------------------------------------------------


def is_table_folder(path: Path, request: Request) -> bool:
    """Return whether a folder's tables count, not its folders.

    They do if a table is called train or test, if the folders cannot be classes because there is
    but one with images (``labels.csv`` beside ``images/``), or because they are splits that hold
    the images themselves.
    """
    files = table_files(path) if path.is_dir() else []
    if not files:
        return False
    if tables.name_splits(files, request) and request.splits != "none":
        return True
    folders = [folder for folder in subfolders(path) if any_image(folder)]
    if len(folders) < 2:
        return True
    if any(file.stem.casefold() == "metadata" for file in files):
        return bool(request.label_column) or metadata_tables.has_metadata_labels(path, request)
    try:
        layout = lay_out(path, request)
    except DataError:
        return False  # whoever reads the folder says what is wrong with it
    if layout.by_class:
        return False
    if not layout.splits:
        return not class_level(layout.base, request)[1]
    split_folders = [layout.base / name for name in layout.splits]
    return not any(
        class_level(folder, request)[1] or metadata_tables.tables_for(folder)
        for folder in split_folders
    )


# -- images to predict for -------------------------------------------------------------------------


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
    paths, names, notes = [path], [path.name], []
    if path.is_dir():
        below = survey([path])
        paths = [found for found in below[0].files if found.suffix.lower() in IMAGE_SUFFIXES]
        names = [found.relative_to(path).as_posix() for found in paths]
        others = [
            f.relative_to(path).as_posix()
            for f in below[0].files
            if f.suffix.lower() not in IMAGE_SUFFIXES
        ]
        if others:
            notes.append(
                f"{count(len(others), 'file')} of '{path.name}' skipped, because they do not"
                f" have an image extension: {quoted(others, 5)}{suffix_hint(others)}."
            )
        if ways := list(unfollowed(below, path)):
            notes.append(f"{count(len(ways), 'entry', 'entries')} not read: {listed(ways, 5)}.")
        if not paths:
            raise DataError(
                f"'{path}' holds no images"
                + (
                    f", but {count(len(others), 'other file')}: {quoted(others, 3)}"
                    if others
                    else ""
                ),
                hint=_ENDINGS + suffix_hint(others),
            )
    items = FileItems(paths, names, request.memo)
    part = unlabelled(items, f"'{path.name}'")
    return Source(path.name, {WHOLE: part}, notes=tuple(notes))


__all__ = ["any_image", "holds_images", "is_table_folder", "read_folder", "read_images"]
