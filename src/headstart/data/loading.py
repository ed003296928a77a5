"""The doors of this room: any source → a Dataset, or the items of one split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import did_you_mean, quoted
from headstart.data import arrays, folders, objects, tables
from headstart.data.assembly import assemble, assemble_test
from headstart.data.dataset import Dataset, Split
from headstart.data.decoding import SUFFIXES
from headstart.data.items import DigestMemo
from headstart.data.labels import encode
from headstart.data.source import WHOLE, Request, Source


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
    request = Request(image_column, label_column, train, test, True, digest_memo, reporter)
    return assemble(_read(source, request), test_fraction, seed, reporter)


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
    request = Request(image_column, label_column, None, test, True, digest_memo, reporter)
    return assemble_test(_read(source, request), reporter)


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
    if isinstance(source, str | Path) and source != "digits":
        path = _existing(Path(source).expanduser())
        if _holds_images(path):
            items = folders.read_images(path, digest_memo)
            rows = np.arange(len(items), dtype=np.int64)
            return Split(items, rows, np.full(len(items), -1, np.int64), (), reporter)
    request = Request(image_column, label_column, None, None, False, digest_memo, reporter)
    found = _read(source, request)
    if len(found.parts) > 1:
        raise DataError(
            f"the source is divided into {quoted(found.parts, 5)}, expected one list of items",
            hint="give one of its folders, tables or splits alone",
        )
    part = next(iter(found.parts.values()))
    classes, labels = encode({"all": part.names}, found.classes)
    rows = np.arange(len(part.items), dtype=np.int64)
    return Split(part.items, rows, labels["all"], classes, reporter)


def _read(source: Any, request: Request) -> Source:
    """Hand the source to the reader of its kind."""
    if isinstance(source, str) and source == "digits":
        return arrays.read_digits()
    if isinstance(source, str | Path):
        return _read_path(Path(source).expanduser(), request)
    if objects.is_hub_dataset(source):
        return objects.read_hub_dataset(source, request)
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "to_parquet"):
        return tables.read_arrow(source, "table", request)
    if isinstance(source, Mapping) and objects.are_map_style(source.values()):
        return objects.read_torch_datasets(source, request)
    if isinstance(source, Mapping | tuple | list | np.ndarray) or hasattr(source, "detach"):
        return arrays.read_arrays(source, request)
    if objects.is_map_style(source):
        part, declared = objects.read_torch_dataset(source, request)
        return Source(type(source).__name__, {WHOLE: part}, declared)
    raise DataError(
        f"data of type {type(source).__name__} cannot be read",
        hint="expected a path, 'digits', a datasets.Dataset, a map-style torch data set, or arrays"
        " (x, y)",
    )


def _read_path(path: Path, request: Request) -> Source:
    path = _existing(path)
    if path.is_dir():
        if objects.is_saved_hub_dataset(path):
            return objects.read_saved_hub_dataset(path, request)
        if _is_table_folder(path, request):
            return tables.read_table_folder(path, request)
        return folders.read_folder(path, request)
    if path.suffix.lower() == ".npz":
        return arrays.read_npz(path, request)
    if not tables.is_table(path):
        kind = "one image" if path.suffix.lower() in SUFFIXES else "a file of unknown kind"
        raise DataError(
            f"'{path}' is {kind}, expected labelled data",
            hint="give a folder of class folders, or a .csv, .tsv, .parquet or .npz file",
        )
    return tables.read_table_file(path, request, _other_table(path, request))


def _holds_images(path: Path) -> bool:
    """Return whether a path stands for images themselves, not for a list of them."""
    if not path.is_dir():
        return path.suffix.lower() not in (*tables.SUFFIXES, ".npz")
    if objects.is_saved_hub_dataset(path):
        return False
    return not tables.table_files(path) or folders.any_image(path)


def _is_table_folder(path: Path, request: Request) -> bool:
    """Return whether a folder's tables count, not its folders.

    They do if a table is called train or test, or if the folders cannot be classes because there
    is but one with images (``labels.csv`` beside ``images/``).
    """
    files = tables.table_files(path)
    if not files:
        return False
    if tables.name_splits(files, request):
        return True
    return sum(map(folders.any_image, folders.subfolders(path))) < 2


def _other_table(path: Path, request: Request) -> Path | None:
    """Return the second table that ``test`` names, beside the first or from here."""
    test = request.test
    if request.train is not None:
        raise DataError(
            f"'{path}' is one table, so train='{request.train}' has no meaning",
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
        if path.is_dir():
            folders.require_open(path)
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
