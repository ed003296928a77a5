"""The index of a space: which row lies in which shard. SQLite in WAL mode, one file, many processes.

The index only says where to look. Whatever it answers is checked against the shard itself, so a
wrong index can cost time but never yield a wrong row.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.errors import StoreError
from headstart.store.layout import FORMAT, ID_BYTES, REPAIR_HINT, PackedIds, is_hex32
from headstart.store.precision import ColumnSpec, spec_from_json

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
_BUSY_SECONDS = 60.0
_LOOKUP_CHUNK = 1024
_DISK_FULL, _READ_ONLY, _BUSY = ("full",), ("readonly", "read-only"), ("locked", "busy")


class _Connection(sqlite3.Connection):
    """A connection that can be known weakly and is closed when nobody holds it."""

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()


# A connection must not be used, nor closed, on the other side of a fork: closing it there would
# disturb the parent's locks. A child keeps the inherited ones here, out of reach of the collector.
_OPEN: weakref.WeakSet[_Connection] = weakref.WeakSet()
_INHERITED: list[_Connection] = []


@functools.cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _INHERITED.extend(_OPEN))


def _connect(target: str | Path, *, uri: bool = False) -> _Connection:
    _watch_forks()
    connection = sqlite3.connect(
        target,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        uri=uri,
        factory=_Connection,
        check_same_thread=False,  # each is used by one thread, but may be closed by another
    )
    _OPEN.add(connection)
    return connection


@dataclass(frozen=True)
class ShardEntry:
    """One registered shard: its number in the index, name (digest), rows, bytes, columns.

    ``present`` is False for a shard of a remote store that this mirror has not fetched yet.
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
    """Where n rows lie. ``shard`` (n,) int64 is -1 for a row that is missing; ``position`` (n,)."""

    shard: npt.NDArray[np.int64]
    position: npt.NDArray[np.int64]


