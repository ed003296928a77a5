"""Tables in Parquet at an address: their plain columns are read, their images row group by row
group.

A table is replaced by a thin one, whose images are *tokens*: where the image is. Which columns mean
what is decided on the thin table as on any other; then tokens become items.
"""

from __future__ import annotations

import struct
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from headstart.core.addresses import FarFile
from headstart.core.errors import DataError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.wording import format_bytes
from headstart.data import column_types
from headstart.data.content import UndecodableError
from headstart.data.elsewhere import Reader, reaching
from headstart.data.items import Items

_TOKEN = struct.Struct("<8sqqq")
_MARK = b"headfar\0"
_GROUPS = 2  # row groups that are kept: the one that is read, and the one before it


def token(file: int, place: int, more: int) -> bytes:
    """Return what stands for a content: its file, and row and column or first byte and size."""
    return _TOKEN.pack(_MARK, file, place, more)


def tokens_of(column: Any) -> NDArray[np.int64] | None:
    """Return ``(n, 3)``, what every token of a column says; None: it holds others."""
    packed = b"".join(column.to_pylist()) if column.null_count == 0 else b""
    if len(packed) != len(column) * _TOKEN.size or packed[:8] != _MARK:
        return None
    raw = np.frombuffer(packed, np.dtype([("mark", "S8"), ("place", "<i8", 3)]))
    return np.array(raw["place"])


def thin_table(handle: Any, file: int, address: str) -> Any:
    """Return a table with a token in the place of every image.

    Args:
        handle: the open Parquet file.
        file: its number among the files of the source.
        address: of the file, for messages.

    Raises:
        DataError: its plain columns do not fit into memory.
    """
    with pq.ParquetFile(handle) as table:
        schema, count = table.schema_arrow, table.metadata.num_rows
        far = [field.name for field in schema if column_types.is_bytes(field.type)]
        plain = [field.name for field in schema if field.name not in far]
        _require_memory(address, _bytes_of(table.metadata, plain))
        found = table.read(columns=plain)
    made = {name: found.column(name) for name in plain}
    for name in far:
        number = schema.names.index(name)
        made[name] = pa.array([token(file, row, number) for row in range(count)], pa.binary())
    return pa.table({field.name: made[field.name] for field in schema}, metadata=schema.metadata)


def _bytes_of(metadata: Any, names: Sequence[str], groups: Sequence[int] | None = None) -> int:
    wanted, total = set(names), 0
    for group in range(metadata.num_row_groups) if groups is None else groups:
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            column = row_group.column(i)
            if column.path_in_schema.split(".")[0] in wanted:
                total += column.total_uncompressed_size
    return total


def _require_memory(address: str, needed: int) -> None:
    free = psutil.virtual_memory().available
    if needed > free // 2:
        raise DataError(
            f"a part of '{address}' needs {format_bytes(needed)} of memory, and only"
            f" {format_bytes(free)} are free",
            hint="write the table with smaller row groups, or split it into several",
        )


class _Open:
    """One Parquet file that stays open: where its row groups begin, and how to read one."""

    def __init__(self, reader: Reader, file: FarFile) -> None:
        with reaching(file.address):
            self.table = pq.ParquetFile(reader.table(file))
        metadata = self.table.metadata
        counts = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._address = file.address

    def group(self, number: int, column: str) -> tuple[Any, Any]:
        """Return the bytes and perhaps the paths of a row group."""
        _require_memory(self._address, _bytes_of(self.table.metadata, [column], [number]))
        with reaching(self._address):
            found = self.table.read_row_group(number, columns=[column])
        parts: tuple[Any, Any] = column_types.image_parts(found.column(column))
        return parts


class RowItems(Items):
    """Images in a column of Parquet files elsewhere.

    Args:
        reader: reads the files.
        files: the tables.
        places: ``(n, 2) int64``, the file and the row of each item.
        column: that holds the images.
        names: what to call the tables.
    """

    far = True
    encoded = True
    kind = "image"

    def __init__(
        self,
        reader: Reader,
        files: Sequence[FarFile],
        places: NDArray[np.int64],
        column: str,
        names: Sequence[str],
    ) -> None:
        super().__init__(len(places))
        self._reader, self._files, self._names = reader, tuple(files), tuple(names)
        self._places, self._column = places, column
        self._start()

    def _start(self) -> None:
        self._tables: dict[int, _Open] = {}
        self._groups: OrderedDict[tuple[int, int], tuple[Any, Any]] = OrderedDict()
        self._guard = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        own = ("_tables", "_groups", "_guard")
        return {name: value for name, value in self.__dict__.items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def origin(self, i: int) -> str:
        """Return ``"train.parquet row 12"``."""
        file, row = self._places[i].tolist()
        return f"{self._names[file]} row {row}"

    def content(self, i: int) -> bytes:
        """Return the bytes of one image; its row group is read if it is not the last one."""
        file, row = self._places[i].tolist()
        with self._guard:
            number, (data, _) = self._group(file, row)
            at = row - int(self._tables[file].starts[number])
        found: bytes | None = data[at].as_py()
        if found is None:
            raise UndecodableError("the table has no image in this row")
        return found

    def stretches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Yield positions of ``rows`` row group by row group."""
        groups = self._groups_of(rows)
        edges = np.flatnonzero((np.diff(groups, axis=0) != 0).any(axis=1)) + 1
        yield from np.split(np.arange(len(rows), dtype=np.int64), edges)

    def digests(self, rows: NDArray[np.int64], reporter: Reporter | None = None) -> tuple[str, ...]:
        """Return the ids of ``rows``; tables are read row group by row group."""
        todo = np.array([i for i in np.unique(rows) if self._digests[i] is None], np.int64)
        order = np.lexsort(self._places[todo].T[::-1])
        with (reporter or SilentReporter()).task("Identifying", len(todo), "items") as task:
            for start in range(0, len(todo), 64):
                task.advance(self._digest_chunk(todo[order[start : start + 64]].tolist()))
        return tuple(self.digest(int(i)) for i in rows)

    def _groups_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the file and the row group ``(m, 2)`` of some items."""
        places = self._places[rows]
        found = places.copy()
        for file in np.unique(places[:, 0]).tolist():
            with self._guard:
                starts = self._table(file).starts
            mine = places[:, 0] == file
            found[mine, 1] = np.searchsorted(starts, places[mine, 1], "right") - 1
        return found

    def _table(self, file: int) -> _Open:
        if file not in self._tables:
            self._tables[file] = _Open(self._reader, self._files[file])
        return self._tables[file]

    def _group(self, file: int, row: int) -> tuple[int, tuple[Any, Any]]:
        table = self._table(file)
        number = int(np.searchsorted(table.starts, row, "right")) - 1
        if (file, number) not in self._groups:
            while len(self._groups) >= _GROUPS:
                self._groups.popitem(last=False)
            self._groups[file, number] = table.group(number, self._column)
        return number, self._groups[file, number]


__all__ = ["RowItems", "thin_table", "token", "tokens_of"]
