"""How a folder of images is laid out: which of its folders are splits, and which are classes.

A folder called after a split (``train``, ``Val2017``, ``test_images``) is never taken for a class,
and neither is one that is called after what it holds (``images`` beside ``labels``). Where that
leaves nothing to read, the folder is refused; ``splits="none"`` declares that names mean nothing
and every folder is a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.core.errors import DataError
from headstart.core.wording import quoted
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.roles import (
    NO_ROLE,
    folder_role,
    folder_roles,
    is_annotation,
    is_container,
    overridden,
)
from headstart.data.source import Request
from headstart.data.walking import any_file, files_in, subfolders

_DEEPEST = 8
"""Folders that are looked into for the splits: ``ILSVRC/Data/CLS-LOC/train``."""


@dataclass(frozen=True)
class Layout:
    """How a folder is divided.

    Attributes:
        base: the folder that holds the splits, or at or below which the class folders are.
        splits: name of a folder → role; empty where the data are not divided.
        others: names of folders beside the splits that are none.
        by_class: whether every class folder is divided itself: ``cat/train``, ``cat/test``.
            ``splits`` are then the roles of the inner folders.
        notes: what was decided.
    """

    base: Path
    splits: dict[str, str]
    others: tuple[str, ...] = ()
    by_class: bool = False
    notes: tuple[str, ...] = ()


def lay_out(root: Path, request: Request) -> Layout:
    """Find the splits at or below a folder.

    Raises:
        DataError: a folder is called after a split, but cannot be one.
    """
    if request.splits == "none":
        return Layout(root, {})
    if request.train is not None or request.test is not None:
        return _given(root, request)
    return _search(root, 0) or Layout(root, {})


def class_level(folder: Path, request: Request) -> tuple[Path, list[Path]]:
    """Return the folder whose subfolders are classes, and those that hold images.

    It is the folder itself, or one below that only says that images are in it. There are no class
    folders where a folder holds the images themselves.
    """
    for _ in range(_DEEPEST):
        inner = _with_images(folder)
        if request.splits == "none":
            break
        deeper = _only_container(folder, inner)
        if deeper is None:
            if inner and all(is_container(f.name) or is_annotation(f.name) for f in inner):
                inner = inner if not any(is_container(f.name) for f in inner) else []
            break
        folder = deeper
    return folder, inner


def named_like_splits(level: Path, classes: Sequence[Path]) -> list[str]:
    """Refuse class folders that are called after splits, unless one may well be a class.

    A collection of vehicles may have a class "train": it is one if it holds images itself, beside
    folders with other names, and no other folder is called after a split.

    Returns:
        Notes.
    """
    found = {path.name: role for path in classes if (role := folder_role(path.name)) is not None}
    if not found:
        return []
    if (name := _vehicle([path.name for path in classes], found, level)) is not None:
        return [
            f"'{name}' is read as a class, because it is next to {_others(classes, found)} and"
            " no other folder is named like a split; splits='none' confirms this."
        ]
    raise DataError(
        f"'{level}' holds {quoted(found, 4)}, which are names of splits"
        if len(found) > 1
        else f"'{level}' holds {quoted(found)}, which is the name of a split, next to"
        f" {_others(classes, found)}",
        hint="name the splits with train=NAME and test=NAME, move the class folders into a"
        " folder 'train', or state with splits='none' that every folder is a class",
    )


def _given(root: Path, request: Request) -> Layout:
    """Lay out a folder whose splits are named by the user, by name or by path."""
    names = [path.name for path in subfolders(root)]
    names += [n for n in (request.train, request.test) if n is not None and n not in names]
    roles = overridden(names, folder_roles(names), request.train, request.test)
    asked = (request.train, request.test)
    splits = {
        n: r for n, r in roles.items() if r and (n in asked or any_file(root / n, IMAGE_SUFFIXES))
    }
    return Layout(root, splits, tuple(name for name in names if name not in splits))


def _search(folder: Path, depth: int) -> Layout | None:
    """Return the layout of the splits at or below a folder; None where there are none."""
    inner = _with_images(folder)
    names = [path.name for path in inner]
    roles = folder_roles(names)
    if not roles:
        if depth >= _DEEPEST:
            return None
        return _divided_classes(folder, inner) or _search_below(folder, inner, depth)
    if _vehicle(names, roles, folder) is not None:
        return None
    splits = {name: role for name, role in roles.items() if role != NO_ROLE}
    others = [name for name in names if name not in splits]
    beside = [path for path in inner if path.name not in roles]
    if not splits or ("train" not in splits.values() and beside):
        named_like_splits(folder, inner)  # raises: these are neither splits nor classes
    empty = [p.name for p in subfolders(folder) if p.name not in names]
    return Layout(folder, splits, tuple(sorted((*others, *empty))))


def _search_below(folder: Path, inner: Sequence[Path], depth: int) -> Layout | None:
    """Look into the one folder that may hold the splits: ``images/train``, ``Data/CLS-LOC/train``.

    What lies beside it belongs to the images (``labels/train``).
    """
    images = [path for path in inner if not is_annotation(path.name)]
    containers = [path for path in images if is_container(path.name)]
    candidates = images if len(images) == 1 else containers if len(containers) == 1 else []
    if len(inner) > 1 and len(candidates) == 1 and not is_container(candidates[0].name):
        return None
    if not candidates or _holds_files(folder) or len(images) > 1:
        return None
    found = _search(candidates[0], depth + 1)
    if found is None or not found.splits:
        return None
    note = f"The splits are in '{found.base.name}'."
    return Layout(found.base, found.splits, found.others, found.by_class, (note,))


def _divided_classes(folder: Path, inner: Sequence[Path]) -> Layout | None:
    """Return the layout of class folders that are each divided: ``cat/train``, ``cat/test``."""
    if len(inner) < 2 or any(is_container(p.name) or is_annotation(p.name) for p in inner):
        return None
    roles: dict[str, str] = {}
    for path in inner:
        names = [each.name for each in _with_images(path)]
        found = folder_roles(names)
        if not names or set(found) != set(names) or _holds_files(path):
            return None
        roles |= found
    if "train" not in roles.values():
        return None
    note = "Every class folder has its own train and test folders, which are the splits."
    return Layout(folder, roles, (), True, (note,))


def _vehicle(names: Sequence[str], roles: dict[str, str], folder: Path) -> str | None:
    """Return the folder "train" if it is likely a class of vehicles; None otherwise."""
    if len(roles) != 1 or len(names) < 2:
        return None
    (name,) = roles
    flat = not _with_images(folder / name) and name.casefold() in ("train", "trains")
    beside = [other for other in names if other != name]
    plain = not any(is_container(n) or is_annotation(n) for n in beside)
    flat = flat and not any(_with_images(folder / other) for other in beside)
    return name if flat and plain else None


def _only_container(folder: Path, inner: Sequence[Path]) -> Path | None:
    """Return the one folder below that holds the class folders, or the images, of this one."""
    if _holds_files(folder):
        return None
    images = [path for path in inner if not is_annotation(path.name)]
    if len(images) != 1:
        return None
    (only,) = images
    again = only.name.casefold() == folder.name.casefold()
    same_role = folder_role(only.name) is not None and folder_role(only.name) == folder_role(
        folder.name
    )
    return only if is_container(only.name) or again or same_role else None


def _with_images(folder: Path) -> list[Path]:
    return [path for path in subfolders(folder) if any_file(path, IMAGE_SUFFIXES)]


def _holds_files(folder: Path) -> bool:
    """Return whether images lie directly in a folder."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in files_in(folder))


def _others(classes: Sequence[Path], found: dict[str, str]) -> str:
    return quoted([path.name for path in classes if path.name not in found], 4)


__all__ = ["Layout", "class_level", "lay_out", "named_like_splits"]
