"""What the columns of a table hold, by their Arrow types, first rows and customary names."""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from headstart.core.errors import DataError
from headstart.core.wording import did_you_mean
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.labels import number_of
from headstart.data.sound_files import AUDIO_SUFFIXES

LABEL_NAMES = (
    "label", "labels", "class", "class_name", "classname", "class_label", "class_id", "classid",
    "category", "target", "targets", "y", "species", "label_name", "category_name", "fine_label",
)  # fmt: skip
"""Customary names (lower case) of a column of labels."""

_NOT_LABELS = frozenset({"", "id", "index", "idx", "uid", "uuid"})
SPLIT_NAMES = frozenset({"split", "subset", "partition"})
"""Names (lower case) of a column that says which split a row belongs to."""

SAMPLE = 200
"""How many first rows of a column are looked at."""


def is_text(kind: Any) -> bool:
    """Return whether an Arrow type holds text, dictionary-encoded or not."""
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def is_bytes(kind: Any) -> bool:
    """Return whether an Arrow type holds image bytes: binary, or a struct with ``bytes``."""
    if types.is_struct(kind):
        return any(field.name == "bytes" and is_bytes(field.type) for field in kind)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def holds_paths(
    table: Any, name: str, suffixes: frozenset[str] = IMAGE_SUFFIXES | AUDIO_SUFFIXES
) -> bool:
    """Return whether most of the first rows of a column name files with some endings."""
    if not is_text(table.schema.field(name).type):
        return False
    sample = [v for v in table.column(name).slice(0, SAMPLE).to_pylist() if v]
    files = sum(PurePosixPath(v.replace("\\", "/")).suffix.lower() in suffixes for v in sample)
    return files > len(sample) // 2


def is_list(kind: Any) -> bool:
    """Return whether a column holds lists of names or whole numbers: several labels an item."""
    listed = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(listed) and (is_text(kind.value_type) or types.is_integer(kind.value_type))


def is_scalar(kind: Any) -> bool:
    """Return whether a column holds numbers, truth values or texts."""
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    return bool(numeric) or is_text(kind)


def holds_fractions(table: Any, field: Any) -> bool:
    """Return whether a column holds floats, or texts that are numbers and not all whole."""
    if not is_text(field.type):
        return bool(types.is_floating(field.type))
    sample = [v for v in table.column(field.name).slice(0, SAMPLE).to_pylist() if v]
    numbers = [number_of(value) for value in sample]
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) and any(
        math.isfinite(number) and not number.is_integer() for number in known
    )


def is_index(name: str) -> bool:
    """Return whether a column only numbers the rows or says their split, by its name."""
    folded = name.casefold()
    return folded in _NOT_LABELS | SPLIT_NAMES or folded.startswith(("unnamed:", "__index_level_"))


def require_column(table: Any, name: str, where: str, option: str) -> None:
    """Refuse the name of a column that a table lacks.

    Raises:
        DataError: with the nearest names.
    """
    if name not in table.schema.names:
        raise DataError(
            f"{where} has no column '{name}' ({option}='{name}')",
            hint=did_you_mean(name, table.schema.names) or columns_hint(table),
        )


def columns_hint(table: Any) -> str:
    """Return which columns a table has."""
    columns = ", ".join(f"'{field.name}' ({field.type})" for field in table.schema)
    return f"its columns are {columns}" if columns else "it has no columns"


def as_text(values: Any) -> Any:
    """Return a chunked array of plain strings from one of any text type, or of whole numbers."""
    return values.cast(pa.string()) if not types.is_string(values.type) else values


def image_parts(column: Any) -> tuple[Any, Any]:
    """Return (bytes or None, paths or None) of an image column, without copying the bytes."""
    if not types.is_struct(column.type):
        named = is_text(column.type) or types.is_integer(column.type)
        return (None, as_text(column)) if named else (column, None)
    names = [field.name for field in column.type]
    data = pc.struct_field(column, "bytes")
    return data, (as_text(pc.struct_field(column, "path")) if "path" in names else None)


__all__ = [
    "LABEL_NAMES",
    "SAMPLE",
    "SPLIT_NAMES",
    "as_text",
    "columns_hint",
    "holds_fractions",
    "holds_paths",
    "image_parts",
    "is_bytes",
    "is_index",
    "is_list",
    "is_scalar",
    "is_text",
    "require_column",
]
