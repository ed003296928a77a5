"""Readers and writers that open one database at the same moment."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from headstart.store.database import Database
from headstart.store.errors import StoreError


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_READONLY_RECOVERY,
        sqlite3.SQLITE_READONLY_CANTINIT,
        sqlite3.SQLITE_READONLY_CANTLOCK,
        sqlite3.SQLITE_READONLY,
    ],
)
@pytest.mark.parametrize("passes", [True, False])
def test_a_reader_asks_again_while_a_writer_begins_or_ends(
    code: int, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "index.sqlite"
    writer = Database(path)
    with writer.transaction() as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (7)")
    monkeypatch.setattr("headstart.store.database._PAUSES", (0.0, 0.0, 0.0))
    reader, real, calls = Database(path, read_only=True), Database._connect_read_only, []

    def connect(self: Database) -> sqlite3.Connection:
        calls.append(self)
        if passes and len(calls) > 2:
            return real(self)
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorcode = code
        raise error

    monkeypatch.setattr(Database, "_connect_read_only", connect)
    if passes:
        assert reader.query("SELECT x FROM t") == [(7,)]
    else:  # as on a disk that is read-only, with a log that a kill has left
        with pytest.raises(StoreError, match="it is read-only"):
            reader.query("SELECT x FROM t")
        assert len(calls) == 4
    reader.close()
    writer.close()
