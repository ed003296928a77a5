"""The doors of this room: any source → a Dataset, or the items of one split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data import arrays, folders, objects, tables
from headstart.data.dataset import Dataset, Split
from headstart.data.decoding import SUFFIXES
from headstart.data.items import DigestMemo
from headstart.data.labels import encode, require_labels
from headstart.data.source import WHOLE, Part, Source
from headstart.data.splits import stratified_split
from headstart.data.wording import count, did_you_mean, few
from headstart.errors import DataError
from headstart.progress import Reporter, SilentReporter


def load_data(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    train: str | None = None,
    test: str | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Dataset:
    """Load labelled images and see to it that there is a training and a test split.

    Args:
        source: one of

            - the path of a folder of class folders, with or without ``train/`` and
              ``val|valid|test/`` above them;
            - the path of a CSV, TSV or Parquet file, or of a folder of ``train.*``, ``test.*``;
            - the word ``"digits"``: scikit-learn's handwritten digits;
            - a ``datasets.Dataset`` or ``DatasetDict``; a data frame or Arrow table;
            - a map-style torch data set of pairs (image, label);
            - arrays ``(x, y)``, or ``{"train": (x, y), "test": (x, y)}``; the values may be torch
              data sets as well.
        image_column: a table's column of image bytes or paths; found by itself where
            unambiguous.
        label_column: a table's column of labels; likewise.
        train: the folder, table, key or split that is the training split, where its name does
            not say so.
        test: the same for the test split; for one table, it may be the path of another.
        test_fraction: share of each class that is set aside where the source has no test split;
            0.2 leaves most items to learn from.
        seed: decides which items are set aside. The choice depends on their content, not on
            their order or names, and items of equal content stay on one side.
        digest_memo: remembers digests of files from one session to the next.
        reporter: shown the progress of reading. Notes are not told but kept in ``notes``.

    Returns:
        A data set with the splits ``train`` and ``test``, and ``validation`` where the source
        has one beside a test split.

    Raises:
        DataError: the source does not exist, cannot be read, or is not labelled images.
        MissingExtraError: a package that this source needs is not installed.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must lie in (0, 1), not {test_fraction}")
    reporter = reporter or SilentReporter()
    found = _read(
        source, image_column, label_column, train, test, digest_memo, reporter, labelled=True
    )
    notes = list(found.notes)
    classes, splits = _splits(found, notes, reporter)
    _settle_splits(splits, test_fraction, seed, notes)
    _note_classes(classes, splits, notes)
    return Dataset(found.name, classes, splits, tuple(notes))


