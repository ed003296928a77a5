"""The index of a space: which row is in which shard. SQLite in WAL mode, for many processes.

The index only says where to look. Every answer is checked against the shard itself, so a wrong
index can cost time but never yields a wrong row.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.store.columns import ColumnSpec, spec_from_json
from headstart.store.database import Database
from headstart.store.errors import is_newer, newer
from headstart.store.layout import FORMAT, ID_BYTES, PackedIds, is_hex32

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS shards (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL, columns TEXT NOT NULL, created REAL NOT NULL, present INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
    id BLOB NOT NULL, view INTEGER NOT NULL, shard INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (id, view)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS claims (
    id BLOB NOT NULL, view INTEGER NOT NULL, owner TEXT NOT NULL, PRIMARY KEY (id, view)
) WITHOUT ROWID;
"""
# Ids are passed as one blob that SQLite splits: a third of the time of one parameter per id.
_EACH_ID = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) "
_LOCATE = (
    f"{_EACH_ID} SELECT i, shard, position FROM n"  # noqa: S608 (constants only)
    " CROSS JOIN rows ON rows.id = substr(?2, 1 + 16 * i, 16) AND rows.view = ?3"
)
_INSERT = (
    f"{_EACH_ID} INSERT OR IGNORE INTO rows"  # noqa: S608 (constants only)
    " SELECT substr(?2, 1 + 16 * i, 16) AS id, ?3, ?4, i FROM n ORDER BY id"
)
_SHARDS = "SELECT number, name, rows, bytes, columns, created, present FROM shards"
_NAMES = "SELECT number, name FROM shards WHERE number IN (SELECT value FROM json_each(?))"
_NEXT_NUMBER = (
    "SELECT 1 + max((SELECT ifnull(max(number), 0) FROM shards),"
    " (SELECT ifnull(max(CAST(value AS INTEGER)), 0) FROM meta WHERE name = 'last number'))"
)
_KEEP_NUMBERS = (
    f"INSERT OR REPLACE INTO meta SELECT 'last number', CAST(({_NEXT_NUMBER}) - 1 AS TEXT)"
)
_DELETE_SHARDS = "DELETE FROM shards WHERE number IN (SELECT value FROM json_each(?))"
_DELETE_ROWS = "DELETE FROM rows WHERE shard IN (SELECT value FROM json_each(?))"
_ROWS_IN = (
    "SELECT shard, position, id FROM rows"
    " WHERE shard IN (SELECT value FROM json_each(?)) ORDER BY shard, position"
)
_CHUNK = 65_536
_RETIRED = "retired:"  # begins entries of the meta table

POSITION_BITS = 40
MAX_POSITION = (1 << POSITION_BITS) - 1


@dataclass(frozen=True)
class ShardEntry:
    """One registered shard: its number in the index, name (digest), rows, bytes, columns.

    ``present`` is False for a remote shard that this mirror has not fetched yet.
    """

    number: int
    name: str
    rows: int
    bytes: int
    columns: tuple[ColumnSpec, ...]
    created: float
    present: bool = True


@dataclass(frozen=True)
class Places:
    """Where n rows are: ``shard`` (n,) int64, -1 for a missing row, and ``position`` (n,)."""

    shard: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]


