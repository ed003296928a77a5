"""Loading data: any source → a data set with splits, or the items of one split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import quoted
from headstart.data.assembled_targets import numbered_targets
from headstart.data.assembly import assemble, assemble_test, assemble_training
from headstart.data.dataset import Dataset, Split
from headstart.data.item_files import DigestMemo
from headstart.data.labels import encode
from headstart.data.levels import ValueRange
from headstart.data.source import (
    Request,
    Source,
    Splits,
)
from headstart.data.source_kinds import read_agreeing, read_source
from headstart.data.targets import Asked


def load_data(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    audio_column: str | None = None,
    columns: str | None = None,
    kind: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    image_folder: str | Path | None = None,
    image_suffix: str | None = None,
    encoding: str | None = None,
    train: str | None = None,
    test: str | None = None,
    splits: Splits = "auto",
    value_range: ValueRange | None = None,
    task: Asked = "auto",
    test_fraction: float = 0.2,
    seed: int = 0,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Dataset:
    r"""Load labelled items, and make sure that there is a training and a test split.

    Args:
        source: one of

            - the path of a folder of class folders, with or without ``train/`` and
              ``val|valid|test/`` above them;
            - the path of such a folder of ``.txt`` files, or of sound files (``.wav``, ``.flac``,
              ``.mp3``, ``.ogg``, ...);
            - the path of a CSV, TSV or Parquet file, or of a folder of ``train.*``, ``test.*``;
            - the path of a numpy archive, or of a folder that ``datasets`` has saved;
            - the word ``"digits"``: scikit-learn's handwritten digits; ``"photographs"``: pieces
              of its two sample photographs;
            - a ``datasets.Dataset`` or ``DatasetDict``; a data frame or Arrow table;
            - a map-style torch data set of pairs (image, label);
            - arrays ``(x, y)``, or ``{"train": (x, y), "test": (x, y)}``; the values may be torch
              data sets as well;
            - an address that fsspec knows, of any of these: ``"s3://bucket/photos"``,
              ``"https://host/train.parquet"``; contents are read where they lie;
            - the path or address of a tar file of WebDataset, of a folder of them, or their names
              in braces: ``"train-{000..009}.tar"``;
            - anything that a kind of your own accepts; see
              :func:`headstart.data.register_source`.
        image_column: a table's column of image bytes or paths; found by itself where
            unambiguous.
        label_column: a table's column of labels; likewise. Names with commas between them are
            several columns: one-hot ones (``"healthy,rust,scab"``), 0 and 1 of several labels an
            item, or the numbers of a regression (``"x,y"``).
        text_column: a table's column of texts; likewise, where the items are texts.
        columns: a table's columns that will join the features of a head (``"age,site"``): none of
            them is taken for the labels. What they hold is in ``metadata`` of the splits.
        audio_column: a table's column of sounds: paths or bytes of files; likewise.
        kind: ``image``, ``bands`` (images whose samples stay as they are), ``audio`` or ``text``,
            where a source might be read as several; a command gives what its backbone takes. None:
            images where there are any.
        group_column: a table's column that says which items belong together: a patient, a site, a
            camera, a film. Items of one group are never parted: not by the split that is set
            aside, nor by folds, and intervals count groups.
        group_pattern: the same for files: a regular expression that is searched for in the path of
            each item below the source, whose first bracket names the group: ``"(patient\d+)_"``.
        image_folder: where the paths of a table start: a folder, from here or from the table's
            own folder, which is the default.
        image_suffix: the ending of image files that a table names without it (``".jpg"``).
        encoding: of a CSV or JSON Lines file, such as ``"cp1252"``; None: UTF-8, or UTF-16 and
            UTF-32 where its first bytes say so.
        train: the folder, table, key or split that is the training split, where its name does
            not say so.
        test: the same for the test split; for one table, it may be the path of another.
        splits: ``auto``: names such as ``train`` and ``test`` say what is a split, and are never
            those of classes. ``none``: they say nothing; every folder is a class, and no column
            divides a table.
        value_range: the values of black and white, such as ``(0, 4095)`` for 12 bits, where the
            type of arrays does not say so, or files use fewer bits than they have. None: see
            :mod:`headstart.data.levels` for arrays and :mod:`headstart.data.decoding` for files.
        task: what the labels mean: ``classification`` (one class an item), ``multi-label`` (any
            number of labels an item) or ``regression`` (numbers). ``auto``: what they look like,
            told with the reason. Several labels come from a column of lists, of texts with ``|``,
            ``;`` or ``,`` between the labels, several columns of 0 and 1, or files that lie in
            several class folders.
        test_fraction: share of each class that is set aside where the source has no test split;
            0.2 leaves most items to learn from.
        seed: decides which items are set aside. The choice depends on their content, not on
            their order or names, and items of equal content stay on one side.
        digest_memo: remembers digests of files from one session to the next.
        reporter: shown the progress of reading. Notes are not reported but kept in ``notes``.

    Returns:
        A data set with the splits ``train`` and ``test``, and ``validation`` where the source
        has one beside a test split.

    Raises:
        DataError: the source does not exist, cannot be read, or is not labelled items.
        MissingExtraError: a package that this source needs is not installed.
    """
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction must be in (0, 1), not {test_fraction}")
    reporter = reporter or SilentReporter()
    request = Request(
        image_column=image_column,
        label_column=label_column,
        text_column=text_column,
        audio_column=audio_column,
        columns=columns,
        kind=kind,
        group_column=group_column,
        group_pattern=group_pattern,
        image_folder=image_folder,
        image_suffix=image_suffix,
        encoding=encoding,
        train=train,
        test=test,
        splits=splits,
        value_range=value_range,
        task=task,
        memo=digest_memo,
        reporter=reporter,
    )
    return assemble(read_agreeing(source, request), test_fraction, seed, reporter, task)


def load_test_data(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    audio_column: str | None = None,
    columns: str | None = None,
    kind: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    image_folder: str | Path | None = None,
    image_suffix: str | None = None,
    encoding: str | None = None,
    test: str | None = None,
    splits: Splits = "auto",
    value_range: ValueRange | None = None,
    task: Asked = "auto",
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Dataset:
    """Load labelled items to evaluate on: the source's test split, or all of it.

    Where the source has a test split (or, failing that, a validation split), that is taken; an
    undivided source is taken whole. Nothing is set aside.

    Args: as for :func:`load_data`.

    Returns:
        A data set with the one split ``test``.

    Raises:
        DataError, MissingExtraError: as for :func:`load_data`.
    """
    reporter = reporter or SilentReporter()
    request = Request(
        image_column=image_column,
        label_column=label_column,
        text_column=text_column,
        audio_column=audio_column,
        columns=columns,
        kind=kind,
        group_column=group_column,
        group_pattern=group_pattern,
        image_folder=image_folder,
        image_suffix=image_suffix,
        encoding=encoding,
        test=test,
        splits=splits,
        value_range=value_range,
        task=task,
        memo=digest_memo,
        reporter=reporter,
    )
    return assemble_test(read_agreeing(source, request), reporter, task)


def load_training_data(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    audio_column: str | None = None,
    columns: str | None = None,
    kind: str | None = None,
    group_column: str | None = None,
    group_pattern: str | None = None,
    image_folder: str | Path | None = None,
    image_suffix: str | None = None,
    encoding: str | None = None,
    train: str | None = None,
    splits: Splits = "auto",
    value_range: ValueRange | None = None,
    task: Asked = "auto",
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Dataset:
    """Load labelled items that train, all of them: of a divided source its training split.

    Args: as for :func:`load_data`.

    Returns:
        A data set with the one split ``train``.

    Raises:
        DataError, MissingExtraError: as for :func:`load_data`.
    """
    reporter = reporter or SilentReporter()
    request = Request(
        image_column=image_column,
        label_column=label_column,
        text_column=text_column,
        audio_column=audio_column,
        columns=columns,
        kind=kind,
        group_column=group_column,
        group_pattern=group_pattern,
        image_folder=image_folder,
        image_suffix=image_suffix,
        encoding=encoding,
        train=train,
        splits=splits,
        value_range=value_range,
        task=task,
        memo=digest_memo,
        reporter=reporter,
    )
    return assemble_training(read_agreeing(source, request), reporter, task)


def load_items(
    source: Any,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    text_column: str | None = None,
    audio_column: str | None = None,
    columns: str | None = None,
    kind: str | None = None,
    image_folder: str | Path | None = None,
    image_suffix: str | None = None,
    encoding: str | None = None,
    value_range: ValueRange | None = None,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
) -> Split:
    """Load items to predict for, labelled or not, in the order of the source.

    Args:
        source: an image file; a folder of images, nested or not (sorted by path); a PIL image; a
            list of paths, bytes of image files, PIL images or arrays, which may be empty; or
            anything :func:`load_data` takes, if it is not divided into splits. The names of
            folders are not read as labels.
        image_column: as for :func:`load_data`.
        label_column, text_column, audio_column, columns, kind, image_folder, image_suffix,
            encoding: as for :func:`load_data`.
        value_range: as for :func:`load_data`.
        digest_memo: as for :func:`load_data`.
        reporter: as for :func:`load_data`.

    Returns:
        One split; labels are −1 where the source has none.

    Raises:
        DataError: the source does not exist, cannot be read, or holds no items.
    """
    parts = load_parts(
        source,
        image_column=image_column,
        label_column=label_column,
        text_column=text_column,
        audio_column=audio_column,
        columns=columns,
        kind=kind,
        image_folder=image_folder,
        image_suffix=image_suffix,
        encoding=encoding,
        value_range=value_range,
        digest_memo=digest_memo,
        reporter=reporter,
    )
    if len(parts) > 1:
        raise DataError(
            f"the source has the splits {quoted(list(parts))}, expected a single set of items",
            hint="give only one of its folders, tables or splits",
        )
    return next(iter(parts.values()))


def load_parts(
    source: Any,
    *,
    labelled: bool = False,
    digest_memo: DigestMemo | None = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> dict[str, Split]:
    """Load the items of all parts of a source, labelled or not, each in the order of the source.

    Args:
        source: as for :func:`load_items`; it may be divided into splits.
        labelled: whether labels are read where there are any: names of folders, several labels an
            item, and numbers, too.
        digest_memo, reporter: as for :func:`load_data`.
        **options: the others of :func:`load_items`.

    Returns:
        A split for each part, by its role; labels are −1 where the source has none.

    Raises:
        DataError: the source does not exist, cannot be read, or holds no items.
    """
    reporter = reporter or SilentReporter()
    request = Request(labels_required=labelled, memo=digest_memo, reporter=reporter, **options)
    try:
        found = read_source(source, request)
    except DataError:
        if not labelled:
            raise
        return load_parts(source, digest_memo=digest_memo, reporter=reporter, **options)
    for note in found.notes:
        reporter.note(note)
    if labelled and any(part.targets is not None for part in found.parts.values()):
        return _with_targets(found, request)
    names = {
        role: part.names if part.targets is None else (None,) * len(part.items)
        for role, part in found.parts.items()
    }
    classes, labels = encode(names, found.classes)
    return {
        role: Split(
            part.items,
            np.arange(len(part.items), dtype=np.int64),
            labels[role],
            classes,
            reporter,
            metadata=part.metadata,
        )
        for role, part in found.parts.items()
    }


def _with_targets(found: Source, request: Request) -> dict[str, Split]:
    """Return the parts of a source whose labels are several an item, or numbers."""
    numbered = numbered_targets(found.parts, request.task)
    assert numbered is not None
    return {
        role: Split(
            part.items,
            numbered.splits[role].rows,
            numbered.splits[role].strata,
            numbered.outputs,
            request.reporter,
            metadata=part.metadata,
            task=numbered.task,
            targets=numbered.splits[role].values,
        )
        for role, part in found.parts.items()
    }


__all__ = [
    "load_data",
    "load_items",
    "load_parts",
    "load_test_data",
    "load_training_data",
]