def load_test_data(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    test: str | None = None,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Dataset:
    """Load labelled images to evaluate on: the source's test split, or all of it.

    Where the source has a test split (or, failing that, a validation split), that is taken; an
    undivided source is taken whole. Nothing is set aside.

    Args: as for :func:`load_data`.

    Returns:
        A data set with the one split ``test``.

    Raises:
        DataError, MissingExtraError: as for :func:`load_data`.
    """
    reporter = reporter or SilentReporter()
    found = _read(
        source, image_column, label_column, None, test, digest_memo, reporter, labelled=True
    )
    role = next(r for r in ("test", "validation", WHOLE, "train") if r in found.parts)
    notes = list(found.notes)
    if len(found.parts) > 1:
        notes.append(f"Evaluating on the {role} split, because the source is divided.")
    only = Source(found.name, {role: found.parts[role]}, found.classes)
    classes, splits = _splits(only, notes, reporter)
    return Dataset(found.name, classes, {"test": splits[role]}, tuple(notes))


def load_items(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Split:
    """Load images to predict for, labelled or not, in the order of the source.

    Args:
        source: an image file; a folder of images, nested or not (sorted by path); or anything
            :func:`load_data` takes, if it is not divided into splits. The names of folders are
            not read as labels.
        image_column: as for :func:`load_data`.
        label_column: as for :func:`load_data`.
        digest_memo: as for :func:`load_data`.
        reporter: as for :func:`load_data`.

    Returns:
        One split; labels are −1 where the source has none.

    Raises:
        DataError: the source does not exist, cannot be read, or holds no images.
    """
    reporter = reporter or SilentReporter()
    if isinstance(source, str | Path) and str(source) != "digits":
        path = _existing(Path(source).expanduser())
        is_image = path.is_file() and not tables.is_table(path)
        if is_image or (path.is_dir() and not tables.table_files(path)):
            items = folders.read_images(path, digest_memo)
            rows = np.arange(len(items), dtype=np.int64)
            return Split(items, rows, np.full(len(items), -1, np.int64), (), reporter)
    found = _read(
        source, image_column, label_column, None, None, digest_memo, reporter, labelled=False
    )
    if len(found.parts) > 1:
        raise DataError(
            f"the source is divided into {few(list(found.parts))}, expected one list of items",
            hint="give one of its folders, tables or splits alone",
        )
    part = next(iter(found.parts.values()))
    classes, labels = encode({"all": part.names}, found.classes)
    rows = np.arange(len(part.items), dtype=np.int64)
    return Split(part.items, rows, labels["all"], classes, reporter)


def _read(
    source: Any,
    image: str | None,
    label: str | None,
    train: str | None,
    test: str | None,
    memo: DigestMemo | None,
    reporter: Reporter,
    *,
    labelled: bool,
) -> Source:
    """Hand the source to the reader of its kind."""
    if isinstance(source, str) and source == "digits":
        return arrays.read_digits()
    if isinstance(source, str | Path):
        return _read_path(Path(source).expanduser(), image, label, train, test, memo, labelled)
    if objects.is_hub_dataset(source):
        return objects.read_hub_dataset(
            source,
            image=image,
            label=label,
            train=train,
            test=test,
            memo=memo,
            labels_required=labelled,
        )
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "to_parquet"):
        return tables.read_arrow(
            source, name="table", image=image, label=label, memo=memo, labels_required=labelled
        )
    if isinstance(source, Mapping) and objects.are_map_style(source.values()):
        return objects.read_torch_datasets(
            source, train=train, test=test, reporter=reporter, labels_required=labelled
        )
    if isinstance(source, Mapping | tuple | list | np.ndarray) or hasattr(source, "detach"):
        return arrays.read_arrays(source, train=train, test=test, labels_required=labelled)
    if objects.is_map_style(source):
        part, declared = objects.read_torch_dataset(
            source, reporter=reporter, labels_required=labelled
        )
        return Source(type(source).__name__, {WHOLE: part}, declared)
    raise DataError(
        f"data of type {type(source).__name__} cannot be read",
        hint="expected a path, 'digits', a datasets.Dataset, a map-style torch data set, or arrays"
        " (x, y)",
    )


def _read_path(
    path: Path,
    image: str | None,
    label: str | None,
    train: str | None,
    test: str | None,
    memo: DigestMemo | None,
    labelled: bool,
) -> Source:
    path = _existing(path)
    if path.is_dir():
        if objects.is_saved_hub_dataset(path):
            return objects.read_saved_hub_dataset(
                path,
                image=image,
                label=label,
                train=train,
                test=test,
                memo=memo,
                labels_required=labelled,
            )
        if tables.table_files(path) and not folders.has_class_folders(path):
            return tables.read_table_folder(
                path,
                image=image,
                label=label,
                train=train,
                test=test,
                memo=memo,
                labels_required=labelled,
            )
        return folders.read_folder(path, train=train, test=test, memo=memo)
    if path.suffix.lower() == ".npz":
        return arrays.read_npz(path, train=train, test=test, labels_required=labelled)
    if not tables.is_table(path):
        kind = "one image" if path.suffix.lower() in SUFFIXES else "a file of unknown kind"
        raise DataError(
            f"'{path}' is {kind}, expected labelled data",
            hint="give a folder of class folders, or a .csv, .tsv, .parquet or .npz file",
        )
    other = _other_table(path, train, test)
    return tables.read_table_file(
        path, image=image, label=label, memo=memo, labels_required=labelled, test=other
    )


def _other_table(path: Path, train: str | None, test: str | None) -> Path | None:
    """Return the second table that ``test`` names, beside the first or from here."""
    if train is not None:
        raise DataError(
            f"'{path}' is one table, so train='{train}' has no meaning",
            hint="give the training table as the source, and the test table as test",
        )
    if test is None:
        return None
    beside = path.parent / test
    other = beside if beside.exists() else _existing(Path(test).expanduser())
    if not tables.is_table(other):
        raise DataError(
            f"test='{test}' is not a table", hint="expected a .csv, .tsv or .parquet file"
        )
    return other


def _existing(path: Path) -> Path:
    """Return the path if it exists, else say which part of it does not, and what is near."""
    try:
        if path.exists():
            return path
    except OSError as error:  # a link in a circle, a name that is too long
        raise DataError(f"'{path}' cannot be reached: {error.strerror}") from error
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


def _splits(
    found: Source, notes: list[str], reporter: Reporter
) -> tuple[tuple[str, ...], dict[str, Split]]:
    """Number the classes; drop held-out parts that come without labels; refuse missing labels."""
    parts = dict(found.parts)
    for role in ("test", "validation"):
        if len(parts) > 1 and role in parts and set(parts[role].names) == {None}:
            notes.append(f"The {role} split has no labels at all, so it is left out.")
            del parts[role]
    for part in parts.values():
        _require_labels(part)
    classes, labels = encode({role: part.names for role, part in parts.items()}, found.classes)
    splits = {
        role: Split(
            part.items, np.arange(len(part.items), dtype=np.int64), labels[role], classes, reporter
        )
        for role, part in parts.items()
    }
    return classes, splits


def _require_labels(part: Part) -> None:
    if None in part.names:
        origins = [part.items.origin(i) for i in range(len(part.items))]
        require_labels(part.names, origins, part.where)


def _settle_splits(splits: dict[str, Split], fraction: float, seed: int, notes: list[str]) -> None:
    """Turn what the source has into a training and a test split, in place."""
    if WHOLE in splits:
        splits["train"] = splits.pop(WHOLE)
    if "train" not in splits:
        raise DataError(
            f"the source has {few(list(splits))} but no training split",
            hint="expected a folder, table or split called train, or name it with --train",
        )
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
        notes.append("The validation split serves as the test split, because there is no other.")
    if "test" not in splits:
        _set_aside(splits, fraction, seed, notes)
    for role in ("train", "validation", "test"):  # the customary order
        if role in splits:
            splits[role] = splits.pop(role)


def _set_aside(splits: dict[str, Split], fraction: float, seed: int, notes: list[str]) -> None:
    whole = splits["train"]
    first, second = stratified_split(whole.labels, fraction, seed=seed, groups=whole.ids)
    if len(second) == 0:
        raise DataError(
            f"{count(len(whole), 'item')} in {count(len(whole.classes), 'class', 'classes')} are"
            " too few to set a test split aside: no class has two different items",
            hint="add items, or give a test split",
        )
    splits["train"], splits["test"] = whole.take(first), whole.take(second)
    notes.append(
        f"The source has no test split, so {count(len(second), 'item')} of {len(whole):,}"
        f" ({fraction:.0%} of each class, seed {seed}) were set aside as one."
    )
    repeated = len(whole) - len(set(whole.ids))
    if repeated:
        notes.append(
            f"{count(repeated, 'item')} repeat the content of another; such items stay together"
            " on one side of the split."
        )
    label_of: dict[str, set[int]] = {}
    for key, label in zip(whole.ids, whole.labels.tolist(), strict=True):
        label_of.setdefault(key, set()).add(label)
    contradictory = sum(len(labels) > 1 for labels in label_of.values())
    if contradictory:
        notes.append(
            f"{count(contradictory, 'image')} stand under more than one class; one of the labels"
            " must be wrong."
        )


def _note_classes(classes: tuple[str, ...], splits: dict[str, Split], notes: list[str]) -> None:
    """Say which classes a split lacks."""
    if len(classes) == 1:
        notes.append(f"There is only one class, '{classes[0]}': nothing to tell apart.")
        return
    missing = {
        role: [name for i, name in enumerate(classes) if i not in present]
        for role, split in splits.items()
        for present in [set(np.unique(split.labels).tolist())]
    }
    if names := missing["train"]:
        wrong = int(np.isin(splits["test"].labels, [classes.index(n) for n in names]).sum())
        notes.append(
            f"{count(len(names), 'class', 'classes')} without any training item: {few(names)};"
            f" {count(wrong, 'test item')} of such classes can only be classified wrongly."
        )
    if names := missing["test"]:
        notes.append(
            f"{count(len(names), 'class', 'classes')} without any test item: {few(names)}; the"
            " test figures say nothing about them."
        )