class Index:
    """Access to one index file from any thread and, after a fork, from any process.

    Args:
        path: the SQLite file; its folder must exist unless nothing is written.
        read_only: never write, not even to recover; for disks that cannot be written to.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.read_only = read_only
        self._local = threading.local()

    # -- connections -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error).lower()
            where = f"the index {self.path}"
            if any(word in text for word in _DISK_FULL):
                hint = "free some space and run again; what is committed stays"
                raise StoreError(f"cannot write {where}: the disk is full", hint=hint) from error
            if any(word in text for word in _READ_ONLY):
                hint = "choose another location or mend the permissions"
                raise StoreError(f"cannot write {where}: it is read-only", hint=hint) from error
            if any(word in text for word in _BUSY):
                hint = "wait for the other process, or end it"
                raise StoreError(f"{where} stays locked by another process", hint=hint) from error
            if "unable to open" in text or "disk i/o" in text:
                hint = "check the disk, its space and the permissions"
                raise StoreError(f"{where} cannot be opened: {error}", hint=hint) from error
            raise StoreError(f"{where} is damaged: {error}", hint=REPAIR_HINT) from error

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid != os.getpid():
            connection = None
        if connection is None:
            connection = self._connect()
            self._local.connection, self._local.pid = connection, os.getpid()
        return connection

    def _connect(self) -> sqlite3.Connection:
        if self.read_only:
            return self._connect_read_only()
        connection = _connect(self.path)
        try:
            # Switching to WAL is not covered by the busy timeout, so several processes that
            # create one index together take turns here.
            deadline = time.monotonic() + _BUSY_SECONDS
            while True:
                try:
                    connection.execute("PRAGMA journal_mode=WAL")
                    break
                except sqlite3.OperationalError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.005)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_size=-16000")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect_read_only(self) -> sqlite3.Connection:
        uri = self.path.absolute().as_uri() + "?mode=ro"
        connection = _connect(uri, uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            connection.close()
            # Beside a database that cannot be written to, WAL has no shared memory. With an empty
            # log the file itself is the whole truth.
            log = self.path.with_name(self.path.name + "-wal")
            if log.exists() and log.stat().st_size:
                raise
            uri += "&immutable=1"
            connection = _connect(uri, uri=True)
        return connection

    def close(self) -> None:
        """Close this thread's connection; the next use opens another."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
        self._local.connection = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Hold the only write transaction; commit at the end, roll back on any exception."""
        with self._errors():
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
                raise

    # -- life ------------------------------------------------------------------------------------

    def create(self, key: str) -> bool:
        """Create the tables if they are missing; return whether the index was new."""
        with self._errors():
            connection = self._connection()
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
        """Check that the index belongs to the space ``key`` and is of this format.

        Raises:
            StoreError: otherwise, or it cannot be read.
        """
        with self._errors():
            found = self._stored_key(self._connection())
        if found != key:
            raise StoreError(
                f"the index {self.path} is damaged: it has no tables", hint=REPAIR_HINT
            )

    def _stored_key(self, connection: sqlite3.Connection) -> str | None:
        tables = "SELECT count(*) FROM sqlite_master WHERE type='table'"
        if connection.execute(tables).fetchone()[0] == 0:
            return None
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        if meta.get("format") != str(FORMAT) or not is_hex32(meta.get("key")):
            raise StoreError(
                f"the index {self.path} is damaged, or of another version of the format "
                f"({meta.get('format')!r:.20}, this is {FORMAT})",
                hint=REPAIR_HINT,
            )
        if meta["key"] != self.path.parent.name:
            raise StoreError(
                f"the index {self.path} is damaged: it belongs to another space", hint=REPAIR_HINT
            )
        return str(meta["key"])

    def integrity_faults(self) -> list[str]:
        """Return what SQLite itself finds wrong with the file; empty if nothing."""
        with self._errors():
            found = self._connection().execute("PRAGMA integrity_check(20)").fetchall()
        return [str(row[0]) for row in found if row[0] != "ok"]

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
        if len(ids) == 0:
            return Places(shard, position)
        with self._errors():
            found = dict(self._found(self._connection(), id_blobs(ids), view))
        for i, blob in enumerate(id_blobs(ids)):
            place = found.get(blob)
            if place is not None:
                shard[i], position[i] = place
        return Places(shard, position)

    def known(self, ids: PackedIds, view: int) -> set[bytes]:
        """Return the ids, as 16 bytes each, that are committed."""
        with self._errors():
            return {blob for blob, _ in self._found(self._connection(), id_blobs(ids), view)}

    def _found(
        self, connection: sqlite3.Connection, blobs: Iterable[bytes], view: int
    ) -> Iterator[tuple[bytes, tuple[int, int]]]:
        # Sorted, neighbours share the pages of the tree.
        wanted = sorted(set(blobs))
        for start in range(0, len(wanted), _LOOKUP_CHUNK):
            chunk = wanted[start : start + _LOOKUP_CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT id, shard, position FROM rows WHERE view = ? AND id IN ({marks})"  # noqa: S608
            for blob, shard, position in connection.execute(query, (view, *chunk)):
                if type(shard) is not int or type(position) is not int or shard < 0:
                    raise StoreError(
                        f"the index {self.path} is damaged: a row has no place", hint=REPAIR_HINT
                    )
                yield blob, (shard, position)

    def register(
        self, connection: sqlite3.Connection, entry: ShardEntry, ids: PackedIds, view: int
    ) -> int:
        """Insert a shard and those of its rows that are not there yet, inside a transaction.

        A shard of the same name is the same shard: then only rows are inserted that it lacks.

        Returns:
            The number of rows that are new.
        """
        known = connection.execute("SELECT number FROM shards WHERE name = ?", (entry.name,))
        number = (known.fetchone() or (None,))[0]
        if number is None:
            number = connection.execute(
                "INSERT INTO shards (name, rows, bytes, columns, created, present)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    entry.name,
                    entry.rows,
                    entry.bytes,
                    columns_to_json(entry.columns),
                    entry.created,
                    int(entry.present),
                ),
            ).lastrowid
        before = connection.total_changes
        # In the order of the tree: faster, and its pages fill better.
        placed = sorted(zip(id_blobs(ids), range(len(ids)), strict=True))
        connection.executemany(
            "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)",
            ((blob, view, number, position) for blob, position in placed),
        )
        return connection.total_changes - before

    def shard_entries(self, numbers: Iterable[int] | None = None) -> dict[int, ShardEntry]:
        """Return registered shards by number: those of ``numbers``, or all."""
        query = "SELECT number, name, rows, bytes, columns, created, present FROM shards"
        with self._errors():
            connection = self._connection()
            if numbers is None:
                found = connection.execute(query + " ORDER BY number").fetchall()
            else:
                found = [
                    row
                    for number in numbers
                    for row in connection.execute(query + " WHERE number = ?", (int(number),))
                ]
        return {entry.number: entry for entry in map(self._entry, found)}

    def _entry(self, row: tuple[Any, ...]) -> ShardEntry:
        number, name, rows, size, columns, created, present = row
        try:
            if not is_hex32(name) or type(rows) is not int or type(size) is not int:
                raise ValueError("a shard entry is malformed")
            specs = columns_from_json(columns)
            return ShardEntry(number, name, rows, size, specs, float(created), present == 1)
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"the index {self.path} is damaged: {error}", hint=REPAIR_HINT
            ) from error

    def totals(self) -> tuple[int, int, int]:
        """Return the numbers of rows and shards, and the bytes of all shards."""
        with self._errors():
            connection = self._connection()
            rows = connection.execute("SELECT count(*) FROM rows").fetchone()[0]
            shards, size = connection.execute(
                "SELECT count(*), coalesce(sum(bytes), 0) FROM shards"
            ).fetchone()
        return int(rows), int(shards), int(size)

    def first_columns(self) -> tuple[ColumnSpec, ...] | None:
        """Return the columns of the first shard, which all others must agree with; None if empty."""
        with self._errors():
            row = (
                self._connection()
                .execute(
                    "SELECT number, name, rows, bytes, columns, created, present FROM shards"
                    " ORDER BY number LIMIT 1"
                )
                .fetchone()
            )
        return None if row is None else self._entry(row).columns


def id_blobs(ids: PackedIds) -> list[bytes]:
    """Turn (n, 2) uint64 into n bytes objects of length 16."""
    raw = np.ascontiguousarray(ids).tobytes()
    return [raw[i : i + ID_BYTES] for i in range(0, len(raw), ID_BYTES)]


def columns_to_json(columns: Sequence[ColumnSpec]) -> str:
    """Return the ``columns`` entry of a shard as text."""
    return json.dumps([spec.to_json() for spec in columns], separators=(",", ":"))


def columns_from_json(text: Any) -> tuple[ColumnSpec, ...]:
    """Read the ``columns`` entry of a shard, trusting nothing.

    Raises:
        ValueError: it is malformed.
    """
    entries = json.loads(text) if isinstance(text, str) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError("a list of columns is malformed")
    return tuple(spec_from_json(entry) for entry in entries)