class Index:
    """The tables of one space.

    Args:
        path: the SQLite file; its folder must exist.
        read_only: never write; for read-only disks.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.database = Database(path, read_only=read_only)

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """Run the only write transaction: commit at the end, roll back on any exception."""
        return self.database.transaction()

    def close(self) -> None:
        """Close the connections of all threads; the next use opens new ones."""
        self.database.close()

    # -- life ------------------------------------------------------------------------------------

    def create(self, key: str) -> bool:
        """Create the tables if they are missing; return whether the index was new."""
        with self.database.errors():
            connection = self.database.connection()
            if self._stored_key(connection) == key:
                return False
        with self.transaction() as connection:
            if self._stored_key(connection) == key:
                return False
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('format', ?)", (str(FORMAT),))
            connection.execute("INSERT INTO meta VALUES ('key', ?)", (key,))
        return True

    def check(self, key: str) -> None:
        """Check that the index belongs to the space ``key`` and has this format.

        Raises:
            StoreError: it does not, or it cannot be read.
        """
        with self.database.errors():
            found = self._stored_key(self.database.connection())
        if found != key:
            raise self.database.damaged("it has no tables")

    def _stored_key(self, connection: sqlite3.Connection) -> str | None:
        tables = "SELECT count(*) FROM sqlite_master WHERE type='table'"
        if connection.execute(tables).fetchone()[0] == 0:
            return None
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if is_newer(meta.get("format")):
            raise newer(self.database.what, meta["format"])
        if meta.get("format") != str(FORMAT) or not is_hex32(meta.get("key")):
            raise self.database.damaged(
                f"its format is {meta.get('format')!r:.20} instead of {FORMAT}"
            )
        if meta["key"] != self.database.path.parent.name:
            raise self.database.damaged("it belongs to another space")
        return str(meta["key"])

    def integrity_faults(self) -> list[str]:
        """Return SQLite's complaints about the file; empty if it is sound."""
        found = self.database.query("PRAGMA integrity_check(20)")
        ((pages,),) = self.database.query("PRAGMA page_count")
        ((page_size,),) = self.database.query("PRAGMA page_size")
        faults = [str(row[0]) for row in found if row[0] != "ok"]
        # SQLite reads a truncated last page as zeros. Pages may also still be in the log.
        path, (log, _) = self.database.path, self.database.side_files
        size = path.stat().st_size
        if size != pages * page_size and not (log.exists() and log.stat().st_size):
            faults.append(f"it has {size:,} bytes instead of {pages * page_size:,}")
        return faults

    # -- rows ------------------------------------------------------------------------------------

    def locate(self, ids: PackedIds, view: int) -> Places:
        """Look rows up.

        Args:
            ids: (n, 2) uint64.
            view: number of the view.

        Returns:
            n places; a missing row has shard -1.
        """
        shard = np.full(len(ids), -1, np.int64)
        position = np.zeros(len(ids), np.int64)
        # In the order of the B-tree, so that neighbours share its pages.
        tree_order = np.lexsort(ids.astype(np.uint64).view(">u8").T[::-1])
        for start in range(0, len(ids), _CHUNK):
            part = tree_order[start : start + _CHUNK]
            found = self.database.query(_LOCATE, len(part), ids[part].tobytes(), view)
            if not found:
                continue
            places = self._places(found)
            where = part[places[:, 0]]
            shard[where], position[where] = places[:, 1], places[:, 2]
        return Places(shard, position)

    def views(self) -> list[int]:
        """Return the numbers of all views that have rows."""
        return sorted(int(v) for (v,) in self.database.query("SELECT DISTINCT view FROM rows"))

    def rows_of(self, view: int) -> tuple[PackedIds, Places]:
        """Return ids (n, 2) and places of all rows of a view, in the order of the disk."""
        query = "SELECT id, shard, position FROM rows WHERE view = ? ORDER BY shard, position"
        found = self.database.query(query, view)
        ids = np.frombuffer(b"".join(row[0] for row in found), np.uint64).reshape(-1, 2)
        places = self._places([row[1:] for row in found])
        return ids, Places(places[:, 0], places[:, 1])

    def _places(self, found: list[tuple[Any, ...]]) -> npt.NDArray[np.int64]:
        """Check (…, shard, position) as SQLite returned them; it does not enforce column types."""
        try:
            places = np.array(found, dtype=np.int64).reshape(len(found), -1)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.database.damaged("a row has no place") from error
        if len(found) and ((places < 0).any() or (places[:, -1] > MAX_POSITION).any()):
            raise self.database.damaged("a row has no place")
        return places

    def register(
        self, connection: sqlite3.Connection, entry: ShardEntry, ids: PackedIds, view: int
    ) -> int:
        """Insert a shard and those of its rows that are missing, inside a transaction.

        A shard with the same name is the same shard: then only its missing rows are inserted.

        Returns:
            The number of rows that are new.
        """
        known = connection.execute("SELECT number FROM shards WHERE name = ?", (entry.name,))
        number = (known.fetchone() or (None,))[0]
        if number is None:
            ((number,),) = connection.execute(_NEXT_NUMBER).fetchall()
            connection.execute(
                "INSERT INTO shards (number, name, rows, bytes, columns, created, present)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    entry.name,
                    entry.rows,
                    entry.bytes,
                    columns_to_json(entry.columns),
                    entry.created,
                    int(entry.present),
                ),
            )
        before = connection.total_changes
        connection.execute(_INSERT, (len(ids), ids.tobytes(), view, number))
        return connection.total_changes - before

    def keep_numbers(self, connection: sqlite3.Connection) -> None:
        """Never use the numbers of today's shards again, inside a transaction that removes some.

        A reader asks for the places of rows and then for the shards of these numbers. Between the
        two, a number must not become that of another shard.
        """
        connection.execute(_KEEP_NUMBERS)

    # -- merging ---------------------------------------------------------------------------------

    def count_small(self, below: int) -> int:
        """Return how many shards have fewer bytes than ``below``."""
        query = "SELECT count(*) FROM shards WHERE bytes < ? AND present = 1"
        ((count,),) = self.database.query(query, below)
        return int(count)

    def small_shards(self, below: int) -> dict[int, ShardEntry]:
        """Return the shards with fewer bytes than ``below``, by number, in order."""
        query = f"{_SHARDS} WHERE bytes < ? AND present = 1 ORDER BY number"
        return {
            entry.number: entry for entry in map(self._entry, self.database.query(query, below))
        }

    def rows_in(self, numbers: Sequence[int]) -> list[tuple[int, int, bytes]]:
        """Return (shard, position, id) of all rows in some shards, in the order of the disk."""
        return self.database.query(_ROWS_IN, json.dumps(list(numbers)))

    def replace_shards(
        self,
        connection: sqlite3.Connection,
        old: Mapping[int, str],
        entry: ShardEntry,
        ids: PackedIds,
        view: int,
    ) -> bool:
        """Register a shard in the place of others, inside a transaction; those are then retired.

        Args:
            connection: of the transaction.
            old: the names of the others by number.
            entry: the new shard.
            ids: (m, 2) uint64, all rows that the others hold.
            view: number of the view.

        Returns:
            Whether it was done; False if the others are not as they were. Then the transaction has
            to be rolled back.
        """
        numbers = json.dumps(list(old))
        found = connection.execute(_NAMES, [numbers])
        if dict(found.fetchall()) != dict(old) or entry.name in old.values():
            return False
        self.keep_numbers(connection)
        deleted = connection.execute(_DELETE_ROWS, [numbers]).rowcount
        connection.execute(_DELETE_SHARDS, [numbers])
        connection.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, '')",
            ((_RETIRED + name,) for name in old.values()),
        )
        return self.register(connection, entry, ids, view) == len(ids) == deleted

    def mirrors_log(self) -> bool:
        """Whether the index follows the log of a remote store."""
        return bool(self.database.query("SELECT 1 FROM meta WHERE name = 'log'"))

    def retired(self) -> list[str]:
        """Return the names of shards that were merged into others, whose files may be left."""
        query = "SELECT name FROM meta WHERE substr(name, 1, ?) = ?"
        found = self.database.query(query, len(_RETIRED), _RETIRED)
        return [name for (key,) in found if is_hex32(name := str(key)[len(_RETIRED) :])]

    def forget_retired(self, connection: sqlite3.Connection, name: str) -> None:
        """Note that the file of a retired shard is gone, inside a transaction."""
        connection.execute("DELETE FROM meta WHERE name = ?", (_RETIRED + name,))

    # -- shards ----------------------------------------------------------------------------------

    def shard_entries(self, numbers: Iterable[int] | None = None) -> dict[int, ShardEntry]:
        """Return registered shards by number: those of ``numbers``, or all."""
        query = self.database.query
        if numbers is None:
            found = query(f"{_SHARDS} ORDER BY number")
        else:
            found = [row for n in numbers for row in query(f"{_SHARDS} WHERE number = ?", int(n))]
        return {entry.number: entry for entry in map(self._entry, found)}

    def _entry(self, row: tuple[Any, ...]) -> ShardEntry:
        number, name, rows, size, columns, created, present = row
        try:
            if not is_hex32(name) or type(rows) is not int or type(size) is not int:
                raise ValueError("a shard entry is malformed")
            specs = columns_from_json(columns)
            return ShardEntry(number, name, rows, size, specs, float(created), present == 1)
        except (ValueError, TypeError) as error:
            raise self.database.damaged(str(error)) from error

    def sample(self, most: int) -> tuple[str, ...]:
        """Return the ids of some rows."""
        found = self.database.query("SELECT DISTINCT id FROM rows LIMIT ?", most)
        return tuple(key.hex() for (key,) in found if isinstance(key, bytes))

    def known_names(self) -> set[str]:
        """Return the names of all shards, registered or retired."""
        registered = {name for (name,) in self.database.query("SELECT name FROM shards")}
        return registered.union(self.retired())

    def totals(self) -> tuple[int, int, int]:
        """Return the numbers of rows and shards, and the bytes of all shards."""
        ((rows,),) = self.database.query("SELECT count(*) FROM rows")
        sums = "SELECT count(*), coalesce(sum(bytes), 0) FROM shards"
        ((shards, size),) = self.database.query(sums)
        return int(rows), int(shards), int(size)

    def first_columns(self) -> tuple[ColumnSpec, ...] | None:
        """Return the columns of the first shard, which all others match; None if empty."""
        found = self.database.query(f"{_SHARDS} ORDER BY number LIMIT 1")
        return self._entry(found[0]).columns if found else None


def id_blobs(ids: PackedIds) -> list[bytes]:
    """Convert (n, 2) uint64 to n bytes objects of length 16."""
    raw = np.ascontiguousarray(ids).tobytes()
    return [raw[i : i + ID_BYTES] for i in range(0, len(raw), ID_BYTES)]


def columns_to_json(columns: Sequence[ColumnSpec]) -> str:
    """Return the ``columns`` entry of a shard as text."""
    return json.dumps([spec.to_json() for spec in columns], separators=(",", ":"))


def columns_from_json(text: Any) -> tuple[ColumnSpec, ...]:
    """Parse the ``columns`` entry of a shard, trusting nothing.

    Raises:
        ValueError: it is malformed.
    """
    entries = json.loads(text) if isinstance(text, str) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError("a list of columns is malformed")
    return tuple(spec_from_json(entry) for entry in entries)
