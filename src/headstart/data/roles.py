"""What names of splits mean: ``train``, ``Val``, ``train2017``, ``seg_test``, ``fold0``.

A table, a key or a value of a split column is called after its split, so any usual name counts
(:func:`role_of`). A folder may as well be called after its class: ``train`` beside ``car``,
``train_station`` beside ``test_tube``. So for folders a name counts only if nothing else is in it,
or if it has a twin: ``seg_train`` beside ``seg_test`` (:func:`folder_roles`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

ROLES = {
    "train": ("train", "training", "trn", "trainset", "trainval", "trains", "trainings"),
    "validation": (
        "validation", "val", "valid", "valset", "dev", "devel", "development", "eval", "evaluation",
        "validations", "vals", "valids", "devs", "devset", "evals", "evaluations", "evalset",
    ),
    "test": (
        "test", "testing", "tst", "testset", "holdout", "heldout", "tests", "testings", "holdouts",
        "holdoutset",
    ),
}  # fmt: skip
"""The names under which sources keep their splits."""

NO_ROLE = ""
"""The role of what is a split but neither trains nor tests: ``fold0``, ``unlabeled``."""

_ROLE_OF = {name: role for role, names in ROLES.items() for name in names}
_WITHOUT_ROLE = frozenset({"unlabeled", "unlabelled", "unsup", "unsupervised"})
_NUMBERED = frozenset({"fold", "kfold", "split", "cv", "part", "chunk", "shard"})
_CONTAINERS = frozenset((
    "images", "image", "imgs", "img", "pictures", "pics", "photos", "jpg", "jpeg", "jpgs", "png",
    "pngs", "data", "dataset", "datasets", "files", "raw", "jpegimages", "archive",
))  # fmt: skip
_FILLERS = _CONTAINERS | {
    "set", "sets", "folder", "of", "full", "original", "split", "new", "all", "public", "private",
}  # fmt: skip
_ANNOTATIONS = frozenset((
    "annotation", "annotations", "label", "labels", "mask", "masks", "segmentation",
    "segmentations", "segmentationclass", "segmentationobject", "groundtruth", "gt", "bbox",
    "bboxes", "boxes", "thumbnails", "thumbs", "trimaps", "imagesets",
))  # fmt: skip
_TABLE_WORDS = frozenset((
    "labels", "label", "annotations", "annotation", "solution", "groundtruth", "list", "meta",
    "metadata", "info", "df", "table", "files", "file", "classes", "cls",
))  # fmt: skip

# JPEGImages → JPEG, Images; trainLabels2 → train, Labels, 2; letters of any other script together
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+|[^\W\d_]+")


def words(name: str) -> list[str]:
    """Return the words of a name, in lower case: ``trainLabels_2`` → train, labels, 2."""
    return [word.casefold() for word in _WORDS.findall(unicodedata.normalize("NFC", name))]


def role_of(name: str) -> str | None:
    """Return the role that the name of a split, a table or a key means, or None.

    >>> role_of("Val"), role_of("train-00000-of-00002"), role_of("trainLabels"), role_of("trainee")
    ('validation', 'train', 'train', None)
    """
    found = _plain_role(name.split(".")[0], _FILLERS | _TABLE_WORDS)
    if found:
        return found
    first = re.split(r"[-_.]", name.casefold())[0]
    return _ROLE_OF.get(first)


def folder_role(name: str) -> str | None:
    """Return the role of a folder whose name is that of a split and nothing else.

    :data:`NO_ROLE` for ``fold0`` and its like; None where the name may be that of a class.

    >>> folder_role("TRAIN"), folder_role("test2017"), folder_role("fold_3"), folder_role("teapot")
    ('train', 'test', '', None)
    """
    return _plain_role(name, _FILLERS)


def folder_roles(names: Iterable[str]) -> dict[str, str]:
    """Return the role of every folder that is a split, by its own name or by that of its twin."""
    names = list(names)
    found = {name: role for name in names if (role := folder_role(name)) is not None}
    return {**_twins(names), **found}


def is_container(name: str) -> bool:
    """Return whether a folder's name says only that images are in it: ``images``, ``data``."""
    found = [word for word in words(name) if not word.isdigit()]
    return bool(found) and (_joined(found) in _CONTAINERS or set(found) <= _CONTAINERS)


def is_annotation(name: str) -> bool:
    """Return whether a folder's name is that of what belongs to images: ``masks``, ``labels``."""
    found = [word for word in words(name) if not word.isdigit()]
    return bool(found) and (_joined(found) in _ANNOTATIONS or found[-1] in _ANNOTATIONS)


def overridden(
    names: Iterable[str], found: Mapping[str, str], train: str | None, test: str | None
) -> dict[str, str]:
    """Return the role of each name, where ``train`` and ``test`` override what names say.

    A name that lost its role to an override is left out.
    """
    chosen = {name: "train" for name in names if name == train}
    chosen |= {name: "test" for name in names if name == test}
    for name, role in found.items():
        lost = (role == "train" and train) or (role == "test" and test)
        if name not in chosen and not lost:
            chosen[name] = role
    return chosen


def _plain_role(name: str, fillers: frozenset[str]) -> str | None:
    """Return the role of a name in which nothing but fillers and numbers stands beside it."""
    found = words(name)
    rest = [word for word in found if not word.isdigit() and word not in fillers]
    joined = _joined(word for word in found if not word.isdigit())
    if joined in _ROLE_OF:
        return _ROLE_OF[joined]
    if len(rest) == 1:
        if rest[0] in _ROLE_OF:
            return _ROLE_OF[rest[0]]
        if rest[0] in _WITHOUT_ROLE or (rest[0] in _NUMBERED and len(found) > 1):
            return NO_ROLE
    numbered = any(word.isdigit() for word in found)
    if not rest and numbered and any(word in _NUMBERED for word in found):
        return NO_ROLE
    return None


def _twins(names: Sequence[str]) -> dict[str, str]:
    """Return the roles of names that differ in nothing but the word for the split."""
    groups: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        found = words(name)
        said = [word for word in found if word in _ROLE_OF]
        if len(said) == 1:
            rest = tuple("" if word == said[0] else word for word in found)
            groups.setdefault(rest, {})[name] = _ROLE_OF[said[0]]
    return {
        name: role
        for group in groups.values()
        if len(set(group.values())) > 1
        for name, role in group.items()
    }


def _joined(found: Iterable[str]) -> str:
    return "".join(found)


__all__ = [
    "NO_ROLE",
    "ROLES",
    "folder_role",
    "folder_roles",
    "is_annotation",
    "is_container",
    "overridden",
    "role_of",
    "words",
]
