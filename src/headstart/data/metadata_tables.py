"""Folders of images beside a table of their labels, as Hugging Face's image folders have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headstart.core.errors import DataError
from headstart.core.wording import count, quoted
from headstart.data import column_types, columns, label_columns
from headstart.data.formats import IMAGE_SUFFIXES
from headstart.data.source import Part, Request, table_files
from headstart.data.table_files import read_table
from headstart.data.tables import joined, read_part
from headstart.data.walking import survey

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
        return bool(files) and all(
            label_columns.names_its_labels(read_table(f, request)) for f in files
        )
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
            f"'{folder}' holds the tables {quoted((f.name for f in files), 5)}, expected a"
            " single table that describes its images",
            hint="keep only one, or give one of them as the data",
        )
    tables = []
    for path in files:
        table = read_table(path, request)
        if path.parent != folder:
            table = _below(table, path, path.parent.relative_to(folder).as_posix(), request)
        tables.append(table)
    name = files[0].relative_to(root).as_posix()
    table = tables[0] if len(tables) == 1 else joined(tables, [f.name for f in files])
    part = read_part(table, name, folder, request)
    held = sum(f.suffix.lower() in IMAGE_SUFFIXES for f in survey([folder])[0].files)
    notes = [f"The labels of '{folder.name}' are those of {name}."]
    if held > len(part.items):
        notes.append(
            f"{held - len(part.items):,} of {count(held, 'image')} of '{folder.name}' are not in"
            f" {name} and are skipped."
        )
    return part, notes


def _below(table: Any, path: Path, prefix: str, request: Request) -> Any:
    """Return a table with its paths written from a folder above it."""
    column = columns.image_column(table, path.name, request.image_column)
    if not column_types.is_text(table.schema.field(column).type):
        return table
    texts = column_types.as_text(table.column(column))
    written = pc.binary_join_element_wise(pa.scalar(prefix), texts, "/")
    place = table.schema.get_field_index(column)
    return table.set_column(place, column, written)


__all__ = ["has_metadata_labels", "read_images_with_table", "tables_for"]
