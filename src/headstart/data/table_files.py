"""Files of tables → Arrow: Parquet, JSON Lines, and CSV in the forms that programs write it.

A CSV file is UTF-8, or UTF-16 and UTF-32 where a mark at its beginning says so. Any other encoding
looks like any other, so it is asked for with ``encoding=``. The delimiter is the one of comma,
semicolon, tab and bar that divides the line of names into the most columns, or what ``sep=;`` in
the first line of a file from Excel says. Lines end as they end: also with a carriage return alone.
Every column is read as text, so that ``007`` stays ``007``.
"""

from __future__ import annotations

import codecs
import csv
import io
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
from headstart.core.wording import format_bytes, quoted
from headstart.data import column_types
from headstart.data.content import UndecodableError
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.item_files import read_file
from headstart.data.source import Request

FROM_TEXT = {b"headstart.from": b"text"}
"""Marks tables whose every value was written as text."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DELIMITERS = ",;\t|"


def read_table(path: Path, request: Request) -> Any:
    """Return the table that a file holds.

    Raises:
        DataError: it cannot be read, or two columns have one name; one line, whatever the damage.
    """
    suffix = path.suffix.lower()
    try:
        if not path.is_file():
            raise FileNotFoundError if not path.exists() else OSError("it is not a regular file")
        table = _flat(_READERS.get(suffix, _read_text)(path, request))
        table = distinct(table, path.name)
        _require_text(table)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"'{path}' does not exist") from None
    except PermissionError:
        raise DataError(f"no permission to read '{path}'", hint="grant it") from None
    except Exception as error:  # damage makes parsers raise nearly anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"'{path}' cannot be read as {suffix.lstrip('.')}: {reason}",
            hint="check that the file is complete and matches its extension",
        ) from error
    return table


def distinct(table: Any, name: str) -> Any:
    """Return the table without empty columns that have no name, if no two have the same name."""
    for i in reversed(range(table.num_columns)):
        if not table.schema.names[i].strip() and _is_empty(table.column(i)):
            table = table.remove_column(i)
    names = table.schema.names
    if twins := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(
            f"{name} has several columns of the same name: {quoted(twins, 5)}", hint="rename them"
        )
    return table


def _flat(table: Any) -> Any:
    """Return a table whose nested fields are columns, named with dots: ``meta.label``.

    Structs with bytes of images or sounds stay as they are.
    """
    while any(_is_nested(field.type) for field in table.schema):
        table = pa.Table.from_arrays(*_spread(table), metadata=table.schema.metadata)
    return table


def _spread(table: Any) -> tuple[list[Any], list[str]]:
    """Return the columns with structs replaced by their fields, and the names."""
    arrays, names = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        name, kind = field.name, field.type
        if _is_nested(kind):
            arrays += [pc.struct_field(column, [at]) for at in range(kind.num_fields)]
            names += [f"{name}.{kind.field(at).name}" for at in range(kind.num_fields)]
        else:
            arrays.append(column)
            names.append(name)
    return arrays, names


def _is_nested(kind: Any) -> bool:
    return bool(pa.types.is_struct(kind)) and not column_types.is_bytes(kind)


def _is_empty(column: Any) -> bool:
    return column_types.is_text(column.type) and not any(
        (v or "").strip() for v in column.to_pylist()
    )


def _require_text(table: Any) -> None:
    """Refuse texts that are none, which would raise when they are looked at."""
    for field in table.schema:
        if column_types.is_text(field.type):
            table.column(field.name).validate(full=True)


# -- Parquet ---------------------------------------------------------------------------------------


def _read_parquet(path: Path, request: Request) -> Any:
    with pq.ParquetFile(path, memory_map=True) as file:
        schema = file.schema_arrow
        wanted = [
            name
            for name in (
                request.image_column or request.audio_column or request.text_column,
                request.label_column,
            )
            if name in schema.names
        ]
        split = [name for name in schema.names if name.casefold() in column_types.SPLIT_NAMES]
        # with both columns known, none but a split column need be read beside them
        chosen = list(dict.fromkeys(wanted + split)) if len(wanted) == 2 else None
        _require_memory(path, _uncompressed(file.metadata, chosen))
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


def _require_memory(path: Path, needed: int) -> None:
    free = psutil.virtual_memory().available
    if needed > free:
        raise DataError(
            f"the items in '{path}' need {format_bytes(needed)} of memory, but only"
            f" {format_bytes(free)} are free",
            hint="split the table into several, or store the items as files",
        )


# -- text ------------------------------------------------------------------------------------------


def _read_lines(path: Path, request: Request) -> Any:
    """Read a file of one JSON object a line."""
    lines = _text(path, request).removeprefix("\ufeff").split("\n")  # a text may hold other ends
    rows = [json.loads(line) for line in lines if line.strip()]
    if not rows:
        raise DataError(f"'{path}' is empty", hint="expected one JSON object a line")
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("expected one JSON object a line")
    names = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row.get(name) for row in rows] for name in names}
    return pa.table({name: _array(each, name, path) for name, each in values.items()})


def _array(values: list[Any], name: str, path: Path) -> Any:
    """Return the values of a field as an array.

    Raises:
        DataError: they are of several kinds, which are named with the line of the first of each.
    """
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        first: dict[str, int] = {}
        for line, value in enumerate(values, 1):
            if value is not None:
                first.setdefault(_KINDS.get(type(value), type(value).__name__), line)
        if len(first) < 2:
            raise
        found = ", ".join(f"{kind} in line {line}" for kind, line in first.items())
        raise DataError(
            f"field '{name}' of '{path}' holds values of several kinds: {found}",
            hint="write all of them as one kind, such as text",
        ) from None


_KINDS = {
    str: "text", int: "number", float: "number", bool: "truth value", list: "list", dict: "object",
}  # fmt: skip


def _read_text(path: Path, request: Request) -> Any:
    """Read a CSV or TSV file with every column as text."""
    text = _text(path, request).lstrip("\ufeff\r\n")
    if "\n" not in text:
        text = text.replace("\r", "\n")
    said, text = _separator(text)
    if not text.strip():
        raise DataError(f"'{path}' is empty", hint="expected a line of column names, then rows")
    delimiter = said or _delimiter(text)
    names = _names(text, delimiter)
    if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names):
        raise DataError(
            f"the first line of '{path}' holds data ({quoted(names, 5)}), expected column names",
            hint="add a first line with names, such as: path,label",
        )
    data = text.encode("utf-8")
    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        # one block, as long as that is possible: a quoted value may be long
        read_options=pyarrow.csv.ReadOptions(block_size=min(len(data) + 1, 2**30)),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in names}, strings_can_be_null=False
        ),
    )
    table = table.rename_columns([name.strip() for name in table.schema.names])
    _require_names(table, path)
    return table.replace_schema_metadata(FROM_TEXT)


def _require_names(table: Any, path: Path) -> None:
    """Refuse a first line that is a row, or that recurs: its word is a value of its own column.

    Looked at are columns whose values recur, as those of labels do.
    """
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if not name or len(pc.unique(column)) == table.num_rows:
            continue
        found = pc.index(column, pa.scalar(name)).as_py()
        if found >= 0:
            raise DataError(
                f"the first line of '{path}' is read as column names, and '{name}' is also a"
                f" value in its column (row {found}): is the line data, or is the header repeated?",
                hint="add a first line with names, such as: text,label; names may appear only"
                " there",
            )


def _text(path: Path, request: Request) -> str:
    """Return the text of a file.

    Raises:
        DataError: its encoding is not known, or it is no text.
    """
    _require_memory(path, 4 * path.stat().st_size)
    try:
        data = read_file(path)
    except UndecodableError as error:
        raise DataError(f"'{path}' cannot be read: {error}") from error
    if request.encoding is not None:
        try:
            return data.decode(request.encoding)
        except (UnicodeDecodeError, LookupError) as error:
            raise DataError(
                f"'{path}' cannot be read with encoding='{request.encoding}': {error}",
                hint="give another encoding, or omit it for UTF-8",
            ) from error
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return _decoded(path, data[len(mark) :], encoding)
    if data[:4] == b"PK\x03\x04" or data[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise DataError(
            f"'{path}' is a spreadsheet, despite its name",
            hint="save it as CSV (in Excel: CSV UTF-8)",
        )
    return _decoded(path, data, "utf-8")


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8":
            raise _not_utf8(path) from error
        raise DataError(
            f"'{path}' begins as {encoding.upper()} but is damaged: {error.reason}",
            hint="save it again, with the encoding UTF-8",
        ) from error
    if "\0" in text:
        raise DataError(
            f"'{path}' is not UTF-8 text: it holds zero bytes",
            hint="give its encoding, such as encoding='utf-16-le', or save it as UTF-8",
        )
    return text


def _not_utf8(path: Path) -> DataError:
    return DataError(
        f"'{path}' is not UTF-8 text",
        hint="save it with the encoding UTF-8 (in Excel: CSV UTF-8), or give its encoding, such"
        " as encoding='cp1252' for Western European Windows",
    )


def _separator(text: str) -> tuple[str | None, str]:
    """Return what a first line ``sep=;`` says, and the text behind it; Excel writes such a line."""
    first, _, rest = text.partition("\n")
    found = first.strip().strip('"')
    if found.casefold().startswith("sep=") and len(found) == 5:
        return found[4], rest
    if first.strip("\r").casefold() == "sep=\t":
        return "\t", rest
    return None, text


def _delimiter(text: str) -> str:
    return max(_DELIMITERS, key=lambda mark: (len(_names(text, mark)), mark == ","))


def _names(text: str, delimiter: str) -> list[str]:
    """Return the names of the columns; a quoted name may hold line breaks."""
    return next(csv.reader(io.StringIO(text[: 1 << 20], newline=""), delimiter=delimiter))


_READERS = {".parquet": _read_parquet, ".jsonl": _read_lines, ".ndjson": _read_lines}


__all__ = ["FROM_TEXT", "distinct", "read_table"]
