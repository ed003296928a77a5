"""Folders of text files: one folder a class, with or without train and test above them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.items import TextFileItems
from headstart.data.source import WHOLE, Part, Request, Source, roles, table_files, unlabelled
from headstart.data.walking import any_file, files_in, subfolders, survey

TEXT_SUFFIXES = frozenset((".txt",))


def holds_texts(path: Path, request: Request) -> bool:
    """Return whether a path is text files: class folders of them, without images or tables.

    Where the backbone takes texts, images beside them do not count; without labels, any text file
    below the folder is an item, and one file will do.
    """
    wanted = request.kind == "text"
    if path.is_file():
        return wanted and not request.labels_required and path.suffix.lower() in TEXT_SUFFIXES
    if not path.is_dir() or table_files(path) or request.image_column is not None:
        return False
    if not any_file(path, TEXT_SUFFIXES) or (not wanted and any_file(path, IMAGE_SUFFIXES)):
        return False
    return wanted or (request.labels_required and len(_classes(_top(path, request))) > 1)


def read_texts(path: Path, request: Request) -> Source:
    """Read text files; the names of their folders are their labels, where labels are wanted.

    Raises:
        DataError: no class folders, or a training split without a test split's name beside it.
    """
    name = path.resolve().name
    if not request.labels_required:
        files = [path] if path.is_file() else _texts(path)
        part = unlabelled(_items(files, path if path.is_dir() else path.parent, request), name)
        return Source(name, {WHOLE: part})
    splits = _splits(path, request)
    notes: list[str] = []
    if not splits:
        return Source(name, {WHOLE: _labelled(path, path, request, notes)}, notes=tuple(notes))
    parts = {role: _labelled(folder, path, request, notes) for role, folder in splits.items()}
    others = [each.name for each in _classes(path) if each not in splits.values()]
    if others:
        notes.append(f"Not read, because they are not splits: {quoted(others, 5)}.")
    return Source(name, parts, notes=tuple(notes))


def _splits(path: Path, request: Request) -> dict[str, Path]:
    """Return the folders of the splits by role; nothing where names do not say so."""
    if request.splits == "none":
        return {}
    found = roles([each.name for each in _classes(path)], request)
    if "train" not in found.values():
        return {}
    twins = [role for role in found.values() if list(found.values()).count(role) > 1]
    if twins:
        raise DataError(
            f"'{path}' holds more than one {twins[0]} split",
            hint=f"choose one with {'train' if twins[0] == 'train' else 'test'}=NAME",
        )
    return {role: path / name for name, role in found.items()}


def _top(path: Path, request: Request) -> Path:
    """Return the folder whose subfolders are classes: that of the training split, if there is one.

    This must not raise: it is asked of every folder.
    """
    found = {} if request.splits == "none" else roles([e.name for e in _classes(path)], request)
    train = [name for name, role in found.items() if role == "train"]
    return path / train[0] if train else path


def _labelled(folder: Path, root: Path, request: Request, notes: list[str]) -> Part:
    """Read the class folders of a split."""
    classes = _classes(folder)
    if not classes:
        raise DataError(
            f"'{folder}' holds texts but no folder per class",
            hint="put the texts of each class into a folder with the class's name, or give a table"
            " (CSV, Parquet) with a column of texts and one of labels",
        )
    loose = [each.name for each in files_in(folder)]
    if loose:
        files = count(len(loose), "file")
        notes.append(
            f"{files} of '{folder.name}' left out, in no class folder: {quoted(loose, 3)}."
        )
    files_of = {each.name: _texts(each) for each in classes}
    paths = [path for files in files_of.values() for path in files]
    names = tuple(name for name, files in files_of.items() for _ in files)
    return Part(_items(paths, root, request), names, f"'{folder.name}'")


def _classes(folder: Path) -> list[Path]:
    return [each for each in subfolders(folder) if any_file(each, TEXT_SUFFIXES)]


def _texts(folder: Path) -> list[Path]:
    return [path for path in survey([folder])[0].files if path.suffix.lower() in TEXT_SUFFIXES]


def _items(paths: Sequence[Path], root: Path, request: Request) -> TextFileItems:
    origins = [path.relative_to(root).as_posix() for path in paths]
    return TextFileItems(paths, origins, request.memo)


__all__ = ["holds_texts", "read_texts"]
