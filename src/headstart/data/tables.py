"""Tables of images: CSV, TSV and Parquet files, and whatever speaks Arrow's C stream."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.core.errors import DataError
from headstart.core.wording import count, did_you_mean, format_bytes, quoted
from headstart.data import columns
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.items import ArrowItems
from headstart.data.labels import MISSING_TEXT, class_names
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
from headstart.data.walking import existing, survey

_FROM_TEXT = {b"headstart.from": b"text"}  # marks tables whose every value was written as text


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
    table = _read(path, request)
    if test is None:
        return _divided(table, path.name, path.parent, request, path.stem)
    parts = {
        "train": _part(table, path.name, path.parent, request),
        "test": _part(_read(test, request), test.name, test.parent, request),
    }
    return Source(path.stem, parts)


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
            hint="name one file, or say which is which with train=NAME and test=NAME",
        )
    left = [f.name for f in files if not any(f in group for group in shards.values())]
    notes = [f"Not read, because their names are not those of splits: {quoted(left, 5)}."]
    parts = {
        role: _part(_concatenated(group, request), _joint_name(group), folder, request)
        for role, group in shards.items()
    }
    return Source(folder.resolve().name, parts, notes=tuple(notes if left else ()))


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
    table = _distinct(data if isinstance(data, pa.Table) else pa.table(data), name)
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
    if request.splits == "none":
        return Source(short, {WHOLE: _part(table, name, folder, request)})
    column = columns.split_column(table, (request.image_column, request.label_column))
    if column is not None:
        values = table.column(column)
        kinds = {value: role_of(value) for value in pc.unique(values).to_pylist() if value}
        found = {role for role in kinds.values() if role}
        if "train" in found and len(found) > 1:
            parts = {}
            for role in sorted(found):
                wanted = [value for value, r in kinds.items() if r == role]
                rows = pc.is_in(values, value_set=pa.array(wanted).cast(values.type))
                parts[role] = _part(table.filter(rows), f"{role} of {name}", folder, request)
            unused = [value for value, role in kinds.items() if role is None]
            notes = [f"Split by the column '{column}' of {name}."]
            if unused:
                notes.append(f"Rows whose '{column}' is {quoted(unused, 5)} left out.")
            return Source(short, parts, notes=tuple(notes))
    return _divided_by_paths(table, name, folder, request, short) or Source(
        short, {WHOLE: _part(table, name, folder, request)}
    )


def _divided_by_paths(
    table: Any, name: str, folder: Path, request: Request, short: str
) -> Source | None:
    """Divide a table whose paths lead into folders called train and test; None for others.

    Hugging Face's image folders have such a ``metadata.csv`` above their splits.
    """
    try:
        column = columns.image_column(table, name, request.image_column)
    except DataError:
        return None  # whoever reads the table says what is wrong with it
    _, paths = columns.image_parts(table.column(column))
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
    if left:
        notes.append(f"{count(left, 'row')} in folders that are no splits left out.")
    return Source(
        short,
        {
            role: _part(table.take(i), f"{role} of {name}", folder, request)
            for role, i in rows.items()
        },
        notes=tuple(notes),
    )


_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""What Hugging Face's image folders call the table of their labels."""


def tables_for(folder: Path) -> list[Path]:
    """Return the tables that say what the images of a folder are: ``metadata.*``, or one other.

    ``metadata.*`` may lie in the folder or in folders below, as in Hugging Face's image folders.
    """
    below = [path for path in survey([folder])[0].files if path.name.casefold() in _METADATA]
    return below or table_files(folder)


def has_metadata_labels(folder: Path, request: Request) -> bool:
    """Return whether ``metadata.*`` in or below a folder holds labels by a customary name.

    They then count before the names of folders, as in Hugging Face's image folders.
    """
    files = [path for path in tables_for(folder) if path.name.casefold() in _METADATA]
    try:
        return bool(files) and all(columns.names_its_labels(_read(f, request)) for f in files)
    except DataError:
        return True  # whoever reads it in earnest says what is wrong


