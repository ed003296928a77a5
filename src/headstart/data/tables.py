"""Tables of images, sounds or texts: CSV, TSV, Parquet, and whatever speaks Arrow's C stream."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, quoted
from headstart.data import column_types, columns, label_columns
from headstart.data.image_paths import image_folder, require_some_file, with_suffix
from headstart.data.item_columns import item_column, other_items
from headstart.data.item_groups import groups_of_values
from headstart.data.items import ArrowItems, Items, SoundItems, TextItems
from headstart.data.labels import MISSING_TEXT
from headstart.data.roles import NO_ROLE, folder_roles, role_of
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
from headstart.data.table_files import FROM_TEXT, distinct, read_table
from headstart.data.targets import read_columns, read_labels
from headstart.data.walking import existing


def read_table_file(path: Path, request: Request) -> Source:
    """Read one table, and a second one that is the test split if the request names one.

    A column ``split`` divides a single table if it names train and test.

    Args:
        path: an existing file.
        request: what to read.

    Raises:
        DataError: unreadable, empty, or no such or several possible columns.
    """
    test = _other_table(path, request)
    table = read_table(path, request)
    if test is None:
        return _divided(table, path.name, path.parent, request, path.stem)
    notes = _told(table, request)
    parts = {
        "train": read_part(table, path.name, path.parent, request),
        "test": read_part(read_table(test, request), test.name, test.parent, request),
    }
    return Source(path.stem, parts, notes=notes)


def read_table_folder(folder: Path, request: Request) -> Source:
    """Read a folder of tables named ``train.*``, ``val.*``, ``test.*``, in one or more shards.

    Raises:
        DataError: as for :func:`read_table_file`; or no table's name says which split it is.
    """
    files = table_files(folder)
    names = [file.name for file in files]
    shards = _shards(files, request)
    for option, name in (("train", request.train), ("test", request.test)):
        if name is not None and option not in shards:
            raise DataError(
                f"'{folder}' holds no table '{name}', expected the {option} split there",
                hint=did_you_mean(name, names) or f"it holds {quoted(names, 5)}",
            )
    if not shards and len(files) == 1:
        return read_table_file(files[0], request)
    if not shards:
        raise DataError(
            f"'{folder}' holds the tables {quoted(names, 5)}, none of which is called train",
            hint="give one file, or name the splits with train=NAME and test=NAME",
        )
    left = [f.name for f in files if not any(f in group for group in shards.values())]
    notes = [f"Not read, because their names are not those of splits: {quoted(left, 5)}."]
    tables = {role: _concatenated(group, request) for role, group in shards.items()}
    like = _label_of(tables.get("train"), request)
    parts = {
        role: read_part(
            table,
            _joint_name(shards[role]),
            folder,
            request,
            like=None if role == "train" else like,
        )
        for role, table in sorted(tables.items(), key=lambda pair: pair[0] != "train")
    }
    told = _told(tables.get("train"), request)
    return Source(folder.resolve().name, parts, notes=(*(notes if left else ()), *told))


def _label_of(table: Any, request: Request) -> str | None:
    """Return the label columns of the training table, with commas; None where they are not found.

    A test table without them is one without labels, as competitions hand it out.
    """
    if table is None or not request.labels_required:
        return None
    try:
        item = item_column(table, "train", Path(), request).name
        found = label_columns.label_column(
            table,
            "train",
            request.label_column,
            item,
            required=True,
            beside=request.beside,
            task=request.task,
        )
    except DataError:
        return None  # whoever reads the table says what is wrong with it
    return ",".join(found) if isinstance(found, tuple) else found


def _told(table: Any, request: Request) -> tuple[str, ...]:
    """Say what is decided about columns that the user did not name."""
    return (*_left_over(table, request), *_unread(table, request))


def _left_over(table: Any, request: Request) -> tuple[str, ...]:
    """Say which column holds the labels, where joined columns leave only that one."""
    if request.columns is None or request.label_column is not None:
        return ()
    found = _label_of(table, request)
    if found is None or "," in found or label_columns.names_its_labels(table):
        return ()
    return (f"The labels are in the column '{found}', the only one left.",)


def _unread(table: Any, request: Request) -> tuple[str, ...]:
    """Say which columns of images, sounds or texts are not read, because others are."""
    if table is None or table.num_rows == 0:
        return ()
    try:
        found = item_column(table, "train", Path(), request)
    except DataError:
        return ()  # whoever reads the table says what is wrong with it
    labels = (request.label_column or _label_of(table, request) or "").split(",")
    note = other_items(table, found, request, (*labels, *request.beside))
    return (note,) if note else ()


def _other_table(path: Path, request: Request) -> Path | None:
    """Return the second table that ``test`` names, beside the first or from here."""
    test = request.test
    if request.train is not None:
        raise DataError(
            f"'{path}' is one table, so train='{request.train}' does not apply",
            hint="give the training table as the source, and the test table as test",
        )
    if test is None:
        return None
    beside = path.parent / test
    other = beside if beside.exists() else existing(Path(test).expanduser())
    if not is_table(other):
        raise DataError(
            f"test='{test}' is not a table", hint="expected a .csv, .tsv or .parquet file"
        )
    return other


def is_arrow(source: Any) -> bool:
    """Return whether this is a table in memory: pyarrow, pandas, polars, ..."""
    return hasattr(source, "__arrow_c_stream__") or hasattr(source, "to_parquet")


def read_arrow(data: Any, name: str, request: Request) -> Source:
    """Read a table in memory: pyarrow, pandas, polars, ... Relative paths start from here."""
    table = distinct(data if isinstance(data, pa.Table) else pa.table(data), name)
    return _divided(table, name, Path(), request, name)


def name_splits(files: Sequence[Path], request: Request) -> bool:
    """Return whether the name of any of these tables says which split it is."""
    return bool(_shards(files, request))


def _shards(files: Sequence[Path], request: Request) -> dict[str, list[Path]]:
    by_name = roles([f.name for f in files] + [f.stem for f in files], request)
    shards: dict[str, list[Path]] = {}
    for file in files:
        role = by_name.get(file.name) or by_name.get(file.stem)
        if role:
            shards.setdefault(role, []).append(file)
    return shards


def _divided(table: Any, name: str, folder: Path, request: Request, short: str) -> Source:
    """Divide a table by its split column, if it has one that makes sense."""
    left = _told(table, request)
    if request.splits == "none":
        return Source(short, {WHOLE: read_part(table, name, folder, request)}, notes=left)
    taken = (request.image_column, request.label_column, request.group_column)
    column = columns.split_column(table, taken)
    if column is not None:
        values = table.column(column)
        kinds = {value: role_of(value) for value in pc.unique(values).to_pylist() if value}
        found = {role for role in kinds.values() if role}
        if "train" in found and len(found) > 1:
            parts = {}
            for role in sorted(found):
                wanted = [value for value, r in kinds.items() if r == role]
                rows = pc.is_in(values, value_set=pa.array(wanted).cast(values.type))
                parts[role] = read_part(table.filter(rows), f"{role} of {name}", folder, request)
            unused = [value for value, role in kinds.items() if role is None]
            notes = [f"Split by the column '{column}' of {name}.", *left]
            if unused:
                notes.append(f"Rows whose '{column}' is {quoted(unused, 5)} skipped.")
            return Source(short, parts, notes=tuple(notes))
    return _divided_by_paths(table, name, folder, request, short) or Source(
        short, {WHOLE: read_part(table, name, folder, request)}, notes=left
    )


def _divided_by_paths(
    table: Any, name: str, folder: Path, request: Request, short: str
) -> Source | None:
    """Divide a table whose paths lead into folders called train and test; None for others.

    Hugging Face's image folders have such a ``metadata.csv`` above their splits.
    """
    try:
        column, kind = item_column(table, name, folder, request)
    except DataError:
        return None  # whoever reads the table says what is wrong with it
    if kind == "text":
        return None
    _, paths = column_types.image_parts(table.column(column))
    if paths is None or paths.null_count:
        return None
    parts = [text.replace("\\", "/").removeprefix("./").split("/") for text in paths.to_pylist()]
    for depth in range(min(map(len, parts), default=1) - 1):
        values = [path[depth] for path in parts]
        found = folder_roles(dict.fromkeys(values))
        splits = {role for role in found.values() if role != NO_ROLE}
        if "train" in splits and len(splits) > 1 and set(found) == set(values):
            break
        if len(set(values)) > 1:
            return None
    else:
        return None
    rows = {role: [i for i, v in enumerate(values) if found[v] == role] for role in sorted(splits)}
    left = len(values) - sum(map(len, rows.values()))
    notes = [f"Split by the folders {quoted(found, 5)} in the paths of {name}."]
    notes += _told(table, request)
    if left:
        notes.append(f"{count(left, 'row')} in folders that are not splits skipped.")
    return Source(
        short,
        {
            role: read_part(table.take(i), f"{role} of {name}", folder, request)
            for role, i in rows.items()
        },
        notes=tuple(notes),
    )


def joined(tables: Sequence[Any], names: Sequence[str]) -> Any:
    """Return tables one below the other.

    Raises:
        DataError: their columns differ.
    """
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the tables {quoted(names, 5)} do not have the same columns: {error}",
            hint="make their columns equal",
        ) from error


def read_part(
    table: Any, name: str, folder: Path, request: Request, *, like: str | None = None
) -> Part:
    """Read the items and labels of a table.

    Args:
        table: the table.
        name: what to call it.
        folder: that its paths start from, unless the request names another.
        request: which columns.
        like: the label column of the training table; a table without it has no labels.
    """
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows", hint="expected one row per item")
    item, kind = item_column(table, name, folder, request)
    label: str | tuple[str, ...] | None
    if like is not None and not set(like.split(",")) & set(table.schema.names):
        label = None
    else:
        label = label_columns.label_column(
            table,
            name,
            request.label_column,
            item,
            required=request.labels_required,
            beside=request.beside,
            task=request.task,
        )
    items: Items
    if kind == "text":
        items = TextItems(column_types.as_text(table.column(item)), f"{name} row")
    else:
        data, paths = column_types.image_parts(table.column(item))
        start = image_folder(folder, request)
        if data is None:
            paths = with_suffix(paths, request)
            if label is not None or like is None:  # a test table without labels is left out anyway
                require_some_file(paths, start, name)
        kinds: type[ArrowItems] = SoundItems if kind == "audio" else ArrowItems
        items = kinds(data, paths, start, name, request.memo)
    groups = _groups(table, name, request)
    if label is None:
        return unlabelled(items, name, columns.metadata(table, (item,)))
    about = columns.metadata(table, (item, *([label] if isinstance(label, str) else label)))
    if isinstance(label, tuple):
        if label_columns.are_classes(table, label, request.task):
            where = f"the one-hot columns of {name}"
            return Part(items, label_columns.one_hot_names(table, label), where, groups, about)
        where = f"the columns {quoted(label, 3)} of {name}"
        found = read_columns({one: _label_values(table, one) for one in label}, where, request.task)
        return Part(items, found.names, where, groups, about, found.targets)
    where = f"column '{label}' of {name}"
    try:
        found = read_labels(_label_values(table, label), where, request.task, output=label)
    except DataError:
        if request.labels_required or request.label_column is not None:
            raise
        return unlabelled(
            items, where, columns.metadata(table, (item,))
        )  # it was only a guess that these are labels
    return Part(items, found.names, where, groups, about, found.targets, found.doubt)


def _groups(table: Any, name: str, request: Request) -> tuple[str, ...] | None:
    column = columns.group_column(table, name, request.group_column)
    if column is None:
        return None
    return groups_of_values(table.column(column).to_pylist(), f"column '{column}' of {name}")


def _label_values(table: Any, label: str) -> list[Any]:
    """Return Python values; None for empty texts and, in CSV, for "NaN" and its like."""
    values: list[Any] = table.column(label).to_pylist()
    if column_types.is_text(table.schema.field(label).type):
        missing = (
            MISSING_TEXT if FROM_TEXT.items() <= (table.schema.metadata or {}).items() else {""}
        )
        return [None if v is None or v.strip().lower() in missing else v for v in values]
    return values


def _concatenated(files: Sequence[Path], request: Request) -> Any:
    return joined([read_table(file, request) for file in files], [file.name for file in files])


def _joint_name(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
