"""Tables of images: CSV, TSV and Parquet files, and whatever speaks Arrow's C stream."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.core.errors import DataError
from headstart.core.wording import did_you_mean, format_bytes, quoted
from headstart.data import columns
from headstart.data.decoding import SUFFIXES as IMAGE_SUFFIXES
from headstart.data.folders import any_image, existing, subfolders
from headstart.data.items import ArrowItems
from headstart.data.labels import MISSING_TEXT, class_names
from headstart.data.source import (
    WHOLE,
    Part,
    Request,
    Source,
    is_table,
    role_of,
    roles,
    table_files,
    unlabelled,
)

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


def is_table_folder(path: Path, request: Request) -> bool:
    """Return whether a folder's tables count, not its folders.

    They do if a table is called train or test, or if the folders cannot be classes because there
    is but one with images (``labels.csv`` beside ``images/``).
    """
    files = table_files(path) if path.is_dir() else []
    if not files:
        return False
    if name_splits(files, request):
        return True
    return sum(map(any_image, subfolders(path))) < 2


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
    return Source(short, {WHOLE: _part(table, name, folder, request)})


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
            f"none of the first {len(sample)} files that {name} names exists, such as"
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
    tables = [_read(file, request) for file in files]
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the tables {quoted((f.name for f in files), 5)} do not have the same columns:"
            f" {error}",
            hint="make their columns equal",
        ) from error


def _joint_name(files: Sequence[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _read(path: Path, request: Request) -> Any:
    reader = _read_parquet if path.suffix.lower() == ".parquet" else _read_text
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