def read_images_with_table(
    folder: Path, files: Sequence[Path], root: Path, request: Request
) -> tuple[Part, list[str]]:
    """Read a folder that holds images and a table of their labels, or several in folders below.

    Raises:
        DataError: several tables in one folder, and as for :func:`read_table_file`.
    """
    places = [path.parent for path in files]
    if len(set(places)) < len(places):
        raise DataError(
            f"'{folder}' holds the tables {quoted((f.name for f in files), 5)}, expected one that"
            " says what its images are",
            hint="keep one of them, or give one as the data",
        )
    tables = []
    for path in files:
        table = _read(path, request)
        if path.parent != folder:
            table = _below(table, path, path.parent.relative_to(folder).as_posix(), request)
        tables.append(table)
    name = files[0].relative_to(root).as_posix()
    joined = tables[0] if len(tables) == 1 else _joined(tables, [f.name for f in files])
    part = _part(joined, name, folder, request)
    held = sum(f.suffix.lower() in IMAGE_SUFFIXES for f in survey([folder])[0].files)
    notes = [f"The labels of '{folder.name}' are those of {name}."]
    if held > len(part.items):
        notes.append(
            f"{held - len(part.items):,} of {count(held, 'image')} of '{folder.name}' are not in"
            f" {name}"
            " and left out."
        )
    return part, notes


def _below(table: Any, path: Path, prefix: str, request: Request) -> Any:
    """Return a table with its paths written from a folder above it."""
    column = columns.image_column(table, path.name, request.image_column)
    if not columns.is_text(table.schema.field(column).type):
        return table
    texts = columns.text_column(table.column(column))
    written = pc.binary_join_element_wise(pa.scalar(prefix), texts, "/")
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, written)


def _joined(tables: Sequence[Any], names: Sequence[str]) -> Any:
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the tables {quoted(names, 5)} do not have the same columns: {error}",
            hint="make their columns equal",
        ) from error


def _part(table: Any, name: str, folder: Path, request: Request) -> Part:
    if table.num_rows == 0:
        raise DataError(f"{name} has no rows", hint="expected one row per image")
    image = columns.image_column(table, name, request.image_column)
    label = columns.label_column(
        table, name, request.label_column, image, required=request.labels_required
    )
    data, paths = columns.image_parts(table.column(image))
    if data is None:
        _require_some_file(paths, folder, name)
    items = ArrowItems(data, paths, folder, name, request.memo)
    if label is None:
        return unlabelled(items, name)
    where = f"column '{label}' of {name}"
    try:
        names = tuple(class_names(_label_values(table, label), where))
    except DataError:
        if request.labels_required or request.label_column is not None:
            raise
        return unlabelled(items, where)  # it was only a guess that these are labels
    return Part(items, names, where)


def _require_some_file(paths: Any, folder: Path, name: str) -> None:
    """Refuse a table whose paths lead nowhere: they start from somewhere else, most likely."""
    sample = [text for text in paths.slice(0, 50).to_pylist() if text and "://" not in text]
    found = (folder / text.replace("\\", "/") for text in sample)
    if sample and not any(_exists(path) for path in found):
        raise DataError(
            f"none of the first {count(len(sample), 'file')} that {name} names exists, such as"
            f" '{folder / sample[0]}'",
            hint="paths in a table start from the table's own folder: move the table, or correct"
            " the paths",
        )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _label_values(table: Any, label: str) -> list[Any]:
    """Return Python values; None for empty texts and, in CSV, for "NaN" and its like."""
    values: list[Any] = table.column(label).to_pylist()
    if columns.is_text(table.schema.field(label).type):
        missing = (
            MISSING_TEXT if _FROM_TEXT.items() <= (table.schema.metadata or {}).items() else {""}
        )
        return [None if v is None or v.strip().lower() in missing else v for v in values]
    return values


def _concatenated(files: Sequence[Path], request: Request) -> Any:
    return _joined([_read(file, request) for file in files], [file.name for file in files])


def _joint_name(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _read(path: Path, request: Request) -> Any:
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix, _read_text)
    try:
        return _distinct(reader(path, request), path.name)
    except FileNotFoundError:
        raise DataError(f"'{path}' does not exist") from None
    except PermissionError:
        raise DataError(f"no permission to read '{path}'", hint="grant it") from None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        kind = path.suffix.lower().lstrip(".")
        reason = " ".join(str(error).split())
        raise DataError(
            f"'{path}' cannot be read as {kind}: {reason}",
            hint="check that the file is whole and of the kind its name says",
        ) from error


def _distinct(table: Any, name: str) -> Any:
    """Return the table, if no two of its columns have the same name."""
    names = table.schema.names
    if twins := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(
            f"{name} has several columns of the same name: {quoted(twins, 5)}", hint="rename them"
        )
    return table


def _read_parquet(path: Path, request: Request) -> Any:
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        wanted = [
            name for name in (request.image_column, request.label_column) if name in schema.names
        ]
        split = [name for name in schema.names if name.casefold() in columns.SPLIT_NAMES]
        # with both columns known, none but a split column need be read beside them
        chosen = list(dict.fromkeys(wanted + split)) if len(wanted) == 2 else None
        needed = _uncompressed(file.metadata, chosen)
        free = psutil.virtual_memory().available
        if needed > free:
            raise DataError(
                f"the images in '{path}' need {format_bytes(needed)} of memory, but only"
                f" {format_bytes(free)} are free",
                hint="divide the table into several, or store the images as files",
            )
        return file.read(columns=chosen)


def _read_lines(path: Path, _: Request) -> Any:
    """Read a file of one JSON object a line."""
    try:
        with path.open("r", encoding="utf-8-sig") as file:
            rows = [json.loads(line) for line in file if line.strip()]
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except ValueError as error:
        raise pa.ArrowInvalid(str(error)) from error
    if not rows:
        raise DataError(f"'{path}' is empty", hint="expected one JSON object a line")
    if not all(isinstance(row, dict) for row in rows):
        raise pa.ArrowInvalid("expected one JSON object a line")
    return pa.Table.from_pylist(rows)


_READERS = {".parquet": _read_parquet, ".jsonl": _read_lines, ".ndjson": _read_lines}


def _uncompressed(metadata: Any, chosen: Sequence[str] | None) -> int:
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if chosen is None or column.path_in_schema.split(".")[0] in chosen:
                total += column.total_uncompressed_size
    return total


def _read_text(path: Path, _: Request) -> Any:
    """Read a CSV or TSV file with every column as text, so that ``007`` stays ``007``."""
    with path.open("rb") as file:
        first = file.readline(1 << 20)
    if not first.strip():
        raise DataError(f"'{path}' is empty", hint="expected a line of column names, then rows")
    delimiter = _delimiter(path, first)
    names = next(csv.reader([_decoded(path, first)], delimiter=delimiter))
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
        raise DataError(
            f"the first line of '{path}' holds data ({quoted(names, 5)}), expected column names",
            hint="add a first line with names, such as: path,label",
        )
    try:
        table = pyarrow.csv.read_csv(
            path,
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types={name: pa.string() for name in names}, strings_can_be_null=False
            ),
        )
        return table.replace_schema_metadata(_FROM_TEXT)
    except pa.ArrowInvalid as error:
        if "UTF8" in str(error):
            raise _not_utf8(path) from error
        raise


def _delimiter(path: Path, first: bytes) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=lambda mark: (first.count(mark.encode()), mark == ","))


def _decoded(path: Path, line: bytes) -> str:
    try:
        return line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error


def _not_utf8(path: Path) -> DataError:
    return DataError(f"'{path}' is not UTF-8 text", hint="save it with the encoding UTF-8")
